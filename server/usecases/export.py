"""Handing out all that is kept about a person, page by page: tickets, then the comments on them, then their history."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple
from uuid import UUID

from server.db import statements
from server.domain import ticket_orders
from server.domain.callers import Caller
from server.domain.events import HistoryEntry
from server.domain.feedback import Feedback
from server.domain.paging import FIRST, Position
from server.domain.privacy import EXPORTED, Part
from server.domain.ticket_orders import Held, TicketOrder
from server.domain.tickets import Comment, Ticket
from server.domain.validation import Fields
from server.usecases.collaborators import Collaborators
from server.usecases.lists import Page, PageRequest

TICKETS_AT_ONCE = 200


class TicketRecord(NamedTuple):
    """A ticket with what belongs to it."""

    ticket: Ticket
    feedback: Feedback | None
    order: TicketOrder | None


Record = TicketRecord | Comment | HistoryEntry
_Start = tuple[Part, Position]


async def export_personal_data(on: Collaborators, caller: Caller, *, user_id: str, page: PageRequest) -> Page[Record]:
    """A page of the records; before the first one each of the user's tickets notes the export in its history.

    Raises:
        InvalidFields: the id, the page size or the page token is bad.
    """
    fields = Fields()
    wanted = fields.uuid("user_id", user_id)
    size = fields.page_size(page.size)
    start = _start(on, fields, _scopes(caller, wanted), page.token)
    fields.check()
    if not page.token:
        await _note(on, caller, wanted)
    return await _page(on, wanted, start, size, _scopes(caller, wanted))


def _scopes(caller: Caller, user_id: UUID) -> dict[Part, str]:
    """What tokens are bound to: besides caller and user the part in which the page ended, which they don't say else."""
    return {part: repr(("ExportPersonalData", str(caller.id), str(user_id), str(part))) for part in Part}


def _start(on: Collaborators, fields: Fields, scopes: dict[Part, str], token: str) -> _Start:
    if not token:
        return Part.TICKETS, FIRST
    for part, scope in scopes.items():
        position = on.page_tokens.open(scope, token)
        if position is not None:
            return part, position
    fields.refuse("page_token", "must be a next_page_token of this caller's export of the same user")
    return Part.TICKETS, FIRST


async def _page(on: Collaborators, user_id: UUID, start: _Start, size: int, scopes: dict[Part, str]) -> Page[Record]:
    """Rows of one part after the other, until the page is full."""
    records: list[Record] = []
    first, after = start
    for part in islice(Part, list(Part).index(first), None):
        room = size - len(records)
        # One row more than there is room for tells whether there is a next page.
        rows = await _READ[part](on, user_id, after, room + 1)
        records += rows[:room]
        if len(rows) > room:
            end = _position(rows[room - 1]) if room else after
            return Page(records, on.page_tokens.seal(scopes[part], end))
        after = FIRST
    return Page(records, "")


def _position(record: Record) -> Position:
    match record:
        case TicketRecord(ticket):
            return Position(ticket.created_at, ticket.id)
        case Comment():
            return Position(record.created_at, record.id)
        case HistoryEntry():
            return Position(record.occurred_at, record.ticket_id, record.position)


async def _tickets(on: Collaborators, user_id: UUID, after: Position, limit: int) -> Sequence[Record]:
    values = {"user_id": user_id, "after_id": after.id, "limit": limit}
    return await on.db.fetch_all(statements.EXPORT_TICKETS, values, partial(_ticket_record, on))


def _ticket_record(on: Collaborators, row: tuple[Any, ...]) -> TicketRecord:
    fields = iter(row)
    ticket = Ticket._make(islice(fields, len(Ticket._fields)))
    feedback = Feedback._make(islice(fields, len(Feedback._fields)))
    state, order_id, snapshot, fetched_at = fields
    held = Held(ticket.id, ticket.user_id, order_id, state, snapshot, fetched_at)
    return TicketRecord(
        ticket,
        None if feedback.ticket_id is None else feedback,
        None if order_id is None else ticket_orders.seen(held, on.clock(), on.order_fresh),
    )


async def _comments(on: Collaborators, user_id: UUID, after: Position, limit: int) -> Sequence[Record]:
    last = await on.db.fetch_one(statements.GET_COMMENT, {"comment_id": after.id}, Comment._make)
    values = {
        "user_id": user_id,
        "after_ticket": last.ticket_id if last else FIRST.id,
        "after_created_at": after.created_at,
        "after_id": after.id,
        "limit": limit,
    }
    return await on.db.fetch_all(statements.EXPORT_COMMENTS, values, Comment._make)


async def _history(on: Collaborators, user_id: UUID, after: Position, limit: int) -> Sequence[Record]:
    values = {"user_id": user_id, "after_ticket": after.id, "after_number": after.number, "limit": limit}
    return await on.db.fetch_all(statements.EXPORT_HISTORY, values, HistoryEntry._make)


_Read = Callable[[Collaborators, UUID, Position, int], Awaitable[Sequence[Record]]]
_READ: dict[Part, _Read] = {Part.TICKETS: _tickets, Part.COMMENTS: _comments, Part.HISTORY: _history}


async def _note(on: Collaborators, caller: Caller, user_id: UUID) -> None:
    """Some tickets at a time, all as one change."""
    values = {
        "user_id": user_id,
        "change_id": on.new_id(),
        "event_type": EXPORTED.event_type,
        "actor_id": caller.id,
        "actor_role": caller.role,
        "now": on.clock(),
    }
    after = FIRST.id
    while True:
        found = {"user_id": user_id, "after_id": after, "limit": TICKETS_AT_ONCE}
        ids: list[UUID] = [row[0] for row in await on.db.fetch_all(statements.LIST_TICKETS_TO_EXPORT, found, tuple)]
        if not ids:
            return
        pairs = {"ticket_ids": ids, "event_ids": [on.new_id() for _ in ids]}
        await on.db.fetch_all(statements.NOTE_EXPORT, values | pairs, tuple)
        after = ids[-1]
