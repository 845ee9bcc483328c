"""TicketService: each method hands the fields to one use case and the result back."""

from nibble.support.v1 import feedback_pb2, history_pb2, ticket_order_pb2, ticket_pb2, ticket_requester_pb2
from nibble.support.v1 import ticket_service_pb2 as pb

from server.api.boundary import Call, Method
from server.api.order_context import ticket_order_message, ticket_requester_message
from server.api.translate import (
    feedback_message,
    history_message,
    moment,
    priority_word,
    priority_words,
    status_word,
    status_words,
    ticket_message,
)
from server.domain.tickets import Ticket
from server.usecases import feedback, lists, order_context, requester, reveal, tickets
from server.usecases.collaborators import Collaborators
from server.usecases.lists import Page, PageRequest, TicketFilters


class TicketServicer:
    """The calls of `nibble.support.v1.TicketService`; the proto's comments say what each one does."""

    def __init__(self, on: Collaborators) -> None:
        self._on = on

    def methods(self) -> dict[str, Method]:
        """The calls by their names in the proto."""
        return {
            "CreateTicket": self.create_ticket,
            "ListTickets": self.list_tickets,
            "ListMyTickets": self.list_my_tickets,
            "ListAssignedTickets": self.list_assigned_tickets,
            "GetTicket": self.get_ticket,
            "UpdateTicketStatus": self.update_ticket_status,
            "AssignTicket": self.assign_ticket,
            "ListTicketHistory": self.list_ticket_history,
            "RateTicket": self.rate_ticket,
            "GetTicketFeedback": self.get_ticket_feedback,
            "ListUnattendedTickets": self.list_unattended_tickets,
            "RevealTicket": self.reveal_ticket,
            "GetTicketOrder": self.get_ticket_order,
            "GetTicketRequester": self.get_ticket_requester,
        }

    async def create_ticket(self, request: pb.CreateTicketRequest, call: Call) -> ticket_pb2.Ticket:
        """`CreateTicket`."""
        # A priority without a name must be refused, while an unspecified one means the default.
        priority = (priority_word(request.priority) or str(request.priority)) if request.priority else None
        ticket = await tickets.create_ticket(
            self._on,
            call.caller,
            subject=request.subject,
            description=request.description,
            order_id=request.order_id if request.HasField("order_id") else None,
            priority=priority,
            user_id=request.user_id if request.HasField("user_id") else None,
            idempotency_key=call.idempotency_key,
        )
        return ticket_message(ticket)

    async def get_ticket(self, request: pb.GetTicketRequest, call: Call) -> ticket_pb2.Ticket:
        """`GetTicket`."""
        return ticket_message(await tickets.get_ticket(self._on, call.caller, request.ticket_id))

    async def update_ticket_status(self, request: pb.UpdateTicketStatusRequest, call: Call) -> ticket_pb2.Ticket:
        """`UpdateTicketStatus`."""
        ticket = await tickets.update_ticket_status(
            self._on,
            call.caller,
            ticket_id=request.ticket_id,
            status=status_word(request.status),
            resolution_notes=request.resolution_notes if request.HasField("resolution_notes") else None,
            expected_version=request.expected_version if request.HasField("expected_version") else None,
        )
        return ticket_message(ticket)

    async def assign_ticket(self, request: pb.AssignTicketRequest, call: Call) -> ticket_pb2.Ticket:
        """`AssignTicket`."""
        ticket = await tickets.assign_ticket(
            self._on,
            call.caller,
            ticket_id=request.ticket_id,
            assigned_to=request.assigned_to,
            expected_version=request.expected_version if request.HasField("expected_version") else None,
        )
        return ticket_message(ticket)

    async def list_tickets(self, request: pb.ListTicketsRequest, call: Call) -> pb.ListTicketsResponse:
        """`ListTickets`."""
        filters = TicketFilters(
            status=status_words(request.status),
            priority=priority_words(request.priority),
            user_id=request.user_id if request.HasField("user_id") else None,
            assigned_to=request.assigned_to if request.HasField("assigned_to") else None,
            unassigned=request.unassigned,
            created_after=moment(request.created_after) if request.HasField("created_after") else None,
            created_before=moment(request.created_before) if request.HasField("created_before") else None,
        )
        page = PageRequest(request.page_size, request.page_token)
        return _tickets_page(await lists.list_tickets(self._on, call.caller, filters, page))

    async def list_my_tickets(self, request: pb.ListMyTicketsRequest, call: Call) -> pb.ListTicketsResponse:
        """`ListMyTickets`."""
        status = status_words(request.status)
        page = PageRequest(request.page_size, request.page_token)
        return _tickets_page(await lists.list_my_tickets(self._on, call.caller, status, page))

    async def list_assigned_tickets(self, request: pb.ListAssignedTicketsRequest, call: Call) -> pb.ListTicketsResponse:
        """`ListAssignedTickets`."""
        status = status_words(request.status)
        priority = priority_words(request.priority)
        page = PageRequest(request.page_size, request.page_token)
        found = await lists.list_assigned_tickets(self._on, call.caller, status, priority, page)
        return _tickets_page(found)

    async def list_unattended_tickets(
        self, request: pb.ListUnattendedTicketsRequest, call: Call
    ) -> pb.ListTicketsResponse:
        """`ListUnattendedTickets`."""
        priority = priority_words(request.priority)
        assigned_to = request.assigned_to if request.HasField("assigned_to") else None
        page = PageRequest(request.page_size, request.page_token)
        return _tickets_page(await lists.list_unattended_tickets(self._on, call.caller, priority, assigned_to, page))

    async def list_ticket_history(
        self, request: pb.ListTicketHistoryRequest, call: Call
    ) -> pb.ListTicketHistoryResponse:
        """`ListTicketHistory`."""
        page = PageRequest(request.page_size, request.page_token)
        found = await lists.list_history(self._on, call.caller, request.ticket_id, page)
        entries: list[history_pb2.HistoryEntry] = [history_message(entry) for entry in found.rows]
        return pb.ListTicketHistoryResponse(entries=entries, next_page_token=found.next_page_token)

    async def rate_ticket(self, request: pb.RateTicketRequest, call: Call) -> feedback_pb2.TicketFeedback:
        """`RateTicket`."""
        given = await feedback.rate_ticket(
            self._on,
            call.caller,
            ticket_id=request.ticket_id,
            rating=request.rating,
            remark=request.remark if request.HasField("remark") else None,
        )
        return feedback_message(given, self._on.feedback_changeable_for)

    async def get_ticket_feedback(
        self, request: pb.GetTicketFeedbackRequest, call: Call
    ) -> feedback_pb2.TicketFeedback:
        """`GetTicketFeedback`."""
        given = await feedback.get_ticket_feedback(self._on, call.caller, request.ticket_id)
        return feedback_message(given, self._on.feedback_changeable_for)

    async def reveal_ticket(self, request: pb.RevealTicketRequest, call: Call) -> ticket_pb2.Ticket:
        """`RevealTicket`."""
        return ticket_message(await reveal.reveal_ticket(self._on, call.caller, ticket_id=request.ticket_id))

    async def get_ticket_order(self, request: pb.GetTicketOrderRequest, call: Call) -> ticket_order_pb2.TicketOrder:
        """`GetTicketOrder`."""
        known = await order_context.get_ticket_order(self._on, call.caller, request.ticket_id)
        return ticket_order_message(known)

    async def get_ticket_requester(
        self, request: pb.GetTicketRequesterRequest, call: Call
    ) -> ticket_requester_pb2.TicketRequester:
        """`GetTicketRequester`."""
        known = await requester.get_ticket_requester(self._on, call.caller, request.ticket_id)
        return ticket_requester_message(known)


def _tickets_page(page: Page[Ticket]) -> pb.ListTicketsResponse:
    response = pb.ListTicketsResponse(next_page_token=page.next_page_token)
    for ticket in page.rows:
        ticket_message(ticket, response.tickets.add)
    return response
