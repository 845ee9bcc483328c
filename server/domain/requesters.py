"""What staff are told of a ticket's owner."""

from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from server.domain.users import User


class State(StrEnum):
    """How much is known (TicketRequester.State of the protos)."""

    PENDING = "pending"
    KNOWN = "known"
    UNKNOWN_USER = "unknown_user"


class TicketRequester(NamedTuple):
    """The owner of a ticket, as far as the User Service has told."""

    ticket_id: UUID
    user_id: UUID
    state: State
    user: User | None = None
