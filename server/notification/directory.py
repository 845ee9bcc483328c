"""Who is support staff and who is not, as far as the callers of the inbox tell."""

from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

from server.db.database import Database
from server.domain.callers import Caller, Role
from server.notification import inbox_statements as statements

FRESH = timedelta(hours=1)
"""A row is not written again within this time."""
MOST_REMEMBERED = 10_000


class StaffDirectory:
    """Notes staff members who call, so that they are told of new tickets; each is written about once an hour.

    Whoever calls in a role that is not of the staff is told no longer: at once, where this process has not found just
    that within the hour. A person has one role; one with tokens of two would be staff or not by the newer call.
    """

    def __init__(self, db: Database, clock: Callable[[], datetime]) -> None:
        self._db = db
        self._clock = clock
        self._seen: dict[UUID, tuple[Role, datetime]] = {}
        """In which role, and when this process wrote or found that the row says so."""

    async def note(self, caller: Caller) -> None:
        """Make sure that a staff member is known as one, and anybody else is not.

        Raises:
            DependencyUnavailable, Overloaded, DeadlineExceeded: as any statement.
        """
        now = self._clock()
        role, at = self._seen.get(caller.id, (None, now))
        if role is caller.role and at > now - FRESH:
            return
        statement = statements.SEE_STAFF if caller.is_staff else statements.LOSE_STAFF
        values = {"caller_id": caller.id, "role": caller.role, "now": now, "fresh_since": now - FRESH}
        if await self._db.fetch_one(statement, values, tuple) != (True,):
            return
        if len(self._seen) >= MOST_REMEMBERED:
            self._seen.clear()
        self._seen[caller.id] = caller.role, now
