"""What all tests share: how Hypothesis reports, that it leaves no files behind, and who runs what beside whom."""

import pytest
from hypothesis import HealthCheck, settings

# A failure prints the blob that reproduces it. No deadline: the machines that run this are slow at times.
settings.register_profile(
    "nibble", database=None, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("nibble")


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Lanes (see there), where several processes share the tests."""
    from tests.lanes import Lanes

    return Lanes(config, log)
