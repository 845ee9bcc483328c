"""The end of old history: where it is asked for, the events of closed tickets are deleted when they are old enough.

A relay does so beside its work. Nothing that is still to be sent is ever deleted.
"""

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
import structlog
from psycopg import Connection

from server.db import statements
from server.db.statement import fetch
from server.workers.session import session

_log = structlog.stdlib.get_logger("nibble.retention")

# Held during a round: one relay at a time deletes. The number is arbitrary but has to stay the same.
RETENTION_LOCK = 7_262_941_003
TICKETS_AT_ONCE = 200
ROUND_SECONDS = 5.0
PAUSE_SECONDS = 60.0
BEGINNING = UUID(int=0)


class Round(NamedTuple):
    """What one round came to: the ticket after which the next one begins, and how many events are gone."""

    after: UUID
    deleted: int


class Retention:
    """Deletes what is older than `keep`, a round each minute, until `stop` is set."""

    def __init__(self, dsn: str, keep: timedelta, clock: Callable[[], datetime], stop: threading.Event) -> None:
        self._dsn = dsn
        self._keep = keep
        self._clock = clock
        self._stop = stop
        self._after = BEGINNING

    def run(self) -> None:
        """Work until stopped; a failure is logged, and the next round tries again."""
        while not self._stop.wait(PAUSE_SECONDS):
            try:
                with session(self._dsn, "nibble-retention") as connection:
                    self.round(connection)
            except psycopg.Error as error:
                _log.warning("old events could not be deleted", error=str(error).strip())

    def round(self, connection: Connection[Any]) -> int:
        """Go on where the last round ended, for a while, unless another relay is at it; returns how many went."""
        row = connection.execute(f"SELECT pg_try_advisory_lock({RETENTION_LOCK})").fetchone()
        if not (row and row[0]):
            return 0
        end = time.monotonic() + ROUND_SECONDS
        before = self._clock() - self._keep
        done = delete_old_events(
            connection, before, self._after, lambda: self._stop.is_set() or time.monotonic() >= end
        )
        self._after = done.after
        connection.execute(f"SELECT pg_advisory_unlock({RETENTION_LOCK})")
        if done.deleted:
            _log.info("deleted old events of closed tickets", events=done.deleted, before=before.isoformat())
        return done.deleted


def delete_old_events(
    connection: Connection[Any], before: datetime, after: UUID, is_enough: Callable[[], bool]
) -> Round:
    """Delete what is older than `before`, ticket by ticket from the one after `after`, until it is enough.

    When every ticket has been looked at, the next round begins at the beginning.
    """
    deleted, values = 0, {"before": before, "before_id": _first_id_at(before), "limit": TICKETS_AT_ONCE}
    while not is_enough():
        ((last, walked, gone),) = fetch(connection, statements.DELETE_OLD_EVENTS, values | {"after_id": after})
        deleted += gone
        if walked < TICKETS_AT_ONCE:
            return Round(BEGINNING, deleted)
        after = last
    return Round(after, deleted)


def _first_id_at(moment: datetime) -> UUID:
    """The least UUID of version 7 that can have been made then: such ids begin with the milliseconds since 1970."""
    return UUID(int=max(0, int(moment.timestamp() * 1000)) << 80)
