"""Who is told of what happened to a ticket, and how: pure functions of one event, what is known of staff, and mutes.

Source: the comments of `nibble.notification.v1.Notification.Type`. Where those are silent:

- A comment by anybody but the owner, a service included, is told to the owner, as one by staff is.
- A staff member who owns a ticket is its owner, whatever else they are: told at once, never in a digest.
- An owner who is the assignee too tells nobody by commenting: only they were waiting for it.
- Of a ticket that was erased its owner is told nothing: nobody knows any more who that is.
"""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from server.domain.callers import STAFF, Role
from server.notification.words import ERASED, Channel, Priority, Rank, Status, Type

_TOLD_BY_THEIR_PARTNER = frozenset({Status.RESOLVED, Status.CLOSED})
"""Statuses whose change comes with an event of its own, which tells it."""

_REASONS_TOLD_BY_THEIR_PARTNER = frozenset({"assignment", "comment"})
"""Why a status changed along with something that tells it: an assignment or a comment."""

_AT_ONCE = frozenset({Priority.HIGH, Priority.URGENT})


class Event(NamedTuple):
    """What the rules look at of a ticket's event; the ticket's values are those after the change."""

    event_id: UUID
    type: Type
    ticket_id: UUID
    change_id: UUID
    occurred_at: datetime
    actor_id: UUID
    actor_role: Role
    owner_id: UUID
    assignee_id: UUID | None
    subject: str
    priority: Priority
    status: Status
    to: Status | None = None
    reason: str | None = None
    is_erased: bool = False
    """Whether the data of the ticket's owner was erased, before the event or after it."""


class Erasure(NamedTuple):
    """That a ticket's owner was erased: the pseudonym that takes their place, and who it was, if that is still told."""

    ticket_id: UUID
    pseudonym: UUID
    user_id: UUID | None


class Mutes(NamedTuple):
    """What a recipient does not want to get."""

    channels: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()


class Sighting(NamedTuple):
    """Somebody in a role of the staff; or, where that is None, in one that is none of theirs."""

    user_id: UUID
    role: Role | None
    at: datetime


class Audience(StrEnum):
    """Whom an event concerns."""

    OWNER = "owner"
    ASSIGNEE = "assignee"
    ALL_STAFF = "all_staff"


def is_news(event: Event, now: datetime, within: timedelta) -> bool:
    """Whether it is told at all: what happened longer ago comes from a replay, and its people know it by now."""
    return now - event.occurred_at <= within


def tells(event: Event) -> bool:
    """Whether this event is the one of its change that is told; exactly one of each change is."""
    if event.type is not Type.TICKET_STATUS_CHANGED:
        return True
    return event.to not in _TOLD_BY_THEIR_PARTNER and event.reason not in _REASONS_TOLD_BY_THEIR_PARTNER


def audience(event: Event) -> Audience:
    """Whom the event is told to."""
    if event.type is Type.TICKET_CREATED:
        return Audience.ALL_STAFF
    if event.type is Type.TICKET_COMMENTED and event.actor_id == event.owner_id:
        return Audience.ALL_STAFF if event.assignee_id is None else Audience.ASSIGNEE
    return Audience.OWNER


def erased(event: Event, pseudonym: UUID) -> Event:
    """The event as if its ticket had been erased before it happened, as it may have been long before it arrives."""
    return event._replace(
        owner_id=pseudonym,
        actor_id=pseudonym if event.actor_id == event.owner_id else event.actor_id,
        assignee_id=pseudonym if event.assignee_id == event.owner_id else event.assignee_id,
        subject=ERASED,
        is_erased=True,
    )


def told(event: Event, staff: Collection[UUID]) -> list[UUID]:
    """The recipients, each once: the audience without whoever did it. `staff` are all who are to be told as staff."""
    people = {
        Audience.ALL_STAFF: staff,
        Audience.ASSIGNEE: [event.assignee_id] if event.assignee_id else [],
        Audience.OWNER: [] if event.is_erased else [event.owner_id],
    }[audience(event)]
    return [person for person in people if person != event.actor_id]


def sighting(event: Event) -> Sighting:
    """Whom the event shows at work, as staff or not.

    Only who did it: an actor's role is what their token said. That a ticket was given to somebody proves nothing: a
    mistyped id would make a customer one of those who are told of everybody's tickets.
    """
    is_somebody = not (event.is_erased and event.actor_id == event.owner_id)
    role = event.actor_role if event.actor_role in STAFF and is_somebody else None
    return Sighting(event.actor_id, role, event.occurred_at)


def staff_at(last_seen: Mapping[UUID, datetime], moment: datetime, within: timedelta) -> list[UUID]:
    """Who counts as staff at `moment`: whoever was last seen at most `within` before."""
    return [user_id for user_id, seen in last_seen.items() if seen >= moment - within]


def channels(type_: Type, mutes: Mutes) -> frozenset[Channel]:
    """The channels by which a notification of that type comes: none where the type is muted."""
    if type_ in mutes.types:
        return frozenset()
    return frozenset(Channel) - mutes.channels


def rank(event: Event, recipient_id: UUID) -> Rank:
    """What its e-mail is: one of its own to the owner always, and to staff where the ticket presses; else a digest."""
    if recipient_id == event.owner_id:
        return Rank.SINGLE
    return Rank.PRESSING if event.priority in _AT_ONCE else Rank.DIGEST
