"""Who may do what: one table of calls and roles, denied by default, and the few rules that look further.

Source: contract, section 4, column "who", and the comments of the protos.
"""

from typing import Protocol, TypeVar
from uuid import UUID

from server.domain.callers import EVERYONE, STAFF, USERS, Caller, CallTable, Role
from server.domain.tickets import Status
from server.errors import ActionNotAllowed, TicketNotFound

SUPERVISORS = frozenset({Role.SUPPORT_SUPERVISOR})

MAY_CALL: CallTable = {
    "TicketService.CreateTicket": EVERYONE,
    "TicketService.ListTickets": STAFF | {Role.SERVICE},
    "TicketService.ListMyTickets": EVERYONE,
    "TicketService.ListAssignedTickets": STAFF,
    "TicketService.GetTicket": EVERYONE,
    "TicketService.UpdateTicketStatus": USERS | STAFF,
    "TicketService.AssignTicket": STAFF,
    "TicketService.ListTicketHistory": USERS | STAFF,
    "TicketService.GetTicketOrder": STAFF,
    "TicketService.GetTicketRequester": STAFF,
    "TicketService.RevealTicket": SUPERVISORS,
    "TicketService.RateTicket": USERS,
    "TicketService.GetTicketFeedback": USERS | STAFF,
    "TicketService.ListUnattendedTickets": SUPERVISORS,
    "CommentService.AddComment": USERS | STAFF,
    "CommentService.ListComments": USERS | STAFF,
    "CommentService.RevealComment": SUPERVISORS,
    "AgentService.SetAgent": SUPERVISORS,
    "AgentService.GetAgent": STAFF,
    "AgentService.ListAgents": STAFF,
    "AgentService.SetAgentAvailability": STAFF,
    "AgentService.ReassignTickets": SUPERVISORS,
    "PrivacyService.ErasePersonalData": SUPERVISORS | {Role.SERVICE},
    "PrivacyService.ExportPersonalData": SUPERVISORS | {Role.SERVICE},
}


class Owned(Protocol):
    """A ticket, or what is known of one."""

    @property
    def user_id(self) -> UUID:
        """The owner."""


T = TypeVar("T", bound=Owned)


def require_sight(caller: Caller, ticket: T | None, ticket_id: UUID) -> T:
    """The ticket, for those who may see it: its owner, staff and services.

    Raises:
        TicketNotFound: there is none, or it is somebody else's; a caller can't tell which.
    """
    if ticket is None or sees_only_tickets_of(caller) not in (None, ticket.user_id):
        raise TicketNotFound(ticket_id=ticket_id)
    return ticket


def sees_only_tickets_of(caller: Caller) -> UUID | None:
    """Whose tickets the caller sees: users see their own, all others everybody's, which is None."""
    return caller.id if caller.is_user else None


def may_see_internal(caller: Caller) -> bool:
    """Internal notes are for staff."""
    return caller.is_staff


def require_owner_choice(caller: Caller, owner: UUID) -> None:
    """Users create tickets for themselves; staff and services for anyone.

    Raises:
        ActionNotAllowed: a user named another user.
    """
    if caller.is_user and owner != caller.id:
        raise ActionNotAllowed("only staff and services may create a ticket for another user", caller.role)


def require_status_change(caller: Caller, wanted: Status) -> None:
    """Staff may ask for any status; a user only closes an own ticket.

    Raises:
        ActionNotAllowed: a user asked for another status.
    """
    if caller.is_user and wanted is not Status.CLOSED:
        raise ActionNotAllowed("the owner of a ticket may only close it", caller.role)


def require_assignment(caller: Caller, assignee: UUID) -> None:
    """Supervisors assign anyone; agents only themselves.

    Raises:
        ActionNotAllowed: an agent named somebody else.
    """
    if caller.role is not Role.SUPPORT_SUPERVISOR and assignee != caller.id:
        raise ActionNotAllowed("an agent may only assign tickets to themselves", caller.role)


def require_availability_choice(caller: Caller, agent_id: UUID) -> None:
    """Supervisors speak for anyone; agents for themselves.

    Raises:
        ActionNotAllowed: an agent named somebody else.
    """
    if caller.role is not Role.SUPPORT_SUPERVISOR and agent_id != caller.id:
        raise ActionNotAllowed("an agent may only set their own availability", caller.role)


def require_internal_note(caller: Caller, *, is_internal: bool) -> None:
    """Only staff write internal notes; a user's is refused, never made public instead.

    Raises:
        ActionNotAllowed: a user asked for an internal note.
    """
    if is_internal and not caller.is_staff:
        raise ActionNotAllowed("only staff may write internal notes", caller.role)
