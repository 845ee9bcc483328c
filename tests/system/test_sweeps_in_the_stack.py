"""The sweeper is a part of the system: it does what is due without being asked, and tells of it."""

import time

import httpx

from tests.expired_keys import keys_left, put_keys
from tests.system.stage import Stage
from tests.system.vocabulary import eventually, new_id

SWEEP = "expired_idempotency_keys"


def metric(stage: Stage, name: str) -> float:
    """What the sweeper tells of its first sweep; 0 before it has told anything."""
    text = httpx.get(stage.stack.metrics_url("sweeper"), trust_env=False).text
    start = f'nibble_sweep_{name}{{sweep="{SWEEP}"}} '
    return next((float(line.removeprefix(start)) for line in text.splitlines() if line.startswith(start)), 0.0)


def test_keys_that_have_expired_are_gone_soon_and_counted(stage: Stage) -> None:
    name, before = new_id(), metric(stage, "done_total")
    put_keys(stage.stack.dsn, name, 30)
    put_keys(stage.stack.dsn, name, 5, days_old=1)
    eventually(lambda: keys_left(stage.stack.dsn, name) == 5)
    eventually(lambda: metric(stage, "done_total") == before + 30)


def test_the_sweeper_tells_when_its_rounds_end_and_that_nothing_is_due(stage: Stage) -> None:
    began = time.time()
    eventually(lambda: metric(stage, "rounds_timestamp_seconds") > began)
    assert metric(stage, "oldest_due_seconds") == 0
