"""Sends events that were published already once more, with the same ids, for consumers that have lost some.

They go to Kafka straight from the table, a ticket's in the order of their sequence, and leave no trace there: live
events don't wait behind them.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from kafka.errors import KafkaError
from psycopg import RawCursor, RawServerCursor

from server.db import statements
from server.db.database import with_liveliness
from server.db.statement import Statement, fetch
from server.workers.lines import Lines, Outbound
from server.workers.sender import DELIVERY_TIMEOUT, Sender, sender

ROWS_AT_ONCE = 500


class Selection(NamedTuple):
    """Which events: how they are counted and read, and in words."""

    counted: Statement
    listed: Statement
    values: Mapping[str, object]
    words: str


def of_ticket(ticket_id: UUID) -> Selection:
    """Every event of a ticket."""
    values = {"ticket_id": ticket_id}
    return Selection(
        statements.COUNT_PUBLISHED_OF_TICKET, statements.LIST_PUBLISHED_OF_TICKET, values, f"ticket {ticket_id}"
    )


def between(since: datetime, until: datetime) -> Selection:
    """What occurred from `since` on and before `until`."""
    words = f"the time from {since.isoformat()} to {until.isoformat()}"
    values = {"since": since, "until": until}
    return Selection(statements.COUNT_PUBLISHED_BETWEEN, statements.LIST_PUBLISHED_BETWEEN, values, words)


class Republication:
    """One selection on its way to Kafka; `sent` counts what has been acknowledged."""

    def __init__(self, dsn: str, bootstrap_servers: str, topic: str, say: Callable[[str], None]) -> None:
        self._dsn = with_liveliness(dsn)
        self._kafka = bootstrap_servers, topic
        self._say = say
        self.sent = 0

    def run(self, selection: Selection, *, dry_run: bool) -> bool:
        """Send the events and say how many of how many tickets; False where not all of them could be sent.

        Raises:
            psycopg.Error: PostgreSQL does not answer; what was said so far holds.
        """
        with psycopg.connect(self._dsn, autocommit=True, cursor_factory=RawCursor) as connection:
            connection.server_cursor_factory = RawServerCursor
            ((events, tickets),) = fetch(connection, selection.counted, selection.values)
            total = f"{events} events of {tickets} tickets"
            if not events:
                self._say(f"{selection.words}: no event was published, so there is nothing to send")
            elif dry_run:
                self._say(f"{selection.words}: would send {total}")
            else:
                return self._send_all(_rows(connection, selection), f"{selection.words}: sent", total)
        return True

    def _send_all(self, rows: Iterator[Outbound], what: str, total: str) -> bool:
        try:
            with sender(*self._kafka) as to_kafka:
                self._work(rows, to_kafka)
        except (KafkaError, ValueError, psycopg.Error, KeyboardInterrupt) as error:
            self._say(f"{what} {self.sent} of {total}, then stopped: {error or 'interrupted'}")
            return False
        self._say(f"{what} {total}")
        return True

    def _work(self, rows: Iterator[Outbound], to_kafka: Sender) -> None:
        """Send until all are acknowledged or one has failed; then wait for what is on its way and raise the failure."""
        lines, failure = Lines(), None
        while failure is None:
            if lines.has_room:
                lines.take(itertools.islice(rows, ROWS_AT_ONCE))
            for event in lines.next(time.monotonic()):
                to_kafka.send(event)
            if lines.are_quiet:
                return
            failure = self._settle(lines, to_kafka)
        while not lines.are_quiet and not lines.sent_before(time.monotonic() - DELIVERY_TIMEOUT - 1):
            self._settle(lines, to_kafka)
        raise failure

    def _settle(self, lines: Lines, to_kafka: Sender) -> Exception | None:
        """See to the answers of the next second; returns the first failure among them."""
        failure = None
        for event, error in to_kafka.answers(1.0):
            if error is None:
                lines.acknowledged(event)
                self.sent += 1
            else:
                lines.failed(event, time.monotonic())
                failure = failure or error
        return failure


def _rows(connection: psycopg.Connection[Any], selection: Selection) -> Iterator[Outbound]:
    """The events, read a few at a time through a cursor that PostgreSQL keeps.

    It holds the rows, not a look at the table: for as long as a transaction is open, what the relays mark stays in the
    index that they read the queue by.
    """
    with connection.cursor("republish", withhold=True) as cursor:
        cursor.itersize = ROWS_AT_ONCE
        cursor.execute(selection.listed.sql, selection.listed.bind(selection.values))
        for row in cursor:
            # Whose shard it is matters to the relay alone.
            yield Outbound.of_row(0, row)
