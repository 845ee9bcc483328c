"""The README's claims about the code that a change could silently make untrue."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Counter, Gauge, Histogram

from server import telemetry
from server.app import sweeper
from server.app.api_process import database
from server.app.collaborators import collaborators
from server.db.statements import PROBE
from server.settings import ENV_NAMES, Settings

README = (Path(__file__).parents[2] / "README.md").read_text()
NOWHERE: Mapping[str, Any] = {"database_url": "postgresql://127.0.0.1:1/nowhere"}


def test_the_readme_explains_every_setting() -> None:
    assert {name for name in ENV_NAMES if f"`{name}`" not in README} == set()


def test_the_readme_explains_every_metric() -> None:
    ours = [metric for metric in vars(telemetry).values() if isinstance(metric, Counter | Gauge | Histogram)]
    families = [family for metric in ours for family in metric.collect()]
    names = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    assert "nibble_calls_total" in names
    assert {name for name in names if f"`{name}`" not in README} == set()


async def names_of_sweeps(settings: Settings) -> set[str]:
    """The database is never opened."""
    on = collaborators(settings, database(settings, PROBE), b"")
    try:
        return {sweep.name for sweep in sweeper.sweeps(on, settings)}
    finally:
        await on.close()


def test_the_readme_explains_every_sweep() -> None:
    everything = Settings(**NOWHERE, order_service_target="localhost:1", reassign_away_after_seconds=1.0)
    names = asyncio.run(names_of_sweeps(everything))
    assert "missing_orders" in names
    assert {name for name in names if f"| `{name}` |" not in README} == set()


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("missing_orders", {"order_service_target": "localhost:1"}),
        ("reassign_away", {"reassign_away_after_seconds": 1.0}),
    ],
)
def test_a_sweep_that_is_off_without_a_setting_is_on_with_it(name: str, needs: Mapping[str, Any]) -> None:
    (setting,) = needs
    (line,) = (line for line in README.splitlines() if line.startswith(f"| `{name}` |"))
    assert f"`{setting.upper()}`" in line
    assert name not in asyncio.run(names_of_sweeps(Settings(**NOWHERE)))
    assert name in asyncio.run(names_of_sweeps(Settings(**NOWHERE, **needs)))
