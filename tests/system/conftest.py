"""The stage that the tests of the whole system play on."""

import pytest

from tests.system.doors import Door
from tests.system.stage import Stage, stage_of


@pytest.fixture(scope="session")
def stage(request: pytest.FixtureRequest) -> Stage:
    """The real system."""
    return stage_of(request.session)


@pytest.fixture(scope="session")
def rest(stage: Stage) -> Door:
    """JSON over HTTP, through the gateway."""
    return stage.rest
