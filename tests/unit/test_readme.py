"""The README's claims about the code that a change could silently make untrue."""

from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram

from server import telemetry
from server.settings import ENV_NAMES

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_readme_explains_every_setting() -> None:
    assert {name for name in ENV_NAMES if f"`{name}`" not in README} == set()


def test_the_readme_explains_every_metric() -> None:
    ours = [metric for metric in vars(telemetry).values() if isinstance(metric, Counter | Gauge | Histogram)]
    families = [family for metric in ours for family in metric.collect()]
    names = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    assert "nibble_calls_total" in names
    assert {name for name in names if f"`{name}`" not in README} == set()
