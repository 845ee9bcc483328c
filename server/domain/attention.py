"""Unattended tickets: how long staff may leave a ticket alone, and what is told when they did so for longer.

What counts as attention is `lifecycle.attends`.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from server.domain.events import EventDraft, EventType, Reason
from server.domain.tickets import Priority

Patience = Mapping[Priority, timedelta]
"""After how long without attention an open or in-progress ticket is flagged, by its priority."""

FLAGGED = (EventDraft(EventType.TICKET_FLAGGED, reason=Reason.UNATTENDED),)


class Unattended(NamedTuple):
    """A ticket that waits for staff, as just read: whatever staff do next moves the version or the time."""

    id: UUID
    version: int
    unattended_since: datetime


def last_due(patience: Patience, priority: Priority, now: datetime) -> datetime:
    """Tickets of this priority are to be flagged at `now` if they have been unattended since then, or for longer."""
    return now - patience[priority]
