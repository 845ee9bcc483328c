"""Sweepers killed and frozen amid their work, and PostgreSQL taken from them: what is due is done, and once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import psycopg
import pytest

from server.app.sweeper import SWEEPER_GRACE_SECONDS
from server.usecases.idempotency import KEYS_AT_ONCE
from tests.expired_keys import keys_left, put_keys
from tests.fault.sweeper_process import SweeperProcess, sweeper
from tests.frozen import frozen, whole
from tests.system.stage import Stage
from tests.system.vocabulary import eventually, new_id

# What a busy machine may add.
MARGIN = 2.0
BATCHES, YOUNG = 3, 10
SESSIONS_THAT_WAIT = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND strpos(query, 'idempotency_keys') > 0
"""


@pytest.fixture
def alone(stage: Stage) -> Stage:
    """The stage without a sweeper; its own one is started again afterwards (see `stage`)."""
    stage.stack.part("sweeper").kill()
    return stage


@pytest.fixture
def keys(alone: Stage) -> str:
    """The text of some batches of expired keys, and of a few that have not expired."""
    name = new_id()
    put_keys(alone.stack.dsn, name, BATCHES * KEYS_AT_ONCE)
    put_keys(alone.stack.dsn, name, YOUNG, days_old=1)
    return name


@contextmanager
def held_up(stage: Stage) -> Iterator[psycopg.Connection]:
    """While nobody can write a key, until the transaction ends: a sweeper that tries stands amid its statement."""
    with psycopg.connect(stage.stack.dsn) as connection:
        connection.execute(b"LOCK admin_service.idempotency_keys IN SHARE MODE")
        yield connection


def is_held_up(stage: Stage) -> bool:
    return stage.query(SESSIONS_THAT_WAIT) == [(1,)]


def have_gone(stage: Stage, keys: str) -> bool:
    return keys_left(stage.stack.dsn, keys) == YOUNG


def swept_by(process: SweeperProcess) -> int:
    """How many pieces it says to have done: of the others there may be some that other tests have left."""
    swept = (line for line in process.lines if line["event"] == "swept")
    return sum(line["done"] for line in swept if line["sweep"] == "expired_idempotency_keys")


def test_what_a_sweeper_was_killed_at_is_done_by_the_next_one(alone: Stage, keys: str) -> None:
    with held_up(alone), sweeper(alone) as killed:
        eventually(lambda: is_held_up(alone))
        killed.kill()
    with sweeper(alone) as successor:
        eventually(lambda: have_gone(alone, keys))
        # The statement that the killed one had begun may have come to its end.
        eventually(lambda: swept_by(successor) >= (BATCHES - 1) * KEYS_AT_ONCE)
    assert swept_by(killed) == 0


def test_a_frozen_sweeper_keeps_nobody_from_the_work_and_goes_on_when_it_moves(alone: Stage, keys: str) -> None:
    with held_up(alone) as lock, sweeper(alone) as first:
        eventually(lambda: is_held_up(alone))
        first.process.send_signal(signal.SIGSTOP)
        lock.rollback()
        with sweeper(alone) as second:
            eventually(lambda: have_gone(alone, keys))
            eventually(lambda: swept_by(second) >= (BATCHES - 1) * KEYS_AT_ONCE)
        put_keys(alone.stack.dsn, keys, 5)
        first.process.send_signal(signal.SIGCONT)
        eventually(lambda: have_gone(alone, keys))


def test_postgres_killed_and_back_is_told_once_each_and_the_work_goes_on(alone: Stage, keys: str) -> None:
    postgres = alone.stack.part("postgres")
    with sweeper(alone) as process:
        eventually(lambda: have_gone(alone, keys))
        postgres.kill()
        eventually(lambda: "due work waits" in process.events)
        postgres.start()
        put_keys(alone.stack.dsn, keys, 5)
        eventually(lambda: have_gone(alone, keys))
        eventually(lambda: "due work is done again" in process.events)
        told = [line["event"] for line in process.lines if line["event"] not in ("sweeping", "swept")]
    assert told == ["due work waits", "due work is done again"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_sweeper_ends_soon_when_it_is_told_to(alone: Stage, number: signal.Signals) -> None:
    with sweeper(alone) as process:
        process.process.send_signal(number)
        assert process.process.wait(MARGIN) == 0
        assert process.events[-1] == "stopped"


def test_a_sweeper_ends_within_its_grace_though_postgres_stands_still(alone: Stage) -> None:
    with held_up(alone), sweeper(alone) as process:
        eventually(lambda: is_held_up(alone))
        with frozen(whole(psutil.Process(alone.stack.part("postgres").pid))):
            process.process.send_signal(signal.SIGTERM)
            assert process.process.wait(SWEEPER_GRACE_SECONDS + MARGIN) == 0
    assert "the last pieces were cut off" in process.events
