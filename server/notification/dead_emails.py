"""What an operator does with e-mails that were given up: look at them, and have them tried again."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from psycopg import Connection, RawCursor

from server.notification import statements


def show(connection: Connection[Any], say: Callable[[str], object]) -> None:
    """One line for each, the oldest first: its id, kind, when it was made and first failed, how often, and why."""
    cursor = RawCursor(connection)
    cursor.execute(statements.LIST_DEAD_EMAILS.sql)
    rows = cursor.fetchall()
    for email_id, kind, attempts, created_at, first_failed_at, reason in rows:
        times = f"made {_utc(created_at)}, first failed {_utc(first_failed_at)}"
        say(f"{email_id}  {kind}  {times}, {attempts} attempts: {reason}")
    if not rows:
        say("no e-mail is dead")


def _utc(moment: datetime) -> str:
    """The session tells times in whatever zone the server has."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def retry(connection: Connection[Any], email_ids: Sequence[UUID], now: datetime, say: Callable[[str], object]) -> None:
    """Make those with these ids, or all where none is named, due now, as if they had never failed."""
    values = {"email_ids": email_ids or None, "now": now}
    cursor = RawCursor(connection)
    cursor.execute(statements.RETRY_DEAD_EMAILS.sql, statements.RETRY_DEAD_EMAILS.bind(values))
    say(f"{cursor.rowcount} e-mails are to be tried again")
