"""The words of the integration tests: a desk, who comes to it, and what is done there, each with defaults."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Self, TypeVar
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import dict_row
from uuid_utils.compat import uuid7

from server.db.database import Database, PoolLimits
from server.db.statement import SHARED, Statement
from server.db.statements import PROBE
from server.domain.callers import Caller, Role
from server.domain.events import HistoryEntry
from server.domain.feedback import Feedback
from server.domain.paging import PageTokens
from server.domain.tickets import TRIAGE_RANK, Comment, Priority, Ticket
from server.usecases import comments, feedback, lists, reveal, tickets
from server.usecases.collaborators import Collaborators
from server.usecases.lists import Page, PageRequest, TicketFilters

R = TypeVar("R")
START = datetime(2026, 3, 4, 5, 6, 7, 891_011, tzinfo=UTC)
MOST_PAGES = 50
USUAL_LIMITS = PoolLimits()
KEY_TTL = timedelta(days=7)
CHANGEABLE_FOR = timedelta(days=7)
CLOSES_AFTER = timedelta(days=3)
FRESH = timedelta(seconds=30)
EVERY_TICKET = TicketFilters()
EMPTY = """
    TRUNCATE admin_service.support_tickets, admin_service.ticket_comments, admin_service.ticket_events,
        admin_service.idempotency_keys, admin_service.concealed_texts, admin_service.ticket_feedback,
        admin_service.ticket_orders, admin_service.agents, admin_service.erasures
"""

Row = dict[str, Any]


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, time: timedelta) -> None:
        """Let some time go by."""
        self.now += time


class CountingDatabase(Database):
    """The real database; it remembers which statements were run."""

    def __init__(self, dsn: str, limits: PoolLimits) -> None:
        super().__init__(dsn, limits, PROBE, SHARED)
        self.ran: list[Statement] = []

    async def fetch_all(
        self, statement: Statement, values: Mapping[str, object], make: Callable[[tuple[Any, ...]], R]
    ) -> list[R]:
        """As the real one."""
        self.ran.append(statement)
        return await super().fetch_all(statement, values, make)


class Desk(NamedTuple):
    """The use cases on one database, with a clock that the test holds."""

    on: Collaborators
    dsn: str
    db: CountingDatabase
    clock: Clock

    @classmethod
    @asynccontextmanager
    async def at(
        cls,
        dsn: str,
        limits: PoolLimits = USUAL_LIMITS,
        *,
        reopen_on_comment: bool = True,
    ) -> AsyncIterator[Self]:
        """A desk with a pool of its own."""
        clock, db = Clock(), CountingDatabase(dsn, limits)
        on = Collaborators(
            db, PageTokens(b"k" * 32), clock, uuid7, KEY_TTL, reopen_on_comment, CHANGEABLE_FOR, CLOSES_AFTER, FRESH
        )
        await db.open()
        try:
            yield cls(on, dsn, db, clock)
        finally:
            await db.close()


# --- Who comes --------------------------------------------------------------------------------------------------------


def as_customer(id: UUID | None = None) -> Caller:  # noqa: A002
    """A customer, a new one unless `id` names one."""
    return Caller(id or uuid4(), Role.CUSTOMER)


def as_agent(id: UUID | None = None) -> Caller:  # noqa: A002
    """A support agent, a new one unless `id` names one."""
    return Caller(id or uuid4(), Role.SUPPORT_AGENT)


def as_supervisor() -> Caller:
    """A new supervisor."""
    return Caller(uuid4(), Role.SUPPORT_SUPERVISOR)


def as_service() -> Caller:
    """Another service of Nibble."""
    return Caller(uuid4(), Role.SERVICE)


def owner_of(ticket: Ticket) -> Caller:
    """The customer whose ticket it is."""
    return as_customer(ticket.user_id)


# --- What is done -----------------------------------------------------------------------------------------------------


async def open_ticket(
    desk: Desk,
    caller: Caller | None = None,
    *,
    subject: str = "Cold soup",
    description: str = "The soup came cold.",
    order_id: str | None = None,
    priority: str | None = None,
    user_id: str | None = None,
    key: str | None = None,
) -> Ticket:
    """CreateTicket, by a new customer unless `caller` names one."""
    return await tickets.create_ticket(
        desk.on,
        caller or as_customer(),
        subject=subject,
        description=description,
        order_id=order_id,
        priority=priority,
        user_id=user_id,
        idempotency_key=key,
    )


async def look_at(desk: Desk, ticket: Ticket, caller: Caller | None = None) -> Ticket:
    """GetTicket, by staff unless `caller` names somebody."""
    return await tickets.get_ticket(desk.on, caller or as_agent(), str(ticket.id))


async def move(
    desk: Desk,
    ticket: Ticket,
    status: str | None,
    caller: Caller | None = None,
    *,
    notes: str | None = None,
    expected: int | None = None,
) -> Ticket:
    """UpdateTicketStatus, by staff unless `caller` names somebody."""
    return await tickets.update_ticket_status(
        desk.on,
        caller or as_agent(),
        ticket_id=str(ticket.id),
        status=status,
        resolution_notes=notes,
        expected_version=expected,
    )


async def assign(
    desk: Desk, ticket: Ticket, to: UUID, caller: Caller | None = None, *, expected: int | None = None
) -> Ticket:
    """AssignTicket, by a supervisor unless `caller` names somebody."""
    return await tickets.assign_ticket(
        desk.on,
        caller or as_supervisor(),
        ticket_id=str(ticket.id),
        assigned_to=str(to),
        expected_version=expected,
    )


async def say(
    desk: Desk,
    ticket: Ticket,
    caller: Caller | None = None,
    text: str = "Still waiting.",
    *,
    internal: bool = False,
    key: str | None = None,
) -> Comment:
    """AddComment, by the owner unless `caller` names somebody."""
    return await comments.add_comment(
        desk.on,
        caller or owner_of(ticket),
        ticket_id=str(ticket.id),
        comment=text,
        is_internal=internal,
        idempotency_key=key,
    )


async def note(desk: Desk, ticket: Ticket, text: str = "Ask the kitchen.") -> Comment:
    """An internal note by an agent."""
    return await say(desk, ticket, as_agent(), text, internal=True)


async def rate(
    desk: Desk, ticket: Ticket, rating: int = 5, remark: str | None = None, caller: Caller | None = None
) -> Feedback:
    """RateTicket, by the owner unless `caller` names somebody."""
    return await feedback.rate_ticket(
        desk.on, caller or owner_of(ticket), ticket_id=str(ticket.id), rating=rating, remark=remark
    )


async def look_beneath(desk: Desk, ticket: Ticket, caller: Caller | None = None) -> Ticket:
    """RevealTicket, by a supervisor."""
    return await reveal.reveal_ticket(desk.on, caller or as_supervisor(), ticket_id=str(ticket.id))


async def look_beneath_comment(desk: Desk, comment: Comment, caller: Caller | None = None) -> Comment:
    """RevealComment, by a supervisor."""
    return await reveal.reveal_comment(
        desk.on, caller or as_supervisor(), ticket_id=str(comment.ticket_id), comment_id=str(comment.id)
    )


# --- What is seen -----------------------------------------------------------------------------------------------------

Turn = Callable[[PageRequest], Coroutine[Any, Any, Page[R]]]


def all_tickets(desk: Desk, caller: Caller, filters: TicketFilters = EVERY_TICKET) -> Turn[Ticket]:
    """ListTickets, page by page."""
    return lambda page: lists.list_tickets(desk.on, caller, filters, page)


def my_tickets(desk: Desk, caller: Caller, status: Sequence[str] = ()) -> Turn[Ticket]:
    """ListMyTickets, page by page."""
    return lambda page: lists.list_my_tickets(desk.on, caller, status, page)


def assigned_tickets(
    desk: Desk, caller: Caller, status: Sequence[str] = (), priority: Sequence[str] = ()
) -> Turn[Ticket]:
    """ListAssignedTickets, page by page."""
    return lambda page: lists.list_assigned_tickets(desk.on, caller, status, priority, page)


def comments_on(desk: Desk, ticket: Ticket, caller: Caller | None = None) -> Turn[Comment]:
    """ListComments, page by page, for staff unless `caller` names somebody."""
    reader = caller or as_agent()
    return lambda page: lists.list_comments(desk.on, reader, str(ticket.id), page)


def history_of(desk: Desk, ticket: Ticket, caller: Caller | None = None) -> Turn[HistoryEntry]:
    """ListTicketHistory, page by page, for staff unless `caller` names somebody."""
    reader = caller or as_agent()
    return lambda page: lists.list_history(desk.on, reader, str(ticket.id), page)


async def first_page(turn: Turn[R], size: int = 0) -> Page[R]:
    """The page that a list begins with."""
    return await turn(PageRequest(size, ""))


async def pages(turn: Turn[R], sizes: Sequence[int] = (0,)) -> list[list[R]]:
    """Every page of a list, asked for by these sizes in turn; a list that does not end is cut off."""
    found: list[list[R]] = []
    token = ""
    while (not found or token) and len(found) < MOST_PAGES:
        page = await turn(PageRequest(sizes[len(found) % len(sizes)], token))
        found.append(page.rows)
        token = page.next_page_token
    return found


async def whole(turn: Turn[R], sizes: Sequence[int] = (0,)) -> list[R]:
    """A list from its first page to its last."""
    return [row for page in await pages(turn, sizes) for row in page]


# --- What is in the tables --------------------------------------------------------------------------------------------


async def query(desk: Desk, statement: str, *values: object) -> list[Row]:
    """The rows of a statement, on a connection beside the pool."""
    async with await psycopg.AsyncConnection.connect(desk.dsn, autocommit=True, row_factory=dict_row) as connection:
        cursor = await connection.execute(statement.encode(), values)
        return await cursor.fetchall() if cursor.description else []


async def events_of(desk: Desk, ticket: Ticket) -> list[Row]:
    """The rows of `ticket_events` of a ticket, in order."""
    return await query(
        desk, "SELECT * FROM admin_service.ticket_events WHERE ticket_id = %s ORDER BY position", ticket.id
    )


def types_of(events: Sequence[Row]) -> list[str]:
    """The types of some events."""
    return [event["event_type"] for event in events]


def said(event: Row) -> Row:
    """What an event adds to what every event says."""
    names = [
        "from_status", "to_status", "assigned_to", "previous_assignee", "reason", "comment_id", "author_role",
        "has_resolution_notes", "rating",
    ]  # fmt: skip
    return {name: event[name] for name in names if event[name] is not None}


async def counts(desk: Desk) -> dict[str, int]:
    """How many rows each table has."""
    names = ("support_tickets", "ticket_comments", "ticket_events", "idempotency_keys")
    parts = ", ".join(f"(SELECT count(*) FROM admin_service.{name}) AS {name}" for name in names)  # noqa: S608
    (row,) = await query(desk, f"SELECT {parts}")
    return row


async def put_tickets(desk: Desk, rows: Sequence[Ticket]) -> None:
    """Tickets straight into the table, without events, for lists to read."""
    names = Ticket._fields
    marks = ", ".join(["%s"] * len(names))
    statement = (
        f"INSERT INTO admin_service.support_tickets ({', '.join(names)}, event_count, history_count, unattended_since)"  # noqa: S608
        f" VALUES ({marks}, 0, 0, now())"
    )
    async with await psycopg.AsyncConnection.connect(desk.dsn) as connection:
        await connection.cursor().executemany(statement.encode(), rows)


def stored_ticket(**values: Any) -> Ticket:  # noqa: ANN401
    """A row for `put_tickets`."""
    ticket = Ticket(
        uuid7(), uuid4(), None, "Cold soup", "It came cold.", "open", "medium", None, None, None, START, START, 1
    )
    return ticket._replace(**values)


def by_triage(rows: Sequence[Ticket]) -> list[Ticket]:
    """Most urgent first, then oldest first."""
    return sorted(rows, key=lambda ticket: (TRIAGE_RANK[Priority(ticket.priority)], ticket.created_at, ticket.id))


def newest_first(rows: Sequence[Ticket]) -> list[Ticket]:
    """As ListMyTickets answers."""
    return sorted(rows, key=lambda ticket: (ticket.created_at, ticket.id), reverse=True)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for the condition, at most ten seconds."""
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110 - PostgreSQL does not tell
            await asyncio.sleep(0.01)
