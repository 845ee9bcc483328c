"""What happened to a ticket, in the events' words (contract, section 7)."""

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from server.domain.callers import Role
from server.domain.tickets import Status


class EventType(StrEnum):
    """The types of an event, and of a history entry; the last two are history only."""

    TICKET_CREATED = "ticket_created"
    TICKET_ASSIGNED = "ticket_assigned"
    TICKET_STATUS_CHANGED = "ticket_status_changed"
    TICKET_COMMENTED = "ticket_commented"
    TICKET_RESOLVED = "ticket_resolved"
    TICKET_CLOSED = "ticket_closed"
    TICKET_FLAGGED = "ticket_flagged"
    TICKET_RATED = "ticket_rated"
    TICKET_ERASED = "ticket_erased"
    TICKET_REVEALED = "ticket_revealed"
    TICKET_EXPORTED = "ticket_exported"


class Reason(StrEnum):
    """Why a status, an assignee or a flag changed."""

    BY_OWNER = "by_owner"
    BY_STAFF = "by_staff"
    AUTO = "auto"
    ASSIGNMENT = "assignment"
    COMMENT = "comment"
    SELF_ASSIGNED = "self_assigned"
    BY_SUPERVISOR = "by_supervisor"
    UNATTENDED = "unattended"
    ASSIGNEE_AWAY = "assignee_away"


class EventDraft(NamedTuple):
    """What one event says beside its ticket, its actor and its number, which the database adds."""

    event_type: EventType
    from_status: Status | None = None
    to_status: Status | None = None
    assigned_to: UUID | None = None
    previous_assignee: UUID | None = None
    reason: Reason | None = None
    has_resolution_notes: bool | None = None
    comment_id: UUID | None = None
    author_role: Role | None = None
    rating: int | None = None
    erased_user_id: UUID | None = None


class HistoryEntry(NamedTuple):
    """One row of `ticket_events`, without what only the relay needs. Internal entries have no sequence."""

    id: UUID
    ticket_id: UUID
    position: int
    sequence: int | None
    change_id: UUID
    event_type: str
    occurred_at: datetime
    actor_id: UUID
    actor_role: str
    is_internal: bool
    from_status: str | None
    to_status: str | None
    assigned_to: UUID | None
    previous_assignee: UUID | None
    reason: str | None
    comment_id: UUID | None
    author_role: str | None
    has_resolution_notes: bool | None
    rating: int | None = None
    erased_user_id: UUID | None = None


def status_events(
    current: Status, wanted: Status, reason: Reason, *, has_notes: bool = False
) -> tuple[EventDraft, ...]:
    """The events of a change of status: the change itself and, beside it, the resolution or the closing."""
    changed = EventDraft(EventType.TICKET_STATUS_CHANGED, current, wanted, reason=reason)
    if wanted is Status.RESOLVED:
        return changed, EventDraft(EventType.TICKET_RESOLVED, has_resolution_notes=has_notes)
    if wanted is Status.CLOSED:
        return changed, EventDraft(EventType.TICKET_CLOSED, reason=reason)
    return (changed,)
