"""Forgetting what is old, a few rows at a time, so that nobody waits for it."""

from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from psycopg import Connection, RawCursor

from server.db.statement import Statement
from server.notification import statements
from server.notification.ids import least_id_at

BATCH = 500


class Ages(NamedTuple):
    """How long rows are kept: notifications, e-mails that came to an end, and the events that were taken in.

    Dead e-mails are kept until somebody has dealt with them. Events are kept for much longer than they would still be
    told: one that comes again after that tells nobody.
    """

    notifications: timedelta = timedelta(days=180)
    emails: timedelta = timedelta(days=30)
    events: timedelta = timedelta(days=60)


def prune(connection: Connection[Any], ages: Ages, now: datetime) -> int:
    """Delete a batch of each kind that is older than that, and return how many rows those were; 0 where all is done.

    The connection is in autocommit mode.
    """
    cursor = RawCursor(connection)
    _run(cursor, statements.FORGET_EMAILS, below=least_id_at(now - ages.emails), limit=BATCH)
    emails = cursor.rowcount
    before = now - ages.events
    _run(cursor, statements.FORGET_EVENTS, below=least_id_at(before), before=before, limit=BATCH)
    events = cursor.rowcount
    with connection.transaction():
        return emails + events + _forget_notifications(cursor, least_id_at(now - ages.notifications))


def _forget_notifications(cursor: RawCursor[Any], below: UUID) -> int:
    """With the recipients locked: what is deleted unread is counted no longer."""
    _run(cursor, statements.LIST_OLD_NOTIFICATIONS, below=below, limit=BATCH)
    rows = cursor.fetchall()
    if rows:
        _run(cursor, statements.LOCK_RECIPIENTS, user_ids=list({recipient for _, recipient in rows}))
        _run(cursor, statements.FORGET_NOTIFICATIONS, ids=[notification_id for notification_id, _ in rows])
    return len(rows)


def _run(cursor: RawCursor[Any], statement: Statement, **values: object) -> None:
    cursor.execute(statement.sql, statement.bind(values), prepare=True)
