"""What the consumers' frame promises: each event applied once, in order, whatever comes again or changes hands."""

import re
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from nibble.support.v1 import ticket_event_pb2
from psycopg import Connection, errors

from server.db.consumed import ConsumedEvents, Mark
from server.db.consumed_table import consumed_events, create_consumed_events
from tests.integration.consumer_line import Line, consumed, some_events
from tests.integration.recorder import SCHEMA, Recorder
from tests.integration.test_migrations import engine_for
from tests.system.vocabulary import dice, eventually
from tests.unit.ticket_events import a_record, an_event


def test_events_are_applied_in_batches_and_in_order_and_their_offsets_committed(line: Line) -> None:
    events = some_events(20, each=30)
    line.send_events(events)
    with line.consumer() as running:
        line.until_applied(events)
        line.until_committed()
    assert sum(running.handler.batches) == len(events)
    assert len(running.handler.batches) < 20


def test_what_comes_twice_is_applied_once(line: Line) -> None:
    events, before = some_events(5, each=4), consumed("duplicate")
    line.send_events(events + events)
    with line.consumer() as running:
        line.until_committed()
        line.send_events(events)
        line.until_committed()
    line.until_applied(events)
    assert consumed("duplicate") == before + 2 * len(events)
    assert sum(running.handler.batches) == len(events)


def test_a_replay_from_offset_0_changes_nothing(line: Line) -> None:
    events, before = some_events(5, each=4), consumed("duplicate")
    line.send_events(events)
    with line.consumer():
        line.until_committed()
    rows = line.query("SELECT * FROM recorded.applied, recorded.consumed_events ORDER BY 1, 5")
    # A group that Kafka does not know begins at the beginning.
    with line.consumer(group=f"{line.name}-again"):
        eventually(lambda: line.committed(f"{line.name}-again") == line.size())
    assert line.query("SELECT * FROM recorded.applied, recorded.consumed_events ORDER BY 1, 5") == rows
    assert consumed("duplicate") == before + len(events)


def test_members_of_a_group_share_the_work_and_take_over_from_each_other(line: Line) -> None:
    chance, events, sent = dice("members"), some_events(60, each=20), 0
    feeding = threading.Event()

    def feed() -> None:
        nonlocal sent
        while sent < len(events) and not feeding.wait(0.01):
            line.send_events(events[sent : sent + 10])
            sent += 10

    feeder = threading.Thread(target=feed)
    try:
        with line.consumer() as first:
            feeder.start()
            eventually(lambda: first.handler.batches)
            for _ in range(3):
                with line.consumer() as other:
                    enough = chance.randint(1, 10)
                    eventually(lambda o=other, n=enough: sum(o.handler.batches) >= n or sent == len(events))  # type: ignore[misc]
            feeder.join()
            line.until_applied(events)
            line.until_committed()
    finally:
        feeding.set()
    assert sum(other.handler.batches) < len(events)


def test_a_type_of_a_later_version_is_passed_over(line: Line) -> None:
    events, before = some_events(1, each=3), consumed("passed_over")
    later = an_event(events[0]["ticket_id"], 4, event_type="ticket_escalated")
    line.send_events([*events, later])
    with line.consumer():
        line.until_committed()
    line.until_applied(events)
    assert consumed("passed_over") == before + 1
    assert line.dead_letters() == []


def test_an_event_that_contradicts_one_that_was_applied_is_poison(line: Line) -> None:
    first = an_event(sequence=7)
    same_sequence = an_event(first["ticket_id"], 7)
    same_id = an_event(first["ticket_id"], 8, event_id=first["event_id"])
    # In one batch, and in a later one.
    line.send_events([first, same_sequence])
    with line.consumer():
        line.until_committed()
        line.send_events([same_id, an_event(first["ticket_id"], 9)])
        line.until_committed()
    assert line.applied()[0] == first["event_id"]
    assert len(line.applied()) == 2
    reasons = [dict(letter.headers)["dlq_reason"].decode() for letter in line.dead_letters()]
    assert len(reasons) == 2
    assert all(re.match("another event had the same event_id, or the same sequence", reason) for reason in reasons)


def test_two_consumers_with_the_same_events_at_once_take_none_for_poison(line: Line) -> None:
    # Each is a group of its own, so that both get everything, as after a rebalance that one has not noticed.
    events = some_events(40, each=10)
    line.send_events(events)
    with line.consumer(group="one", handler=Recorder(pause=0.01)), line.consumer(group="other"):
        for group in ("one", "other"):
            eventually(lambda g=group: line.committed(g) == line.size())  # type: ignore[misc]
    line.until_applied(events)
    assert line.dead_letters() == []


def test_marks_written_at_the_same_moment_are_duplicates_and_no_contradiction(line: Line) -> None:
    # The second statement waits at one of the unique indexes for the first transaction, whichever comes first.
    mark = Mark(uuid4(), uuid4(), 1)
    table = ConsumedEvents(SCHEMA)
    with line.connection() as one, line.connection() as other:
        with one.transaction():
            assert table.remember(one, [mark], line.now()).new == {mark}
            later = line.in_background(lambda: table.remember(other, [mark], line.now()))
            eventually(lambda: line.query("SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
        found = later.result(5)
    assert not found.new
    assert not found.contradicting


class EndsItsTransaction(Recorder):
    """Commits by itself after one event, and passes over a failed statement after another."""

    def __init__(self, commits: dict[str, Any], hides: dict[str, Any]) -> None:
        super().__init__()
        self._commits, self._hides = commits["event_id"], hides["event_id"]

    def apply(self, connection: Connection[Any], events: Sequence[ticket_event_pb2.TicketEvent]) -> Callable[[], None]:
        afterwards = super().apply(connection, events)
        ids = {event.event_id for event in events}
        if self._commits in ids:
            connection.commit()
        if self._hides in ids:
            with suppress(errors.DivisionByZero):
                connection.execute("SELECT 1 / 0")
        return afterwards


def test_a_handler_that_ends_its_transaction_or_passes_over_a_failure_applies_nothing(line: Line) -> None:
    commits, hides, good = an_event(), an_event(), some_events(3, each=3)
    line.send_events([commits, hides, *good])
    with line.consumer(EndsItsTransaction(commits, hides)):
        line.until_committed()
    line.until_applied(good)
    assert {letter.key for letter in line.dead_letters()} == {a_record(event).key for event in (commits, hides)}


def test_the_declared_table_is_the_one_that_migrations_make(line: Line) -> None:
    metadata = sqlalchemy.MetaData(schema=SCHEMA)
    consumed_events(metadata)
    engine = engine_for(line.dsn)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "include_name": lambda name, kind, _: kind != "schema" or name == SCHEMA,
                "include_object": lambda _object, name, kind, _reflected, _other: (
                    kind != "table" or name == "consumed_events"
                ),
            },
        )
        assert compare_metadata(context, metadata) == []
        connection.rollback()
        made, declared = catalog(connection), catalog_of(connection, metadata)
    engine.dispose()
    assert made == declared


def catalog(connection: sqlalchemy.Connection) -> list[tuple[object, ...]]:
    """Columns and constraints of the table, by name."""
    rows = connection.exec_driver_sql(
        """
        SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute
        WHERE attrelid = 'recorded.consumed_events'::regclass AND attnum > 0
        UNION ALL
        SELECT conname, pg_get_constraintdef(oid), false FROM pg_constraint
        WHERE conrelid = 'recorded.consumed_events'::regclass
        ORDER BY 1
        """
    )
    return [tuple(row) for row in rows]


def catalog_of(connection: sqlalchemy.Connection, metadata: sqlalchemy.MetaData) -> list[tuple[object, ...]]:
    """The same of the table as it is declared."""
    assert f"CREATE TABLE {SCHEMA}.consumed_events" in create_consumed_events(SCHEMA)
    connection.exec_driver_sql(f"DROP TABLE {SCHEMA}.consumed_events")
    metadata.create_all(connection)
    return catalog(connection)
