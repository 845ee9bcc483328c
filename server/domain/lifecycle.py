"""The state machine of a ticket: what a status, an assignment or a comment changes (contract, section 4).

Each function looks at a ticket as just read and answers with the change to make, or None where nothing changes.
Nothing is read or written here; the version guard of the statement makes the decision safe.
"""

from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from server.domain.callers import Caller
from server.domain.events import EventDraft, EventType, Reason, status_events
from server.domain.tickets import Status, Ticket
from server.errors import IllegalTransition, TicketClosed, TicketNotAssignable, VersionMismatch

TRANSITIONS = {
    Status.OPEN: frozenset({Status.IN_PROGRESS, Status.RESOLVED, Status.CLOSED}),
    Status.IN_PROGRESS: frozenset({Status.OPEN, Status.RESOLVED, Status.CLOSED}),
    Status.RESOLVED: frozenset({Status.IN_PROGRESS, Status.CLOSED}),
    Status.CLOSED: frozenset[Status](),
}
ASSIGNABLE = frozenset({Status.OPEN, Status.IN_PROGRESS})


class Change(NamedTuple):
    """The values that a changed ticket takes, and the events that tell of it."""

    status: Status
    assigned_to: UUID | None
    resolved_at: datetime | None
    resolution_notes: str | None
    events: tuple[EventDraft, ...]


def expect_version(ticket: Ticket, expected_version: int | None) -> None:
    """Hold the caller's expectation against the ticket.

    Raises:
        VersionMismatch: the ticket is at another version, even where nothing would change.
    """
    if expected_version is not None and ticket.version != expected_version:
        raise VersionMismatch(ticket_id=ticket.id, version=ticket.version, expected_version=expected_version)


def change_status(ticket: Ticket, wanted: Status, notes: str | None, caller: Caller, now: datetime) -> Change | None:
    """The change to `wanted`, or None where the ticket has that status already.

    Raises:
        IllegalTransition: the state machine has no such step.
    """
    current = Status(ticket.status)
    if current is wanted:
        return None
    if wanted not in TRANSITIONS[current]:
        raise IllegalTransition(current, wanted, ticket.id)
    reason = Reason.BY_OWNER if caller.id == ticket.user_id else Reason.BY_STAFF
    return _to_status(ticket, wanted, notes, reason, now)


def _to_status(ticket: Ticket, wanted: Status, notes: str | None, reason: Reason, now: datetime) -> Change:
    events = status_events(Status(ticket.status), wanted, reason, has_notes=notes is not None)
    if wanted is Status.RESOLVED:
        return Change(wanted, ticket.assigned_to, now, notes, events)
    # A closing keeps the time of the resolution; a reopening forgets it. The notes stay until the next resolution.
    resolved_at = ticket.resolved_at if wanted is Status.CLOSED else None
    return Change(wanted, ticket.assigned_to, resolved_at, ticket.resolution_notes, events)


def require_assignable(ticket: Ticket) -> None:
    """Only what is still to be done is given to somebody.

    Raises:
        TicketNotAssignable: the ticket is resolved or closed.
    """
    if ticket.status not in ASSIGNABLE:
        raise TicketNotAssignable(ticket_id=ticket.id, status=ticket.status)


def assign(ticket: Ticket, assignee: UUID, reason: Reason) -> Change | None:
    """The change that gives the ticket to `assignee`, or None where it is theirs already.

    Raises:
        TicketNotAssignable: the ticket is resolved or closed.
    """
    require_assignable(ticket)
    if ticket.assigned_to == assignee:
        return None
    current = Status(ticket.status)
    events = [_assigned(ticket, assignee, reason)]
    if current is Status.OPEN:
        events += status_events(current, Status.IN_PROGRESS, Reason.ASSIGNMENT)
    return Change(Status.IN_PROGRESS, assignee, ticket.resolved_at, ticket.resolution_notes, tuple(events))


def _assigned(ticket: Ticket, assignee: UUID, reason: Reason) -> EventDraft:
    return EventDraft(
        EventType.TICKET_ASSIGNED, assigned_to=assignee, previous_assignee=ticket.assigned_to, reason=reason
    )


def assigned_by(caller: Caller, assignee: UUID) -> Reason:
    """Why a ticket is given to somebody whom the caller names."""
    return Reason.SELF_ASSIGNED if caller.id == assignee else Reason.BY_SUPERVISOR


def comment(ticket: Ticket, caller: Caller, *, is_internal: bool, reopens: bool, now: datetime) -> Change | None:
    """What a comment changes in the ticket itself: a user's public one reopens a resolved ticket.

    Args:
        reopens: whether the service is set to reopen at all.

    Raises:
        TicketClosed: the ticket is closed and the comment is public.
    """
    status = Status(ticket.status)
    if status is Status.CLOSED and not is_internal:
        raise TicketClosed(ticket_id=ticket.id)
    if status is Status.RESOLVED and reopens and caller.is_user and not is_internal:
        return _to_status(ticket, Status.IN_PROGRESS, None, Reason.COMMENT, now)
    return None


def close_quiet(ticket: Ticket, quiet_since: datetime, after: timedelta, now: datetime) -> Change | None:
    """The change by which the service itself closes a resolved ticket, or None where it is not time for that.

    Args:
        quiet_since: when it was resolved, or somebody commented on it since.
        after: how long a resolved ticket stays as it is when nobody says anything.
    """
    if ticket.status != Status.RESOLVED or now - quiet_since < after:
        return None
    return _to_status(ticket, Status.CLOSED, None, Reason.AUTO, now)


def attends(ticket: Ticket, caller: Caller, change: Change | None) -> bool:
    """Whether an act starts the ticket's waiting for staff anew, or ends it.

    Anything by staff does, a new assignee, a reopening, and the owner's closing.
    """
    if change is None or caller.is_staff:
        return caller.is_staff
    waited, waits = ticket.status in ASSIGNABLE, change.status in ASSIGNABLE
    return waited is not waits or change.assigned_to != ticket.assigned_to
