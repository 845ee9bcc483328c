"""What all tests share: how Hypothesis reports, and that it leaves no files behind."""

from hypothesis import HealthCheck, settings

# A failure prints the blob that reproduces it. No deadline: the machines that run this are slow at times.
settings.register_profile(
    "nibble", database=None, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("nibble")
