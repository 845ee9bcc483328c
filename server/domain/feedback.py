"""Feedback: how content a ticket's owner is with its resolution, when that can be said, and until when it can change.

Source: the comments of `nibble.support.v1.TicketFeedback` and `TicketService.RateTicket`. A ticket has one rating: a
later resolution, or closing without one, may be rated anew, and that takes the place of what was said before.
"""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from server.domain.events import EventDraft, EventType
from server.domain.tickets import Findings, Status, Ticket
from server.errors import FeedbackFinal, TicketNotRatable

LOWEST, HIGHEST = 1, 5
MAX_REMARK = 2_000
RATABLE = frozenset({Status.RESOLVED, Status.CLOSED})


class Feedback(NamedTuple):
    """One row of `ticket_feedback`, its columns in this order. Times are UTC."""

    ticket_id: UUID
    rating: int
    remark: str | None
    resolved_by: UUID | None
    rated_at: datetime
    updated_at: datetime
    findings: Findings = None


class Opinion(NamedTuple):
    """What the owner says: the rating, the remark as it is stored, and what was masked in it."""

    rating: int
    remark: str | None = None
    findings: Findings = None


def rate(
    ticket: Ticket, given: Feedback | None, opinion: Opinion, changeable_for: timedelta, now: datetime
) -> Feedback | None:
    """The feedback that the ticket has from now on, or None where that is what it has already.

    Whoever has the ticket when it is rated had it when its work ended: from then on nobody is assigned any more.

    Args:
        given: what it has.

    Raises:
        TicketNotRatable: the ticket is open or in progress.
        FeedbackFinal: this resolution was rated too long ago.
    """
    if ticket.status not in RATABLE:
        raise TicketNotRatable(ticket_id=ticket.id, status=ticket.status)
    if given is None or given.rated_at < _ended_at(ticket):
        at = max(now, _ended_at(ticket))  # another process's clock may be ahead of this one's
        return Feedback(ticket.id, opinion.rating, opinion.remark, ticket.assigned_to, at, at, opinion.findings)
    if (given.rating, given.remark) == (opinion.rating, opinion.remark):
        return None
    if now > changeable_until(given, changeable_for):
        raise FeedbackFinal(ticket_id=ticket.id, changeable_until=_rfc_3339(changeable_until(given, changeable_for)))
    return given._replace(**opinion._asdict(), updated_at=now)


def _ended_at(ticket: Ticket) -> datetime:
    """When the work on a ratable ticket ended: its resolution, or a closing without one, which is its last change."""
    return ticket.resolved_at or ticket.updated_at


def changeable_until(feedback: Feedback, changeable_for: timedelta) -> datetime:
    """The last moment at which its owner may change it."""
    return feedback.rated_at + changeable_for


def rated(feedback: Feedback) -> EventDraft:
    """What is told of it: the rating and whose it is, and nothing of the remark."""
    return EventDraft(EventType.TICKET_RATED, rating=feedback.rating, assigned_to=feedback.resolved_by)


def _rfc_3339(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
