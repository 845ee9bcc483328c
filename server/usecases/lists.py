"""Pages of tickets, comments, history and the roster: filters in, one page and the token of the next one out."""

from collections.abc import Callable, Collection
from datetime import UTC, datetime
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

from server.db import statements
from server.db.statement import Statement
from server.domain import permissions
from server.domain.callers import Caller
from server.domain.events import HistoryEntry
from server.domain.paging import FIRST, LAST, Position
from server.domain.roster import Agent, Availability
from server.domain.tickets import TRIAGE_RANK, Comment, Priority, Status, Ticket
from server.domain.validation import Fields
from server.usecases.collaborators import Collaborators
from server.usecases.tickets import read_ticket

R = TypeVar("R")

EARLIEST = datetime.min.replace(tzinfo=UTC)
LATEST = datetime.max.replace(tzinfo=UTC)


class Page(NamedTuple, Generic[R]):
    """Some rows of a list, and the token of the next page: empty on the last one."""

    rows: list[R]
    next_page_token: str


class PageRequest(NamedTuple):
    """`page_size` and `page_token` as the caller sent them."""

    size: int
    token: str


class TicketFilters(NamedTuple):
    """The filters of ListTickets as the caller sent them; None and empty mean that none was given.

    Times are (seconds, nanoseconds) since 1970, as protobuf carries them.
    """

    status: Collection[str | None] = ()
    priority: Collection[str | None] = ()
    user_id: str | None = None
    assigned_to: str | None = None
    unassigned: bool = False
    created_after: tuple[int, int] | None = None
    created_before: tuple[int, int] | None = None


class _List(NamedTuple):
    """One list under its filters: which statement answers it, with which values, and what its tokens are bound to."""

    statement: Statement
    values: dict[str, object]
    scope: Callable[[], str]
    """Most pages are the only one, and need none."""
    start: Position


async def list_tickets(on: Collaborators, caller: Caller, filters: TicketFilters, page: PageRequest) -> Page[Ticket]:
    """All tickets that pass the filters, in triage order.

    Raises:
        InvalidFields: a filter, the page size or the page token is bad.
    """
    fields = Fields()
    values = _filter_values(fields, filters)
    wanted = _List(_ticket_statement(values), values, partial(_scope, "ListTickets", caller, values), FIRST)
    return await _page(on, fields, wanted, page, Ticket._make, _triage_position)


async def list_assigned_tickets(
    on: Collaborators,
    caller: Caller,
    status: Collection[str | None],
    priority: Collection[str | None],
    page: PageRequest,
) -> Page[Ticket]:
    """The tickets assigned to the caller, in triage order.

    Raises:
        InvalidFields: a filter, the page size or the page token is bad.
    """
    fields = Fields()
    values = _filter_values(fields, TicketFilters(status, priority, assigned_to=str(caller.id)))
    scope = partial(_scope, "ListAssignedTickets", caller, values)
    wanted = _List(statements.LIST_TICKETS_OF_ASSIGNEE, values, scope, FIRST)
    return await _page(on, fields, wanted, page, Ticket._make, _triage_position)


async def list_my_tickets(
    on: Collaborators, caller: Caller, status: Collection[str | None], page: PageRequest
) -> Page[Ticket]:
    """The caller's own tickets, newest first.

    Raises:
        InvalidFields: a filter, the page size or the page token is bad.
    """
    fields = Fields()
    values = {"user_id": caller.id, "statuses": sorted(fields.choices("status", status, Status))}
    wanted = _List(statements.LIST_MY_TICKETS, values, partial(_scope, "ListMyTickets", caller, values), LAST)
    return await _page(on, fields, wanted, page, Ticket._make, _time_position)


async def list_unattended_tickets(
    on: Collaborators, caller: Caller, priority: Collection[str | None], assigned_to: str | None, page: PageRequest
) -> Page[Ticket]:
    """The tickets that are flagged as unattended, in triage order.

    Raises:
        InvalidFields: a filter, the page size or the page token is bad.
    """
    fields = Fields()
    values = _filter_values(fields, TicketFilters(priority=priority, assigned_to=assigned_to))
    statement = statements.LIST_FLAGGED_TICKETS if assigned_to is None else statements.LIST_FLAGGED_TICKETS_OF_ASSIGNEE
    wanted = _List(statement, values, partial(_scope, "ListUnattendedTickets", caller, values), FIRST)
    return await _page(on, fields, wanted, page, Ticket._make, _triage_position)


async def list_agents(
    on: Collaborators, caller: Caller, availability: Collection[str | None], page: PageRequest, *, with_inactive: bool
) -> Page[Agent]:
    """The roster by id: those who are so now, and not those who don't work here any more unless that is wanted.

    Raises:
        InvalidFields: a filter, the page size or the page token is bad.
    """
    fields = Fields()
    words = sorted(fields.choices("availability", availability, Availability))
    filters: dict[str, object] = {"availabilities": words, "with_inactive": with_inactive}
    now = on.clock()
    scope = partial(_scope, "ListAgents", caller, filters)
    wanted = _List(statements.LIST_AGENTS, filters | {"now": now}, scope, FIRST)
    return await _page(on, fields, wanted, page, lambda row: Agent._make(row).at(now), _agent_position)


async def list_comments(on: Collaborators, caller: Caller, ticket_id: str, page: PageRequest) -> Page[Comment]:
    """A ticket's comments, newest first; internal ones for staff only.

    Raises:
        InvalidFields: the id, the page size or the page token is bad.
        TicketNotFound: there is no such ticket for this caller.
    """
    fields = Fields()
    values = _ticket_part(fields, caller, ticket_id)
    wanted = _List(statements.LIST_COMMENTS, values, partial(_scope, "ListComments", caller, values), LAST)
    return await _page(on, fields, wanted, page, Comment._make, _time_position, of_ticket=caller)


async def list_history(on: Collaborators, caller: Caller, ticket_id: str, page: PageRequest) -> Page[HistoryEntry]:
    """A ticket's history, oldest first; internal entries for staff only.

    Raises:
        InvalidFields: the id, the page size or the page token is bad.
        TicketNotFound: there is no such ticket for this caller.
    """
    fields = Fields()
    values = _ticket_part(fields, caller, ticket_id)
    if values["with_internal"]:
        statement, position = statements.LIST_HISTORY, _history_position
    else:
        statement, position = statements.LIST_PUBLIC_HISTORY, _public_history_position
    wanted = _List(statement, values, partial(_scope, "ListTicketHistory", caller, values), FIRST)
    return await _page(on, fields, wanted, page, HistoryEntry._make, position, of_ticket=caller)


async def _page(
    on: Collaborators,
    fields: Fields,
    wanted: _List,
    page: PageRequest,
    make: Callable[[tuple[Any, ...]], R],
    position: Callable[[R], Position],
    of_ticket: Caller | None = None,
) -> Page[R]:
    size = fields.page_size(page.size)
    after = _start(on, fields, wanted, page.token)
    fields.check()
    # One row more than the page holds tells whether there is a next page.
    values = wanted.values | _after(after) | {"limit": size + 1}
    if of_ticket is not None:
        values["owner"] = permissions.sees_only_tickets_of(of_ticket)
    rows = await on.db.fetch_all(wanted.statement, values, make)
    if not rows and of_ticket is not None:
        # Rows tell that there is a ticket, and that the caller may see it. Without any it is asked for.
        ticket_id: Any = wanted.values["ticket_id"]
        await read_ticket(on, of_ticket, ticket_id)
    if len(rows) <= size:
        return Page(rows, "")
    return Page(rows[:size], on.page_tokens.seal(wanted.scope(), position(rows[size - 1])))


def _start(on: Collaborators, fields: Fields, wanted: _List, token: str) -> Position:
    if not token:
        return wanted.start
    position = on.page_tokens.open(wanted.scope(), token)
    if position is None:
        fields.refuse("page_token", "must be a next_page_token of this caller's list with the same filters")
    return position or wanted.start


def _after(position: Position) -> dict[str, object]:
    return {
        "after_rank": position.number,
        "after_number": position.number,
        "after_created_at": position.created_at,
        "after_id": position.id,
    }


def _scope(call: str, caller: Caller, values: dict[str, object]) -> str:
    return repr((call, str(caller.id), sorted((name, str(value)) for name, value in values.items())))


def _ticket_part(fields: Fields, caller: Caller, ticket_id: str) -> dict[str, object]:
    return {
        "ticket_id": fields.uuid("ticket_id", ticket_id),
        "with_internal": permissions.may_see_internal(caller),
    }


def _filter_values(fields: Fields, filters: TicketFilters) -> dict[str, object]:
    if filters.unassigned and filters.assigned_to is not None:
        fields.refuse("unassigned", "can't be combined with assigned_to")
    ranks = (TRIAGE_RANK[p] for p in fields.choices("priority", filters.priority, Priority))
    return {
        "statuses": sorted(fields.choices("status", filters.status, Status)),
        "ranks": sorted(ranks),
        "user_id": _optional_uuid(fields, "user_id", filters.user_id),
        "assigned_to": _optional_uuid(fields, "assigned_to", filters.assigned_to),
        "unassigned": filters.unassigned,
        "created_after": _time(fields, "created_after", filters.created_after) or EARLIEST,
        "created_before": _time(fields, "created_before", filters.created_before) or LATEST,
    }


def _optional_uuid(fields: Fields, name: str, value: str | None) -> UUID | None:
    return None if value is None else fields.uuid(name, value)


def _time(fields: Fields, name: str, value: tuple[int, int] | None) -> datetime | None:
    return None if value is None else fields.time(name, *value)


def _ticket_statement(values: dict[str, object]) -> Statement:
    """The statement whose index fits the filters best; the other filters narrow its rows."""
    if values["user_id"] is not None:
        return statements.LIST_TICKETS_OF_USER
    if values["assigned_to"] is not None:
        return statements.LIST_TICKETS_OF_ASSIGNEE
    return statements.LIST_UNASSIGNED_TICKETS if values["unassigned"] else statements.LIST_TICKETS


def _triage_position(ticket: Ticket) -> Position:
    return Position(ticket.created_at, ticket.id, TRIAGE_RANK[Priority(ticket.priority)])


def _time_position(row: Ticket | Comment) -> Position:
    return Position(row.created_at, row.id)


def _agent_position(agent: Agent) -> Position:
    return Position(agent.created_at, agent.id)


def _history_position(entry: HistoryEntry) -> Position:
    return Position(entry.occurred_at, entry.id, entry.position)


def _public_history_position(entry: HistoryEntry) -> Position:
    return Position(entry.occurred_at, entry.id, entry.sequence or 0)
