"""The relay: sends the events that the database holds to Kafka, and marks each when Kafka has acknowledged it.

An event is sent at least once: a relay that dies between the acknowledgement and the mark leaves it to be sent again,
under the same event id.

Several relays share the work by shards of the tickets (`server.workers.shards`). A shard is one relay's at a time, but
for a moment two may believe that it is theirs: one whose session ended without its knowing, and its successor. First
deliveries are in the order of their sequence all the same, as this holds for each relay by itself: it sends a ticket's
event n + 1 only when Kafka has acknowledged event n to it, or when it read n + 1 as the ticket's oldest unsent one, so
that n is marked, which is done after an acknowledgement only. So whoever sends n + 1, event n is in Kafka before it;
what the other one sends late repeats events that are there.

A ticket whose event fails waits, and the others go on (`server.workers.lines`).
"""

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
import structlog
from kafka import KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError
from psycopg import Connection, RawCursor

from server import telemetry
from server.db import statements
from server.db.database import with_liveliness
from server.db.statement import Statement
from server.db.tables import SHARDS
from server.domain.events import HistoryEntry
from server.workers import producer as producers
from server.workers.event_message import event_message
from server.workers.lines import Lines, Outbound
from server.workers.producer import DELIVERY_TIMEOUT
from server.workers.shards import Shards

_log = structlog.stdlib.get_logger("nibble.relay")

# What one look at the queue brings. Small enough for a socket's buffer: a relay that is frozen while it reads must not
# keep PostgreSQL from ending its session.
MOST_AT_ONCE = 240
# Between two looks at the queue: as long as there is something, and growing up to the second while there is nothing.
SHORTEST_PAUSE = 0.005
LONGEST_PAUSE = 0.1
RETRY_PAUSE = 1.0
BALANCE_SECONDS = 1.0
BACKLOG_SECONDS = 5.0
# Beyond this, how many events wait says nothing more, and takes long to count.
MOST_COUNTED = 100_000
# After so long with failures and without any acknowledgement a new producer is made: one that has met a fatal error
# refuses everything from then on. Until there is one, other relays may have the shards.
RENEW_AFTER = 5.0
# What the client may take beyond its timeout to say that an event has failed.
OVERDUE_AFTER = DELIVERY_TIMEOUT + 5.0
# What is on its way when the relay is stopped has so long to be acknowledged and marked.
LAST_ANSWERS = 2.0

# PostgreSQL ends the session, and with it the hold of the shards, of a relay that says nothing for so long: one that
# is frozen. At work it speaks ten times a second; it is silent while it looks for Kafka, or closes a producer.
SILENCE_MS = 10_000
SESSION = " ".join(
    f"-c {name}={value}"
    for name, value in {
        "timezone": "UTC",
        "statement_timeout": 30_000,
        "idle_session_timeout": SILENCE_MS,
        "tcp_user_timeout": SILENCE_MS,
        # Of a relay that died while its statement waited for somebody's lock, PostgreSQL would not notice before.
        "client_connection_check_interval": 200,
        "plan_cache_mode": "force_generic_plan",
        # A mark that PostgreSQL loses in a crash costs a duplicate, and waiting for each costs the API its disk.
        "synchronous_commit": "off",
    }.items()
)

Answer = tuple[Outbound, Exception | None]


class RelaySettings(NamedTuple):
    """Where the events are, and where they go."""

    dsn: str
    bootstrap_servers: str
    topic: str


class Relay:
    """Runs until `stop` is set, through failures of PostgreSQL and of Kafka."""

    def __init__(self, settings: RelaySettings, clock: Callable[[], datetime], stop: threading.Event) -> None:
        self._settings = settings
        self._clock = clock
        self._stop = stop
        self._backlog = _Backlog(clock)

    def run(self) -> None:
        """Work until stopped; each failure is logged, and the work starts over after a pause."""
        while not self._stop.is_set():
            try:
                self._work()
            except psycopg.Error as error:
                self._pause_after("the database does not answer as it should", error)
            except KafkaError as error:
                self._pause_after("Kafka does not take events", error)

    def _work(self) -> None:
        with session(self._settings.dsn, f"nibble-relay-{os.getpid()}") as connection:
            # Before Kafka is looked for: while it is away the backlog is what an operator wants to know.
            self._backlog.measure(connection)
            with self._producer() as producer:
                _log.info("relaying", topic=self._settings.topic)
                _Session(connection, producer, self._settings.topic, self._clock, self._backlog).run(self._stop)

    @contextmanager
    def _producer(self) -> Iterator[KafkaProducer]:
        producer = producers.event_producer(self._settings.bootstrap_servers)
        try:
            yield producer
        finally:
            telemetry.SHARDS_HELD.set(0)
            producers.close(producer)

    def _pause_after(self, what: str, error: Exception) -> None:
        _log.warning(what, error=str(error).strip(), retry_seconds=RETRY_PAUSE)
        self._stop.wait(RETRY_PAUSE)


@contextmanager
def session(dsn: str, name: str) -> Iterator[Connection[Any]]:
    """A session with PostgreSQL, known there by that name, as the relay needs it; it ends with the block."""
    with psycopg.connect(
        with_liveliness(dsn), autocommit=True, cursor_factory=RawCursor, options=SESSION
    ) as connection:
        yield connection


class _Session:
    """A relay at work, for as long as one session with PostgreSQL and one producer last."""

    def __init__(
        self,
        connection: Connection[Any],
        producer: KafkaProducer,
        topic: str,
        clock: Callable[[], datetime],
        backlog: "_Backlog",
    ) -> None:
        self._connection = connection
        self._producer = producer
        self._topic = topic
        self._clock = clock
        self._backlog = backlog
        self._shards = Shards(connection)
        self._lines = Lines()
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._balance_at = self._fetch_at = 0.0
        self._pause = SHORTEST_PAUSE
        self._failing_since: float | None = None

    def run(self, stop: threading.Event) -> None:
        """Send and mark until stopped.

        Raises:
            psycopg.Error: the session is over, and with it the hold of the shards.
            KafkaError: another producer is needed.
        """
        self._shards.join()
        while not stop.is_set():
            self._balance()
            self._fetch()
            self._send()
            self._settle(self._until_next())
        last = time.monotonic() + LAST_ANSWERS
        while not self._lines.are_quiet and time.monotonic() < last:
            self._settle(LONGEST_PAUSE)

    def _balance(self) -> None:
        now = time.monotonic()
        if now < self._balance_at:
            return
        self._balance_at = now + BALANCE_SECONDS
        self._backlog.measure(self._connection)
        self._shards.balance(self._lines.busy())
        self._lines.leave(self._shards.leaving)
        telemetry.SHARDS_HELD.set(len(self._shards.held))
        if self._lines.sent_before(now - OVERDUE_AFTER):
            raise KafkaTimeoutError("the client does not say what became of an event")

    def _fetch(self) -> None:
        now, shards = time.monotonic(), list(self._shards.own)
        if now < self._fetch_at or not shards or not self._lines.has_room:
            return
        limit = MOST_AT_ONCE // len(shards)
        values = {"shards": shards, "except": self._lines.tickets, "limit": limit}
        rows = fetch(self._connection, statements.LIST_UNPUBLISHED, values)
        self._lines.take(outbound(row[0], row[1:]) for row in rows)
        self._pause = SHORTEST_PAUSE if rows else min(self._pause * 2, LONGEST_PAUSE)
        self._fetch_at = now if len(rows) >= limit else now + self._pause

    def _send(self) -> None:
        for event in self._lines.next(time.monotonic()):
            try:
                hand_over(self._producer, self._topic, event, self._answers.put)
            except KafkaTimeoutError:
                # It does not know the topic's partitions, and would look for them as long for the next event.
                raise
            except (KafkaError, ValueError) as error:
                self._answers.put((event, error))

    def _until_next(self) -> float:
        now = time.monotonic()
        due = min(self._fetch_at, self._lines.waits_until()) if self._lines.has_room else self._lines.waits_until()
        return max(0.0, min(due - now, LONGEST_PAUSE))

    def _settle(self, within: float) -> None:
        """Wait for an answer, and see to all that are there by then."""
        answers = _those_there(self._answers, within)
        self._mark([event for event, error in answers if error is None])
        for event, error in answers:
            if error is None:
                self._lines.acknowledged(event)
            else:
                self._lines.failed(event, time.monotonic())
        self._look_at_failures([error for _, error in answers if error is not None])

    def _mark(self, events: Sequence[Outbound]) -> None:
        if not events:
            return
        now, statement = self._clock(), statements.MARK_PUBLISHED
        values = {"event_ids": [event.entry.id for event in events], "now": now}
        self._connection.execute(statement.sql, statement.bind(values), prepare=True)
        telemetry.EVENTS_PUBLISHED.inc(len(events))
        for event in events:
            telemetry.PUBLISH_SECONDS.observe((now - event.entry.occurred_at).total_seconds())
        self._failing_since = None

    def _look_at_failures(self, errors: Sequence[Exception]) -> None:
        if not errors:
            return
        telemetry.EVENTS_FAILED.inc(len(errors))
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        if now - self._failing_since > RENEW_AFTER:
            raise errors[0] if isinstance(errors[0], KafkaError) else KafkaError(str(errors[0]))
        _log.warning("events wait to be sent again", events=len(errors), error=str(errors[0]))


class _Backlog:
    """Tells, every few seconds, how many events wait in all, whosever shards they are in, and how old the oldest is."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._measured = float("-inf")

    def measure(self, connection: Connection[Any]) -> None:
        """Look, where the last time is long enough ago."""
        now = time.monotonic()
        if now - self._measured < BACKLOG_SECONDS:
            return
        self._measured = now
        values = {"shards": list(range(SHARDS)), "limit": 1, "most": MOST_COUNTED}
        ((count, oldest),) = fetch(connection, statements.MEASURE_BACKLOG, values)
        telemetry.EVENT_BACKLOG.set(count)
        telemetry.OLDEST_EVENT_SECONDS.set((self._clock() - oldest).total_seconds() if oldest else 0)


def fetch(connection: Connection[Any], statement: Statement, values: dict[str, object]) -> list[tuple[Any, ...]]:
    """The rows of a statement."""
    cursor = connection.cursor(binary=True)
    cursor.execute(statement.sql, statement.bind(values), prepare=True)
    return cursor.fetchall()


def outbound(shard: int, row: Sequence[Any]) -> Outbound:
    """An event to send, from the columns of a history entry and the snapshot."""
    return Outbound(shard, HistoryEntry._make(row[:-1]), row[-1])


def hand_over(producer: KafkaProducer, topic: str, event: Outbound, answer: Callable[[Answer], None]) -> None:
    """Give the event to the client, which answers later, from its own thread.

    Raises:
        KafkaError: the client does not take it.
        ValueError: it can't be written as a message.
    """
    message = event_message(event.entry, event.ticket)
    future = producer.send(topic, message.value, key=message.key, headers=message.headers)
    future.add_callback(lambda _: answer((event, None)))
    future.add_errback(lambda error: answer((event, error)))


def _those_there(answers: "queue.SimpleQueue[Answer]", within: float) -> list[Answer]:
    """All answers that are there when the first one comes, or none."""
    found = []
    try:
        found.append(answers.get(timeout=within) if within else answers.get_nowait())
        while True:
            found.append(answers.get_nowait())
    except queue.Empty:
        return found
