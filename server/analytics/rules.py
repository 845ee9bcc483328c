"""What a ticket's events come to: one fact row, which depends on the set of them and on nothing else.

Every event carries the ticket as it was after the change, so a fact is what changed from each event to the next. That
makes the two events of one change count once, and a history of which the beginning is missing (the topic keeps events
for a time only) come to as much as can be known:

- the time of creation, the priority, and whatever happened from the first event on are exact;
- a ticket that was resolved, and not reopened, before the first event has that resolution, from its own `resolved_at`;
- the first assignee is the first one seen, and the first response the first one seen;
- of a rating that was changed, only what is seen of it last is known, and counts;
- earlier resolutions and reopenings are not known, and it counts in the backlog until it is seen to be out of it.

An event that is missing in between, since it waits among the dead letters, is made up for in the same way.
"""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from server.domain.callers import STAFF


class Status(StrEnum):
    """Where a ticket stands, in the events' words."""

    OPEN = "open"
    IN_PROGRESS = "in_progress"
    RESOLVED = "resolved"
    CLOSED = "closed"


class Priority(StrEnum):
    """How soon a ticket should be worked on, in the events' words; the most urgent first, as reports have it."""

    URGENT = "urgent"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


WORKING = frozenset({Status.OPEN, Status.IN_PROGRESS})
"""The statuses of the backlog."""


class Snapshot(NamedTuple):
    """What one event shows: its ticket after the change, who responded by it and how the owner rated, if anybody did.

    One row of `analytics_service.ticket_events`, its columns in this order.
    """

    ticket_id: UUID
    sequence: int
    occurred_at: datetime
    created_at: datetime
    priority: str
    status: str
    assigned_to: UUID | None
    resolved_at: datetime | None
    responder: UUID | None
    rating: int | None = None


class Happening(NamedTuple):
    """When something happened, and whose it is: the ticket's assignee at that time, None where it had none."""

    at: datetime
    agent: UUID | None


class Rating(NamedTuple):
    """When the owner rated, whose work that was (the assignee's at the resolution, who has kept it), and how."""

    at: datetime
    agent: UUID | None
    rating: int


class TicketFact(NamedTuple):
    """All that reports ask of one ticket. The happenings of each kind are in their order, and so are their times."""

    ticket_id: UUID
    created_at: datetime
    priority: str
    settled_at: datetime | None
    """The time of the last event, where that leaves the ticket out of the backlog."""
    response: Happening | None
    """The first public comment by a staff member who is not the owner; its agent is the author."""
    assignments: tuple[Happening, ...]
    resolutions: tuple[Happening, ...]
    reopenings: tuple[Happening, ...]
    resolution_stands: bool
    """Whether no reopening has undone the last resolution."""
    closing: Happening | None
    ratings: tuple[Rating, ...]
    """Of each resolution that was rated the last one; of a ticket that was closed without any, too."""


def responder(author: UUID, author_role: str, owner: UUID) -> UUID | None:
    """Whose response a public comment is; None where it is the owner's own, or nobody's of the staff."""
    return author if author_role in STAFF and author != owner else None


def fold(snapshots: Iterable[Snapshot]) -> TicketFact:
    """The fact of one ticket, from one or more of its events, in any order and with any duplicates.

    Where clocks disagree, and an event has an earlier time than the one before it, the time of that one counts: so no
    duration is negative, and a ticket is in the backlog once at most.
    """
    first, *others = sorted(snapshots, key=lambda snapshot: snapshot.sequence)
    life = _Life(first)
    for snapshot in (first, *others):
        life.go_on(snapshot)
    return life.fact()


class _Life:
    """A ticket's life as far as it has been read."""

    def __init__(self, first: Snapshot) -> None:
        self._now = first.created_at
        self._last = first._replace(assigned_to=None, resolved_at=None)
        self._assignments: list[Happening] = []
        self._resolutions: list[Happening] = []
        self._reopenings: list[Happening] = []
        self._response: Happening | None = None
        self._closing: Happening | None = None
        self._ratings: list[Rating] = []
        self._is_rated = False
        """Whether the last of the ratings is of the resolution that stands."""

    def go_on(self, snapshot: Snapshot) -> None:
        """Read the next event."""
        before, self._now = self._now, max(self._now, snapshot.occurred_at)
        if snapshot.assigned_to != self._last.assigned_to:
            self._assignments.append(Happening(self._now, snapshot.assigned_to))
        if snapshot.resolved_at != self._last.resolved_at:
            self._resolve_or_reopen(snapshot, before)
        if snapshot.status == Status.CLOSED and self._closing is None:
            self._closing = Happening(self._now, snapshot.assigned_to)
        if snapshot.responder is not None and self._response is None:
            self._response = Happening(self._now, snapshot.responder)
        if snapshot.rating is not None:
            self._rate(snapshot.assigned_to, snapshot.rating)
        self._last = snapshot

    def _resolve_or_reopen(self, snapshot: Snapshot, before: datetime) -> None:
        # A resolution has a time of its own, which is earlier than the event's only where its own event is missing.
        at = self._now if snapshot.resolved_at is None else min(self._now, max(before, snapshot.resolved_at))
        happening = Happening(at, snapshot.assigned_to)
        self._is_rated = False
        if self._last.resolved_at is not None:
            self._reopenings.append(happening)
        if snapshot.resolved_at is not None:
            self._resolutions.append(happening)

    def _rate(self, agent: UUID | None, rating: int) -> None:
        if self._is_rated:
            self._ratings.pop()
        self._ratings.append(Rating(self._now, agent, rating))
        self._is_rated = True

    def fact(self) -> TicketFact:
        """What the life comes to."""
        return TicketFact(
            ticket_id=self._last.ticket_id,
            created_at=self._last.created_at,
            priority=self._last.priority,
            settled_at=None if self._last.status in WORKING else self._now,
            response=self._response,
            assignments=tuple(self._assignments),
            resolutions=tuple(self._resolutions),
            reopenings=tuple(self._reopenings),
            resolution_stands=self._last.resolved_at is not None,
            closing=self._closing,
            ratings=tuple(self._ratings),
        )
