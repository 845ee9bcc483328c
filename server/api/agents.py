"""AgentService: each method hands the fields to one use case and the result back."""

from nibble.support.v1 import agent_pb2, error_reason_pb2
from nibble.support.v1 import agent_service_pb2 as pb

from server.api.boundary import Call, Method
from server.api.translate import agent_message, availability_word, availability_words, moment, role_word
from server.usecases import lists, reassignment, roster
from server.usecases.collaborators import Collaborators
from server.usecases.lists import PageRequest
from server.usecases.reassignment import Result

_REASON = dict(error_reason_pb2.ErrorReason.items())


class AgentServicer:
    """The calls of `nibble.support.v1.AgentService`; the proto's comments say what each one does."""

    def __init__(self, on: Collaborators) -> None:
        self._on = on

    def methods(self) -> dict[str, Method]:
        """The calls by their names in the proto."""
        return {
            "SetAgent": self.set_agent,
            "GetAgent": self.get_agent,
            "ListAgents": self.list_agents,
            "SetAgentAvailability": self.set_agent_availability,
            "ReassignTickets": self.reassign_tickets,
        }

    async def set_agent(self, request: pb.SetAgentRequest, _call: Call) -> agent_pb2.Agent:
        """`SetAgent`."""
        agent = await roster.set_agent(
            self._on,
            agent_id=request.agent_id,
            display_name=request.display_name,
            # A role without a name must be refused, while an unspecified one means the default.
            role=(role_word(request.role) or str(request.role)) if request.role else None,
            tier=request.tier if request.HasField("tier") else None,
            capacity=request.capacity if request.HasField("capacity") else None,
            active=request.active if request.HasField("active") else None,
        )
        return agent_message(agent)

    async def get_agent(self, request: pb.GetAgentRequest, _call: Call) -> agent_pb2.Agent:
        """`GetAgent`."""
        return agent_message(await roster.get_agent(self._on, request.agent_id))

    async def list_agents(self, request: pb.ListAgentsRequest, call: Call) -> pb.ListAgentsResponse:
        """`ListAgents`."""
        availability = availability_words(request.availability)
        page = PageRequest(request.page_size, request.page_token)
        found = await lists.list_agents(self._on, call.caller, availability, page, with_inactive=request.with_inactive)
        agents = [agent_message(agent) for agent in found.rows]
        return pb.ListAgentsResponse(agents=agents, next_page_token=found.next_page_token)

    async def set_agent_availability(self, request: pb.SetAgentAvailabilityRequest, call: Call) -> agent_pb2.Agent:
        """`SetAgentAvailability`."""
        agent = await roster.set_availability(
            self._on,
            call.caller,
            agent_id=request.agent_id,
            availability=availability_word(request.availability),
            away_until=moment(request.away_until) if request.HasField("away_until") else None,
        )
        return agent_message(agent)

    async def reassign_tickets(self, request: pb.ReassignTicketsRequest, call: Call) -> pb.ReassignTicketsResponse:
        """`ReassignTickets`."""
        found = await reassignment.reassign_tickets(
            self._on,
            call.caller,
            ticket_ids=request.ticket_ids,
            from_agent=request.from_agent if request.HasField("from_agent") else None,
            only_flagged=request.only_flagged,
            assigned_to=request.assigned_to if request.HasField("assigned_to") else None,
        )
        return pb.ReassignTicketsResponse(results=[_result(row) for row in found.rows], more=found.more)


def _result(row: Result) -> pb.ReassignedTicket:
    return pb.ReassignedTicket(
        ticket_id=row.ticket_id,
        assigned_to=None if row.assigned_to is None else str(row.assigned_to),
        reassigned=row.reassigned,
        reason=None if row.error is None else _REASON[row.error.reason],
        message=None if row.error is None else row.error.message,
    )
