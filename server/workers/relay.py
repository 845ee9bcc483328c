"""The relay: sends the events that the database holds to Kafka, and marks each when Kafka has acknowledged it.

An event is sent at least once: a relay that dies between the acknowledgement and the mark sends it again, under the
same event id. The events of one ticket go out one after the other, each only when the one before is acknowledged, so
that first deliveries are in the order of their sequence; a ticket whose event fails waits, and the others go on.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import zip_longest
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
import structlog
from kafka import KafkaProducer
from kafka.errors import KafkaError
from psycopg import Connection, RawCursor

from server import telemetry
from server.db import statements
from server.db.statement import Statement
from server.domain.events import HistoryEntry
from server.workers.event_message import EventMessage, event_message

_log = structlog.stdlib.get_logger("nibble.relay")

BATCH = 500
# Only one relay works at a time; the others stand by for its lock. The number is arbitrary but has to stay the same.
LOCK = 7_262_941_002
STATEMENT_TIMEOUT_MS = 30_000
SHORTEST_PAUSE = 0.005
LONGEST_PAUSE = 0.1
RETRY_PAUSE = 1.0
BACKLOG_SECONDS = 5.0
# Whole seconds, as the client counts in whole milliseconds. An acknowledgement that takes longer is given up, and its
# event is sent again.
DELIVERY_TIMEOUT = 10
CLOSE_TIMEOUT = 3.0


class RelaySettings(NamedTuple):
    """Where the events are, and where they go."""

    dsn: str
    bootstrap_servers: str
    topic: str


class Outbound(NamedTuple):
    """One event that is to be sent."""

    event_id: UUID
    ticket_id: UUID
    message: EventMessage


class Relay:
    """Runs until `stop` is set, through failures of PostgreSQL and of Kafka."""

    def __init__(self, settings: RelaySettings, clock: Callable[[], datetime], stop: threading.Event) -> None:
        self._settings = settings
        self._clock = clock
        self._stop = stop
        self._backlog_measured = float("-inf")

    def run(self) -> None:
        """Work until stopped; each failure is logged, and the work starts over after a pause."""
        while not self._stop.is_set():
            try:
                with self._database() as connection:
                    # Before Kafka is looked for: while it is away the backlog is what an operator wants to know.
                    self._measure_backlog(connection)
                    with self._producer() as producer:
                        self._work(connection, producer)
            except psycopg.Error as error:
                self._pause_after("the database does not answer as it should", error)
            except KafkaError as error:
                self._pause_after("Kafka does not take events", error)

    def _pause_after(self, what: str, error: Exception) -> None:
        _log.warning(what, error=str(error).strip(), retry_seconds=RETRY_PAUSE)
        self._stop.wait(RETRY_PAUSE)

    @contextmanager
    def _database(self) -> Iterator[Connection[Any]]:
        options = f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c timezone=UTC"
        connection = psycopg.connect(
            self._settings.dsn, autocommit=True, cursor_factory=RawCursor, options=options, connect_timeout=5
        )
        with connection:
            yield connection

    @contextmanager
    def _producer(self) -> Iterator[KafkaProducer]:
        producer = KafkaProducer(
            bootstrap_servers=self._settings.bootstrap_servers.split(","),
            client_id="nibble-support-relay",
            acks="all",
            enable_idempotence=True,
            linger_ms=0,
            delivery_timeout_ms=DELIVERY_TIMEOUT * 1000,
            request_timeout_ms=DELIVERY_TIMEOUT * 1000 // 2,
            max_block_ms=DELIVERY_TIMEOUT * 1000 // 2,
            bootstrap_timeout_ms=DELIVERY_TIMEOUT * 1000 // 2,
            reconnect_backoff_max_ms=1000,
        )
        try:
            yield producer
        finally:
            producer.close(timeout=CLOSE_TIMEOUT)

    def _work(self, connection: Connection[Any], producer: KafkaProducer) -> None:
        if not self._own_lock(connection):
            return
        _log.info("relaying", topic=self._settings.topic)
        pause = SHORTEST_PAUSE
        while not self._stop.is_set():
            self._measure_backlog(connection)
            sent = self.relay_batch(connection, producer)
            pause = SHORTEST_PAUSE if sent else min(pause * 2, LONGEST_PAUSE)
            if sent < BATCH:
                self._stop.wait(pause)

    def _own_lock(self, connection: Connection[Any]) -> bool:
        """Wait for the lock; False where the relay was stopped meanwhile."""
        standing_by = False
        while not self._stop.is_set():
            row = connection.execute(f"SELECT pg_try_advisory_lock({LOCK})").fetchone()
            if row and row[0]:
                return True
            if not standing_by:
                _log.info("another relay is at work; standing by")
            standing_by = True
            # What it measured once would stand in its metrics for ever.
            self._measure_backlog(connection)
            self._stop.wait(RETRY_PAUSE)
        return False

    def relay_batch(self, connection: Connection[Any], producer: KafkaProducer) -> int:
        """Send the oldest unsent events, mark the acknowledged ones, and return how many those are.

        Raises:
            KafkaError: some were not acknowledged; those that were are marked all the same.
        """
        rows = _fetch(connection, statements.LIST_UNPUBLISHED, {"limit": BATCH})
        acknowledged: list[UUID] = []
        try:
            self._send(producer, [_outbound(row) for row in rows], acknowledged)
        finally:
            if acknowledged:
                values = {"event_ids": acknowledged, "now": self._clock()}
                connection.execute(statements.MARK_PUBLISHED.sql, statements.MARK_PUBLISHED.bind(values), prepare=True)
                telemetry.EVENTS_PUBLISHED.inc(len(acknowledged))
        return len(acknowledged)

    def _send(self, producer: KafkaProducer, events: list[Outbound], acknowledged: list[UUID]) -> None:
        """Send in waves: the first event of each ticket, then the second of those whose first arrived, and so on."""
        failed: dict[UUID, KafkaError] = {}
        for wave in _waves(events):
            self._send_wave(producer, [event for event in wave if event.ticket_id not in failed], acknowledged, failed)
            if self._stop.is_set():
                return
        if failed:
            telemetry.EVENTS_FAILED.inc(len(failed))
            raise next(iter(failed.values()))

    def _send_wave(
        self,
        producer: KafkaProducer,
        wave: list[Outbound],
        acknowledged: list[UUID],
        failed: dict[UUID, KafkaError],
    ) -> None:
        deadline = time.monotonic() + DELIVERY_TIMEOUT + 1
        sends = [(event, self._hand_over(producer, event)) for event in wave]
        for event, future in sends:
            try:
                future.get(timeout=max(0.0, deadline - time.monotonic()))
                acknowledged.append(event.event_id)
            except KafkaError as error:
                failed[event.ticket_id] = error

    def _hand_over(self, producer: KafkaProducer, event: Outbound) -> Any:  # noqa: ANN401 - kafka-python has no types
        message = event.message
        return producer.send(self._settings.topic, message.value, key=message.key, headers=message.headers)

    def _measure_backlog(self, connection: Connection[Any]) -> None:
        now = time.monotonic()
        if now - self._backlog_measured < BACKLOG_SECONDS:
            return
        self._backlog_measured = now
        ((count, oldest),) = _fetch(connection, statements.MEASURE_BACKLOG, {})
        telemetry.EVENT_BACKLOG.set(count)
        telemetry.OLDEST_EVENT_SECONDS.set((self._clock() - oldest).total_seconds() if oldest else 0)


def _fetch(connection: Connection[Any], statement: Statement, values: dict[str, object]) -> list[tuple[Any, ...]]:
    cursor = connection.cursor(binary=True)
    cursor.execute(statement.sql, statement.bind(values), prepare=True)
    return cursor.fetchall()


def _outbound(row: tuple[Any, ...]) -> Outbound:
    entry = HistoryEntry._make(row[:-1])
    return Outbound(entry.id, entry.ticket_id, event_message(entry, row[-1]))


def _waves(events: Iterable[Outbound]) -> Iterator[list[Outbound]]:
    """The events, at most one of each ticket to a wave, a ticket's in their order."""
    by_ticket: defaultdict[UUID, list[Outbound]] = defaultdict(list)
    for event in events:
        by_ticket[event.ticket_id].append(event)
    for wave in zip_longest(*by_ticket.values()):
        yield [event for event in wave if event is not None]
