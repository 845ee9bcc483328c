"""The roster: who works in support, whether they take on work at a moment, and who is given a ticket.

Source: the comments of agent.proto and agent_service.proto.
"""

from collections.abc import Collection
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from server.domain.callers import Role
from server.domain.validation import Fields, is_uuid

MAX_NAME = 200
MAX_TIER = 5
MAX_CAPACITY = 1_000
DEFAULT_TIER = 1
DEFAULT_CAPACITY = 20


class Availability(StrEnum):
    """Whether somebody takes on work."""

    AVAILABLE = "available"
    BUSY = "busy"
    AWAY = "away"


class StaffRole(StrEnum):
    """The roles of those who can be on the roster."""

    SUPPORT_AGENT = Role.SUPPORT_AGENT.value
    SUPPORT_SUPERVISOR = Role.SUPPORT_SUPERVISOR.value


class Entry(NamedTuple):
    """What supervisors say of somebody: all of their entry but the availability."""

    id: UUID
    display_name: str
    role: StaffRole
    tier: int
    capacity: int
    active: bool


class Agent(NamedTuple):
    """One row of `agents`, its columns in this order, and how many open and in-progress tickets they have.

    The availability is the one that was said last: `at` tells which one holds. Times are UTC.
    """

    id: UUID
    display_name: str
    role: str
    tier: int
    capacity: int
    active: bool
    availability: str
    away_until: datetime | None
    availability_since: datetime
    created_at: datetime
    updated_at: datetime
    open_tickets: int = 0

    def at(self, now: datetime) -> "Agent":
        """Their entry with the availability that holds at `now`: whose absence has an end is available from then on."""
        if self.away_until is None or self.away_until > now:
            return self
        return self._replace(availability=Availability.AVAILABLE, away_until=None, availability_since=self.away_until)

    @property
    def spare(self) -> int:
        """How many more tickets they can be given; after reopenings they may have more than they can bear."""
        return max(0, self.capacity - self.open_tickets)


def read_entry(
    fields: Fields,
    *,
    agent_id: str,
    display_name: str,
    role: str | None,
    tier: int | None,
    capacity: int | None,
    active: bool | None,
) -> Entry:
    """What SetAgent was asked to say, None standing for the default; what is bad is noted in `fields`."""
    entry = Entry(
        id=fields.uuid("agent_id", agent_id),
        display_name=fields.text("display_name", display_name, MAX_NAME),
        role=fields.choice("role", role or StaffRole.SUPPORT_AGENT, StaffRole),
        tier=fields.whole_number("tier", DEFAULT_TIER if tier is None else tier, 1, MAX_TIER),
        capacity=fields.whole_number("capacity", DEFAULT_CAPACITY if capacity is None else capacity, 0, MAX_CAPACITY),
        active=active is None or active,
    )
    if is_uuid(agent_id) and not entry.id.int:
        fields.refuse("agent_id", "must not be the nil UUID, which stands for the service itself")
    return entry


def check_absence(fields: Fields, wanted: str | None, away_until: datetime | None, now: datetime) -> None:
    """Note in `fields` an end of an absence that is none: of no absence, or in the past."""
    if away_until is None:
        return
    # Where the availability itself is bad, nothing can be said about what goes with it.
    if wanted in (Availability.AVAILABLE, Availability.BUSY):
        fields.refuse("away_until", "goes with the availability away only")
    if away_until <= now:
        fields.refuse("away_until", "must be a moment to come")


def with_availability(agent: Agent, wanted: Availability, away_until: datetime | None, now: datetime) -> Agent | None:
    """Their entry when they are so from `now` on, or None where they are so already.

    Another end of the same absence is no new absence.
    """
    current = agent.at(now)
    if (current.availability, current.away_until) == (wanted, away_until):
        return None
    since = current.availability_since if current.availability == wanted else now
    return agent._replace(availability=wanted, away_until=away_until, availability_since=since, updated_at=now)


def choose(agents: Collection[Agent], but: UUID | None, now: datetime) -> Agent | None:
    """Who is given a ticket of `but`: who takes on work and has the most spare capacity, the first by id of equals.

    None where nobody has any to spare.
    """
    willing = (agent for agent in agents if agent.id != but and takes_on_work(agent, now))
    return min(willing, key=lambda agent: (-agent.spare, agent.id), default=None)


def takes_on_work(agent: Agent, now: datetime) -> bool:
    """Whether the service itself may give them a ticket."""
    return agent.active and agent.at(now).availability == Availability.AVAILABLE and agent.spare > 0
