"""More words of the integration tests: the roster, the sweeps that concern staff, and reassignments."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from server.domain.attention import Patience
from server.domain.callers import Caller
from server.domain.roster import Agent
from server.domain.tickets import Priority, Ticket
from server.usecases import attention, lists, reassignment, roster
from server.usecases.reassignment import Results
from tests.integration.vocabulary import Desk, Turn, as_agent, as_supervisor, assign, open_ticket

PATIENCE: Patience = {
    Priority.URGENT: timedelta(minutes=15),
    Priority.HIGH: timedelta(hours=1),
    Priority.MEDIUM: timedelta(hours=4),
    Priority.LOW: timedelta(days=1),
}
AWAY_TOO_LONG = timedelta(hours=2)
MOMENT = timedelta(microseconds=1)


def plenty() -> float:
    """The time left of a round that has just begun."""
    return 60.0


async def hire(desk: Desk, id: UUID | None = None, *, capacity: int = 20, **entry: Any) -> Agent:  # noqa: A002, ANN401
    """SetAgent, of somebody new unless `id` names one."""
    values = {"display_name": "Ada", "role": None, "tier": None, "active": None} | entry
    return await roster.set_agent(desk.on, agent_id=str(id or uuid4()), capacity=capacity, **values)


async def set_off(
    desk: Desk, agent: Agent, availability: str | None = "away", until: datetime | None = None, by: Caller | None = None
) -> Agent:
    """SetAgentAvailability, by a supervisor unless `by` names somebody."""
    end = None if until is None else (int(until.timestamp()), until.microsecond * 1000)
    return await roster.set_availability(
        desk.on, by or as_supervisor(), agent_id=str(agent.id), availability=availability, away_until=end
    )


async def look_up(desk: Desk, agent: Agent) -> Agent:
    """GetAgent."""
    return await roster.get_agent(desk.on, str(agent.id))


async def ticket_of(desk: Desk, agent: Agent, priority: str | None = None) -> Ticket:
    """A new ticket, given to them."""
    return await assign(desk, await open_ticket(desk, priority=priority), agent.id)


async def flag(desk: Desk) -> int:
    """A round of the sweep that flags."""
    return await attention.flag_unattended(desk.on, PATIENCE, desk.clock(), plenty)


async def give_away(desk: Desk) -> int:
    """A round of the sweep that reassigns."""
    return await reassignment.reassign_away(desk.on, AWAY_TOO_LONG, desk.clock(), plenty)


async def reassign(
    desk: Desk,
    *tickets: Ticket | str,
    of: Agent | None = None,
    to: UUID | None = None,
    flagged: bool = False,
    by: Caller | None = None,
) -> Results:
    """ReassignTickets, by a supervisor unless `by` names somebody."""
    return await reassignment.reassign_tickets(
        desk.on,
        by or as_supervisor(),
        ticket_ids=ids_of(tickets),
        from_agent=None if of is None else str(of.id),
        only_flagged=flagged,
        assigned_to=None if to is None else str(to),
    )


def on_the_roster(
    desk: Desk, *availability: str, caller: Caller | None = None, with_inactive: bool = False
) -> Turn[Agent]:
    """ListAgents, page by page, for an agent unless `caller` names somebody."""
    reader = caller or as_agent()
    return lambda page: lists.list_agents(desk.on, reader, availability, page, with_inactive=with_inactive)


def unattended(desk: Desk, *priority: str, assigned_to: str | None = None) -> Turn[Ticket]:
    """ListUnattendedTickets, page by page, for a supervisor."""
    caller = as_supervisor()
    return lambda page: lists.list_unattended_tickets(desk.on, caller, priority, assigned_to, page)


def ids_of(tickets: Sequence[Ticket | str]) -> list[str]:
    """The ids of tickets, as a caller names them."""
    return [ticket if isinstance(ticket, str) else str(ticket.id) for ticket in tickets]


def reasons_in(results: Results) -> list[str | None]:
    """Why which ticket could not be moved."""
    return [row.error.reason if row.error else None for row in results.rows]
