"""Giving tickets to somebody else: many at once for a supervisor, and by a sweep where their assignee is away."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from operator import attrgetter, itemgetter
from typing import NamedTuple
from uuid import UUID

from server.db import statements
from server.db.statement import Statement
from server.domain import lifecycle, roster
from server.domain.callers import ITSELF, Caller
from server.domain.events import Reason
from server.domain.paging import FIRST
from server.domain.roster import Agent
from server.domain.tickets import TRIAGE_RANK, Ticket
from server.domain.validation import Fields
from server.errors import (
    AgentAtCapacity,
    AgentNotActive,
    Contention,
    NoAgentAvailable,
    ServiceError,
    TicketNotAssignable,
    TicketNotFound,
)
from server.usecases.collaborators import Collaborators
from server.usecases.contention import settle
from server.usecases.lists import EARLIEST, LATEST
from server.usecases.sweeping import TimeLeft, one_by_one
from server.usecases.tickets import read_ticket, write_change

MOST_NAMED = 100
MOST_OF_ONE = 200
TICKETS_AT_ONCE = 20
# How many tickets are given away by one look at the roster, and how many agents it shows: more than can be used up.
USES_OF_A_LOOK = 10
AGENTS_AT_A_LOOK = 50

_ITS_OWN_TROUBLE = (
    TicketNotFound,
    TicketNotAssignable,
    AgentAtCapacity,
    AgentNotActive,
    NoAgentAvailable,
    Contention,
)
"""What one ticket fails with while others may fare better."""


class Wish(NamedTuple):
    """What is wished for each ticket: to whom it goes, if not to whoever can bear most, and which are left alone."""

    reason: Reason
    assigned_to: UUID | None
    from_agent: UUID | None
    only_flagged: bool

    def concerns(self, ticket: Ticket) -> bool:
        """Whether the ticket, as it is by now, is one of those that were meant."""
        of_another = self.from_agent is not None and ticket.assigned_to != self.from_agent
        return not of_another and (ticket.flagged_at is not None or not self.only_flagged)


class Result(NamedTuple):
    """What became of one ticket: whose it is now and whether that is new, or why it could not be moved."""

    ticket_id: str
    assigned_to: UUID | None
    reassigned: bool
    error: ServiceError | None = None


class Results(NamedTuple):
    """One result for each ticket, and whether there are more such tickets than were looked at."""

    rows: list[Result]
    more: bool


class Willing:
    """Who takes on work, as they were a few tickets ago; only the database knows who can bear one more."""

    def __init__(self, on: Collaborators) -> None:
        self._on = on
        self._agents: dict[UUID, Agent] = {}
        self._uses = USES_OF_A_LOOK

    async def choose(self, but: UUID | None) -> UUID:
        """Who is given the next ticket of `but`.

        Raises:
            NoAgentAvailable: nobody who takes on work can bear more.
        """
        chosen = self._best(but) if self._uses < USES_OF_A_LOOK else None
        if chosen is None:
            await self._look()
            chosen = self._best(but)
        if chosen is None:
            raise NoAgentAvailable
        self._uses += 1
        self._agents[chosen.id] = chosen._replace(open_tickets=chosen.open_tickets + 1)
        return chosen.id

    def leave_out(self, agent_id: UUID) -> None:
        """They could not be given a ticket after all: others came first."""
        self._agents.pop(agent_id, None)

    def _best(self, but: UUID | None) -> Agent | None:
        return roster.choose(self._agents.values(), but, self._on.clock())

    async def _look(self) -> None:
        values = {"now": self._on.clock(), "limit": AGENTS_AT_A_LOOK}
        found = await self._on.db.fetch_all(statements.LIST_WILLING_AGENTS, values, Agent._make)
        self._agents = {agent.id: agent for agent in found}
        self._uses = 0


async def reassign_tickets(
    on: Collaborators,
    caller: Caller,
    *,
    ticket_ids: Sequence[str],
    from_agent: str | None,
    only_flagged: bool,
    assigned_to: str | None,
) -> Results:
    """What became of each of the tickets named, or of those of `from_agent`.

    Each is one change by itself. Where the call fails amid them, those that were moved stay where they are.

    Raises:
        InvalidFields: a field is bad, or not just one of `ticket_ids` and `from_agent` was given.
    """
    fields = Fields()
    named = _named(fields, ticket_ids, from_agent)
    wish = Wish(
        Reason.BY_SUPERVISOR,
        None if assigned_to is None else fields.uuid("assigned_to", assigned_to),
        None if from_agent is None else fields.uuid("from_agent", from_agent),
        only_flagged,
    )
    fields.check()
    if wish.from_agent is not None:
        named = await _tickets_of(on, wish.from_agent, only_flagged=only_flagged)
    willing = Willing(on)
    rows = [await _result(on, caller, ticket, wish, willing) for ticket in named[:MOST_OF_ONE]]
    return Results(rows, len(named) > MOST_OF_ONE)


def _named(fields: Fields, ticket_ids: Sequence[str], from_agent: str | None) -> list[tuple[str, UUID]]:
    """The tickets as they were named, and their ids."""
    if bool(ticket_ids) == (from_agent is not None):
        fields.refuse("ticket_ids", "must be given, or from_agent, and not both")
    if len(ticket_ids) > MOST_NAMED:
        fields.refuse("ticket_ids", f"must hold 1 to {MOST_NAMED} ids; it has {len(ticket_ids)}")
    named = [(text, fields.uuid("ticket_ids", text)) for text in ticket_ids[:MOST_NAMED]]
    if len({text.lower() for text, _ in named}) < len(named):
        fields.refuse("ticket_ids", "must name each ticket once")
    return named


async def _tickets_of(on: Collaborators, agent_id: UUID, *, only_flagged: bool) -> list[tuple[str, UUID]]:
    """One more than is looked at tells whether there are more."""
    values = {
        "assigned_to": agent_id,
        "statuses": sorted(lifecycle.ASSIGNABLE),
        "ranks": sorted(TRIAGE_RANK.values()),
        "created_after": EARLIEST,
        "created_before": LATEST,
        "after_rank": FIRST.number,
        "after_created_at": FIRST.created_at,
        "after_id": FIRST.id,
        "limit": MOST_OF_ONE + 1,
    }
    statement: Statement = statements.LIST_TICKETS_OF_ASSIGNEE
    if only_flagged:
        statement = statements.LIST_FLAGGED_TICKETS_OF_ASSIGNEE
    ids = await on.db.fetch_all(statement, values, itemgetter(0))
    return [(str(ticket_id), ticket_id) for ticket_id in ids]


async def _result(on: Collaborators, caller: Caller, ticket: tuple[str, UUID], wish: Wish, willing: Willing) -> Result:
    name, ticket_id = ticket
    try:
        now_of, reassigned = await reassign(on, caller, ticket_id, wish, willing)
    except _ITS_OWN_TROUBLE as error:
        return Result(name, None, reassigned=False, error=error)
    return Result(name, now_of, reassigned)


async def reassign(
    on: Collaborators, caller: Caller, ticket_id: UUID, wish: Wish, willing: Willing
) -> tuple[UUID | None, bool]:
    """Whose the ticket is now, and whether that is new: false for one that is not among those that were meant.

    Raises:
        TicketNotFound: there is no such ticket.
        TicketNotAssignable: it is resolved or closed.
        AgentAtCapacity, AgentNotActive: the roster says so of the assignee wished for.
        NoAgentAvailable: nobody who takes on work can bear more.
    """

    async def attempt() -> tuple[UUID | None, bool] | None:
        ticket, now = await read_ticket(on, caller, ticket_id), on.clock()
        lifecycle.require_assignable(ticket)
        if not wish.concerns(ticket):
            return ticket.assigned_to, False
        assignee = wish.assigned_to or await willing.choose(ticket.assigned_to)
        change = lifecycle.assign(ticket, assignee, wish.reason)
        if change is None:
            return assignee, False
        try:
            written = await write_change(on, caller, ticket, change, now)
        except (AgentAtCapacity, AgentNotActive):
            if wish.assigned_to is not None:
                raise
            willing.leave_out(assignee)
            return None
        return (assignee, True) if written else None

    return await settle(attempt)


# --- The sweep --------------------------------------------------------------------------------------------------------


class _Held(NamedTuple):
    """A ticket of somebody who is away, in triage order."""

    id: UUID
    assigned_to: UUID
    triage_rank: int
    created_at: datetime


async def reassign_away(on: Collaborators, after: timedelta, now: datetime, time_left: TimeLeft) -> int:
    """Sweep: give away the tickets of those who have been away for longer than `after`; returns how many.

    The most urgent go first. A round ends when nobody can bear more; what is left waits for the next one.
    """
    willing, somebody = Willing(on), True

    async def held(last: _Held | None) -> Sequence[_Held]:
        return await on.db.fetch_all(statements.LIST_TICKETS_OF_AWAY, _away_values(after, now, last), _Held._make)

    async def give(ticket: _Held) -> bool:
        nonlocal somebody
        wish = Wish(Reason.ASSIGNEE_AWAY, None, ticket.assigned_to, only_flagged=False)
        try:
            return (await reassign(on, ITSELF, ticket.id, wish, willing))[1]
        except NoAgentAvailable:
            somebody = False
        except (TicketNotAssignable, Contention):
            pass  # resolved meanwhile, or changed by others again and again
        return False

    def go_on() -> float:
        return time_left() if somebody else 0.0

    return await one_by_one(held, give, TICKETS_AT_ONCE, go_on, rank=attrgetter("triage_rank"))


async def oldest_kept_by_away(on: Collaborators, after: timedelta, now: datetime) -> datetime | None:
    """Since when the first of the tickets has been due that are to be given away; None where none is."""
    values = {"now": now, "away_since": now - after}
    away: datetime | None = await on.db.fetch_one(statements.LONGEST_AWAY, values, itemgetter(0))
    return away + after if away else None


def _away_values(after: timedelta, now: datetime, last: _Held | None) -> dict[str, object]:
    return {
        "now": now,
        "away_since": now - after,
        "after_rank": last.triage_rank if last else FIRST.number,
        "after_created_at": last.created_at if last else FIRST.created_at,
        "after_id": last.id if last else FIRST.id,
        "limit": TICKETS_AT_ONCE,
    }
