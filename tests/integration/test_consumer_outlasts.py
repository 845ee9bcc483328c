"""Consumers that are killed, and databases and brokers that go away: nothing is lost, and nothing is applied twice."""

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from nibble.support.v1.ticket_event_pb2 import TicketEvent

from devstack.stack import Stack
from server.db import database
from server.workers.consumer import NO_DATABASE
from tests.frozen import frozen, whole
from tests.integration.consumer_line import SESSION_SECONDS, Line, some_events
from tests.integration.recorder import SCHEMA, Recorder
from tests.system.vocabulary import dice, eventually

Told = Sequence[Mapping[str, Any]]

KILLS = 4


@contextmanager
def at_work(line: Line, pause: float = 0, batch: int = 500) -> Iterator[subprocess.Popen[bytes]]:
    """The process of a consumer, ended in the way of an operator where the test has not killed it."""
    process = line.process(pause, batch=batch)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            assert process.wait(15) == 0


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    assert process.wait(5) == -signal.SIGKILL


def test_a_consumer_killed_again_and_again_in_its_batches_applies_each_event_once(line: Line) -> None:
    chance, events = dice("kills"), some_events(50, each=30)
    line.send_events(events)
    in_a_batch = 0
    for _ in range(KILLS):
        # Small batches, each of which stays open for a while.
        with at_work(line, pause=0.05, batch=20) as process:
            enough = len(line.applied()) + chance.randint(1, 100)
            eventually(lambda n=enough: len(line.applied()) >= n, 20)  # type: ignore[misc]
            time.sleep(chance.uniform(0, 0.06))
            in_a_batch += bool(line.query(SLEEPING))
            kill(process)
    with at_work(line):
        line.until_applied(events)
        line.until_committed()
    print(f"{in_a_batch} of {KILLS} kills fell into an open transaction")  # noqa: T201
    assert line.dead_letters() == []


SLEEPING = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event = 'PgSleep'
"""


def test_a_consumer_killed_between_its_commit_and_kafkas_applies_nothing_again(line: Line) -> None:
    first, then = some_events(3, each=3), some_events(3, each=3)
    line.send_events(first)
    assert line.process(dies_before_commit=True).wait(30) == -signal.SIGKILL
    assert line.applied()
    assert line.committed() == 0
    line.send_events(then)
    with at_work(line):
        line.until_applied(first + then)
        line.until_committed()


def test_another_takes_over_from_a_consumer_that_was_killed(line: Line) -> None:
    events = some_events(20, each=10)
    with at_work(line) as one, at_work(line) as other:
        line.send_events(events[:100])
        line.until_applied(events[:100])
        kill(one)
        killed = time.monotonic()
        line.send_events(events[100:])
        line.until_applied(events)
        took = time.monotonic() - killed
        line.until_committed()
        assert other.poll() is None
    print(f"taken over within {took:.1f} s")  # noqa: T201
    assert took < SESSION_SECONDS + 8


def test_a_database_that_goes_away_and_comes_back_loses_nothing(line: Line, told: Told) -> None:
    events = some_events(10, each=9)
    database = line.query("SELECT current_database()")[0][0]
    with line.consumer(Recorder(pause=0.05)), psycopg.connect(elsewhere(line), autocommit=True) as operator:
        line.send_events(events[:30])
        line.until_applied(events[:30])
        operator.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
        operator.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database])
        line.send_events(events[30:60])
        eventually(lambda: NO_DATABASE in str(told))
        operator.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")
        line.until_applied(events[:60])
        # In the middle of a transaction.
        line.send_events(events[60:])
        eventually(lambda: line.query(SLEEPING))
        operator.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database])
        line.until_applied(events)
        line.until_committed()
    assert line.dead_letters() == []
    # However often it tried.
    assert sum(said["event"] == NO_DATABASE for said in told) <= 4
    assert "the trouble is over" in str(told)


def elsewhere(line: Line) -> str:
    """Another database of the same server."""
    return line.dsn.replace("/test_", "/postgres?application_name=test_", 1).replace("?host", "&host", 1)


def test_a_consumer_that_starts_before_the_migrations_waits_for_them(line: Line, told: Told) -> None:
    events = some_events(2, each=2)
    line.query(f"DROP SCHEMA {SCHEMA} CASCADE")
    line.send_events(events)
    with line.consumer():
        eventually(lambda: "42P01" in str(told) or "3F000" in str(told))
        line.create_tables()
        line.until_applied(events)
        line.until_committed()
    assert line.dead_letters() == []


def test_two_transactions_in_each_others_way_are_trouble_and_no_poison(line: Line) -> None:
    failures = iter(["40001", "40P01", "57014", "53300"])

    def act(connection: psycopg.Connection[object], _event: object) -> None:
        for state in failures:
            connection.execute(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{state}'; END $$")

    events = some_events(2, each=2)
    line.send_events(events)
    with line.consumer(Recorder(act)):
        line.until_applied(events)
        line.until_committed()
    assert line.dead_letters() == []


class OneByOne(Recorder):
    """Takes too long for more than one event."""

    def apply(self, connection: psycopg.Connection[Any], events: Sequence[TicketEvent]) -> Callable[[], None]:
        if len(events) > 1:
            connection.execute("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '57014'; END $$")
        return super().apply(connection, events)


def test_a_batch_that_always_takes_too_long_is_applied_event_by_event(line: Line) -> None:
    events = some_events(2, each=3)
    line.send_events(events)
    with line.consumer(OneByOne()):
        line.until_applied(events)
        line.until_committed()
    assert line.dead_letters() == []


def test_a_consumer_that_falls_silent_amid_a_transaction_keeps_its_locks_from_nobody(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "WORKER_SILENCE_MS", 300)
    frozen_in, goes_on, events = threading.Event(), threading.Event(), some_events(1, each=2)

    def freeze_once(_connection: object, _event: object) -> None:
        if not frozen_in.is_set():
            frozen_in.set()
            goes_on.wait(20)

    def sessions() -> list[tuple[Any, ...]]:
        return line.query("SELECT pid FROM pg_stat_activity WHERE application_name = %s", line.name)

    line.send_events(events)
    with line.consumer(Recorder(freeze_once)):
        assert frozen_in.wait(20)
        try:
            eventually(lambda: not sessions())
        finally:
            goes_on.set()
        line.until_applied(events)
        line.until_committed()
    assert line.dead_letters() == []


def test_consumers_wait_for_kafka_whether_they_were_at_work_or_only_start(
    broker: Stack, line: Line, tmp_path: Path
) -> None:
    events, kafka = some_events(5, each=6), broker.part("kafka")
    line.log = tmp_path / "consumers.log"
    with at_work(line) as one:
        line.send_events(events[:15])
        line.until_applied(events[:15])
        line.until_committed()
        # Its client leaks sockets when the broker that it is connected to goes away.
        line.hang_up()
        kafka.kill()
        with at_work(line) as other:
            eventually(lambda: "Kafka does not answer" in line.log.read_text() if line.log else False, 20)
            kafka.start()
            line.send_events(events[15:])
            line.until_applied(events, 30)
            line.until_committed(30)
            assert (one.poll(), other.poll()) == (None, None)
            logged = line.log.read_text()
    assert logged.count('"event": "Kafka does not answer"') <= 2
    assert "Traceback" not in logged


def test_a_consumer_stops_soon_even_where_kafka_is_frozen(broker: Stack, line: Line) -> None:
    line.send_events(some_events(1, each=1))
    process = line.process()
    eventually(line.applied, 20)
    line.hang_up()
    with frozen(whole(psutil.Process(broker.part("kafka").pid))):
        began = time.monotonic()
        process.terminate()
        assert process.wait(15) == 0
        assert time.monotonic() - began < 10
