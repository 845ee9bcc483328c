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
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
import structlog
from kafka.errors import KafkaError, KafkaTimeoutError
from psycopg import Connection

from server import telemetry
from server.db import statements
from server.db.schema import SHARDS
from server.db.statement import fetch
from server.workers.lines import Lines, Outbound
from server.workers.sender import DELIVERY_TIMEOUT, Sender, sender
from server.workers.session import session
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

NO_KAFKA = "events wait: Kafka does not take them"
NO_DATABASE = "events wait: the database does not answer as it should"


class RelaySettings(NamedTuple):
    """Where the events are, and where they go."""

    dsn: str
    bootstrap_servers: str
    topic: str


class _Trouble:
    """What keeps events from being sent: a line when it begins or becomes another, and one when it is over."""

    def __init__(self) -> None:
        self._present: tuple[str, type[Exception]] | None = None

    def note(self, what: str, error: Exception) -> None:
        """It stays the same however it is worded each time."""
        kind = (what, type(error))
        if kind != self._present:
            _log.warning(what, error=str(error).strip())
        self._present = kind

    def end(self) -> None:
        if self._present is not None:
            _log.info("events are sent again")
        self._present = None


class Relay:
    """Runs until `stop` is set, through failures of PostgreSQL and of Kafka."""

    def __init__(self, settings: RelaySettings, clock: Callable[[], datetime], stop: threading.Event) -> None:
        self._settings = settings
        self._clock = clock
        self._stop = stop
        self._backlog = _Backlog(clock)
        self._trouble = _Trouble()

    def run(self) -> None:
        """Work until stopped; after a failure the work starts over, when a while has passed."""
        _log.info("relaying", topic=self._settings.topic)
        while not self._stop.is_set():
            try:
                self._work()
            except psycopg.Error as error:
                self._wait_out(NO_DATABASE, error)
            except KafkaError as error:
                self._wait_out(NO_KAFKA, error)

    def _work(self) -> None:
        with session(self._settings.dsn, f"nibble-relay-{os.getpid()}") as connection:
            # Before Kafka is looked for: while it is away the backlog is what an operator wants to know.
            self._backlog.measure(connection)
            with sender(self._settings.bootstrap_servers, self._settings.topic) as to_kafka:
                try:
                    _Work(connection, to_kafka, self._clock, self._backlog, self._trouble).run(self._stop)
                finally:
                    telemetry.SHARDS_HELD.set(0)

    def _wait_out(self, what: str, error: Exception) -> None:
        self._trouble.note(what, error)
        self._stop.wait(RETRY_PAUSE)


class _Work:
    """A relay at work, for as long as one session with PostgreSQL and one producer last."""

    def __init__(
        self,
        connection: Connection[Any],
        to_kafka: Sender,
        clock: Callable[[], datetime],
        backlog: "_Backlog",
        trouble: _Trouble,
    ) -> None:
        self._connection = connection
        self._to_kafka = to_kafka
        self._clock = clock
        self._backlog = backlog
        self._trouble = trouble
        self._shards = Shards(connection)
        self._lines = Lines()
        self._arrived: list[Outbound] = []
        """Acknowledged, but not marked yet."""
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
            self._settle(self._until_next())
            self._send()
            self._exchange()
            self._send()
        last = time.monotonic() + LAST_ANSWERS
        # Nothing new is begun.
        self._shards.leaving = set(self._shards.held)
        while not self._lines.are_quiet and time.monotonic() < last:
            self._settle(LONGEST_PAUSE)
            self._exchange()

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

    def _exchange(self) -> None:
        """Mark what has arrived and look for more where it is time, both in one round trip."""
        shards = list(self._shards.own) if time.monotonic() >= self._looks_at() else []
        arrived, self._arrived = self._arrived, []
        if not arrived and not shards:
            return
        values = {
            "event_ids": [event.entry.id for event in arrived],
            "now": self._clock(),
            "shards": shards,
            "except": self._lines.tickets,
            "limit": MOST_AT_ONCE // max(1, len(shards)),
        }
        rows = fetch(self._connection, statements.MARK_AND_LIST_UNPUBLISHED, values)
        telemetry.EVENTS_PUBLISHED.inc(len(arrived))
        if shards:
            self._take(rows, MOST_AT_ONCE // len(shards))

    def _take(self, rows: list[tuple[Any, ...]], limit: int) -> None:
        self._lines.take(Outbound.of_row(row[0], row[1:]) for row in rows)
        if not self._lines.tickets:
            self._trouble.end()
        self._pause = SHORTEST_PAUSE if rows else min(self._pause * 2, LONGEST_PAUSE)
        has_more = any(count >= limit for count in Counter(row[0] for row in rows).values())
        self._fetch_at = time.monotonic() + (0 if has_more else self._pause)

    def _send(self) -> None:
        for event in self._lines.next(time.monotonic()):
            self._to_kafka.send(event)

    def _looks_at(self) -> float:
        """When to look at the queue next; not at all while there are no shards to look at, or enough is at hand."""
        return self._fetch_at if self._shards.own and self._lines.has_room else float("inf")

    def _until_next(self) -> float:
        due = min(self._looks_at(), self._lines.waits_until())
        return max(0.0, min(due - time.monotonic(), LONGEST_PAUSE))

    def _settle(self, within: float) -> None:
        """Wait for an answer, and see to all that are there by then."""
        failures = []
        for event, error in self._to_kafka.answers(within):
            if error is None:
                self._note_arrival(event)
            else:
                self._lines.failed(event, time.monotonic())
                failures.append(error)
        self._look_at_failures(failures)

    def _note_arrival(self, event: Outbound) -> None:
        self._lines.acknowledged(event)
        self._arrived.append(event)
        self._failing_since = None
        if not self._lines.are_failing:
            self._trouble.end()
        telemetry.PUBLISH_SECONDS.observe((self._clock() - event.entry.occurred_at).total_seconds())

    def _look_at_failures(self, errors: Sequence[Exception]) -> None:
        if not errors:
            return
        telemetry.EVENTS_FAILED.inc(len(errors))
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        if now - self._failing_since > RENEW_AFTER:
            raise errors[0] if isinstance(errors[0], KafkaError) else KafkaError(str(errors[0]))
        self._trouble.note(NO_KAFKA, errors[0])


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
        telemetry.BACKLOG_MEASURED.set(self._clock().timestamp())
        telemetry.OLDEST_EVENT_SECONDS.set((self._clock() - oldest).total_seconds() if oldest else 0)
