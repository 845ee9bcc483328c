"""Who a ticket's owner is, as the User Service tells it. Nothing of it is stored."""

from server.domain.callers import Caller
from server.domain.requesters import State, TicketRequester
from server.errors import UserServiceUnavailable
from server.usecases.collaborators import Collaborators
from server.usecases.tickets import get_ticket


async def get_ticket_requester(on: Collaborators, caller: Caller, ticket_id: str) -> TicketRequester:
    """What is known of the owner; it waits for the User Service no longer than a call to it may take.

    Raises:
        InvalidFields: the id is malformed.
        TicketNotFound: there is no such ticket.
    """
    ticket = await get_ticket(on, caller, ticket_id)
    pending = TicketRequester(ticket.id, ticket.user_id, State.PENDING)
    if on.users is None:
        return pending
    try:
        user = await on.users.user(ticket.user_id)
    except UserServiceUnavailable:
        return pending
    return pending._replace(state=State.KNOWN if user else State.UNKNOWN_USER, user=user)
