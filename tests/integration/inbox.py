"""The words of the inbox's tests: somebody's inbox on a real database, and what arrives in it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import NamedTuple, Self
from uuid import UUID, uuid4

import psycopg
from uuid_utils.compat import uuid7

from server.db.database import Database, PoolLimits
from server.db.migrator import migrate
from server.domain.callers import Caller
from server.domain.paging import PageTokens
from server.notification import inbox
from server.notification.directory import StaffDirectory
from server.notification.feed import Feed
from server.notification.inbox import Collaborators, Page
from server.notification.inbox_statements import PROBE
from server.notification.migrations import MIGRATIONS
from tests.integration.vocabulary import Clock

EMPTY = "TRUNCATE notification_service.recipients, notification_service.notifications, notification_service.emails"

# As the service that tells people of events does it: the recipient's row first, a number under its lock.
ARRIVAL = """
    WITH recipient AS (
        INSERT INTO notification_service.recipients AS r (user_id, last_number, unread_count)
        VALUES (%(recipient)s, 1, %(in_inbox)s::int)
        ON CONFLICT (user_id) DO UPDATE
            SET last_number = r.last_number + 1, unread_count = r.unread_count + excluded.unread_count
        RETURNING last_number
    )
    INSERT INTO notification_service.notifications (id, recipient_id, number, change_id, event_id, ticket_id, type,
        subject, priority, status, actor_id, actor_role, occurred_at, created_at, in_inbox, email_id)
    SELECT %(id)s, %(recipient)s, last_number, %(change)s, %(change)s, %(ticket)s, 'ticket_assigned',
        'Cold soup', 'high', 'in_progress', %(actor)s, 'support_agent', now(), now(), %(in_inbox)s, %(email)s
    FROM recipient
"""


class Post(NamedTuple):
    """The inbox's acts on one database, with a clock that the test holds."""

    on: Collaborators
    dsn: str
    clock: Clock

    @classmethod
    @asynccontextmanager
    async def at(cls, dsn: str, limits: PoolLimits | None = None) -> AsyncIterator[Self]:
        """The acts with a pool of their own, on an inbox service's empty tables."""
        migrate(dsn, MIGRATIONS)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(EMPTY)
        async with cls._open(dsn, limits or PoolLimits()) as post:
            yield post

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[Self]:
        """Another process on the same tables."""
        async with self._open(self.dsn, PoolLimits()) as post:
            yield post

    @classmethod
    @asynccontextmanager
    async def _open(cls, dsn: str, limits: PoolLimits) -> AsyncIterator[Self]:
        db, clock = Database(dsn, limits, PROBE), Clock()
        await db.open()
        try:
            yield cls(Collaborators(db, PageTokens(b"k" * 32), clock, StaffDirectory(db, clock), Feed(db)), dsn, clock)
        finally:
            await db.close()

    async def read(self, caller: Caller, *, unread_only: bool = False, size: int = 0, token: str = "") -> Page:
        """A page of the caller's list."""
        return await inbox.list_notifications(
            self.on, caller, unread_only=unread_only, page_size=size, page_token=token
        )

    async def everything(self, caller: Caller, *, unread_only: bool = False, size: int = 0) -> list[UUID]:
        """The ids on all pages of the caller's list."""
        page = await self.read(caller, unread_only=unread_only, size=size)
        found = [it.id for it in page.notifications]
        while page.next_page_token:
            page = await self.read(caller, unread_only=unread_only, size=size, token=page.next_page_token)
            found += [it.id for it in page.notifications]
        return found

    def pass_by(self, time: timedelta) -> None:
        """Let some time go by."""
        self.clock.pass_by(time)


async def arrive(connection: psycopg.AsyncConnection, recipient: Caller, *, in_inbox: bool = True) -> UUID:
    """A new notification in a transaction of its own; its id."""
    id_ = uuid7()
    values = {"id": id_, "recipient": recipient.id, "in_inbox": in_inbox, "email": None if in_inbox else uuid4()}
    ids = {name: uuid4() for name in ("change", "ticket", "actor")}
    await connection.execute(ARRIVAL, values | ids)
    return id_
