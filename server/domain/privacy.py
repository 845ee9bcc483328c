"""What is left of a person's data when it was erased, and how an erasure stands; what is handed out about a person."""

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from server.domain.callers import Caller, Role
from server.domain.events import EventDraft, EventType

ERASED = "[erased]"
"""Stands where a text was."""


class Erasure(NamedTuple):
    """One row of `erasures`, its columns in this order. Times are UTC.

    `id` is the pseudonym that takes the user's place: random, and made for this erasure. It leads nowhere once nothing
    is left to erase, for then `user_id` is null.
    """

    id: UUID
    user_id: UUID | None
    requested_by: UUID
    requested_role: str
    requested_at: datetime
    finished_at: datetime | None
    erased_tickets: int

    @property
    def requester(self) -> Caller:
        """Who does what is done for it, whichever process is at it."""
        return Caller(self.requested_by, Role(self.requested_role))


class Erasable(NamedTuple):
    """A ticket to be erased, and how long its history was when that was read: whatever is written on it moves that."""

    id: UUID
    history_count: int


class Progress(NamedTuple):
    """How far an erasure is."""

    finished: bool
    erased_tickets: int


def erased(user_id: UUID) -> EventDraft:
    """What is told of a ticket that was erased: whose it was, for those who are to erase the same."""
    return EventDraft(EventType.TICKET_ERASED, erased_user_id=user_id)


EXPORTED = EventDraft(EventType.TICKET_EXPORTED)
"""What the history of a ticket says of an export; never published."""


class Part(StrEnum):
    """The parts of an export, in their order."""

    TICKETS = "tickets"
    COMMENTS = "comments"
    HISTORY = "history"
