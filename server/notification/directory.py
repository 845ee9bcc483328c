"""Who is support staff, as far as the callers of the inbox tell."""

from collections.abc import Callable
from datetime import datetime, timedelta

from server.db.database import Database
from server.domain.callers import Caller
from server.notification import inbox_statements as statements

FRESH = timedelta(hours=1)
"""A row is not written again within this time."""
MOST_REMEMBERED = 10_000


class StaffDirectory:
    """Notes staff members who call, so that they are told of new tickets; each is written about once an hour."""

    def __init__(self, db: Database, clock: Callable[[], datetime]) -> None:
        self._db = db
        self._clock = clock
        self._seen: dict[Caller, datetime] = {}
        """When this process wrote or found that the row is fresh."""

    async def note(self, caller: Caller) -> None:
        """Make sure that a staff member is known; does nothing for anybody else.

        Raises:
            DependencyUnavailable, Overloaded, DeadlineExceeded: as any statement.
        """
        now = self._clock()
        if not caller.is_staff or self._seen.get(caller, now - FRESH) > now - FRESH:
            return
        values = {"caller_id": caller.id, "role": caller.role, "now": now, "fresh_since": now - FRESH}
        if await self._db.fetch_one(statements.SEE_STAFF, values, tuple) != (True,):
            return
        if len(self._seen) >= MOST_REMEMBERED:
            self._seen.clear()
        self._seen[caller] = now
