"""The roster: who is on it, how much they can bear, and whether they take on work."""

from datetime import datetime
from uuid import UUID

from server.db import statements
from server.domain import permissions, roster
from server.domain.callers import Caller
from server.domain.roster import Agent, Availability
from server.domain.validation import Fields
from server.errors import AgentNotFound
from server.usecases.collaborators import Collaborators
from server.usecases.contention import settle


async def set_agent(
    on: Collaborators,
    *,
    agent_id: str,
    display_name: str,
    role: str | None,
    tier: int | None,
    capacity: int | None,
    active: bool | None,
) -> Agent:
    """Their new entry; None stands for the default. The same again changes nothing.

    Raises:
        InvalidFields: a field is bad.
    """
    fields = Fields()
    entry = roster.read_entry(
        fields,
        agent_id=agent_id,
        display_name=display_name,
        role=role,
        tier=tier,
        capacity=capacity,
        active=active,
    )
    fields.check()
    now = on.clock()
    values = {**entry._asdict(), "agent_id": entry.id, "now": now}
    (saved,) = await on.db.fetch_all(statements.SAVE_AGENT, values, Agent._make)
    return saved.at(now)


async def get_agent(on: Collaborators, agent_id: str) -> Agent:
    """One entry.

    Raises:
        InvalidFields: the id is malformed.
        AgentNotFound: nobody with this id is on the roster.
    """
    fields = Fields()
    wanted = fields.uuid("agent_id", agent_id)
    fields.check()
    return (await _read(on, wanted)).at(on.clock())


async def _read(on: Collaborators, agent_id: UUID) -> Agent:
    found = await on.db.fetch_one(statements.GET_AGENT, {"agent_id": agent_id}, Agent._make)
    if found is None:
        raise AgentNotFound(agent_id=agent_id)
    return found


async def set_availability(
    on: Collaborators,
    caller: Caller,
    *,
    agent_id: str,
    availability: str | None,
    away_until: tuple[int, int] | None,
) -> Agent:
    """Their entry with the new availability; unchanged where they are so already.

    Args:
        away_until: (seconds, nanoseconds) since 1970.

    Raises:
        InvalidFields: a field is bad.
        AgentNotFound: nobody with this id is on the roster.
        ActionNotAllowed: an agent named somebody else.
    """
    fields = Fields()
    wanted_id = fields.uuid("agent_id", agent_id)
    wanted = fields.choice("availability", availability, Availability)
    until = None if away_until is None else fields.time("away_until", *away_until)
    roster.check_absence(fields, availability, until, on.clock())
    fields.check()

    async def attempt() -> Agent | None:
        agent, now = await _read(on, wanted_id), on.clock()
        permissions.require_availability_choice(caller, wanted_id)
        changed = roster.with_availability(agent, wanted, until, now)
        return agent.at(now) if changed is None else await _write(on, agent, changed, now)

    return await settle(attempt)


async def _write(on: Collaborators, agent: Agent, changed: Agent, now: datetime) -> Agent | None:
    names = ("availability", "away_until", "availability_since")
    read = {name: getattr(agent, name) for name in names}
    new = {f"new_{name}": getattr(changed, name) for name in names}
    values = {"agent_id": agent.id, "now": now, **read, **new}
    return await on.db.fetch_one(statements.CHANGE_AVAILABILITY, values, Agent._make)
