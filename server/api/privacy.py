"""PrivacyService: each method hands the fields to one use case and the result back."""

from nibble.support.v1 import privacy_service_pb2 as pb

from server.api.boundary import Call, Method
from server.api.order_context import ticket_order_message
from server.api.translate import comment_message, feedback_message, history_message, ticket_message
from server.domain.events import HistoryEntry
from server.domain.tickets import Comment
from server.usecases import erasure, export
from server.usecases.collaborators import Collaborators
from server.usecases.export import Record, TicketRecord
from server.usecases.lists import PageRequest


class PrivacyServicer:
    """The two calls of `nibble.support.v1.PrivacyService`; the proto's comments say what each one does."""

    def __init__(self, on: Collaborators) -> None:
        self._on = on

    def methods(self) -> dict[str, Method]:
        """The calls by their names in the proto."""
        return {
            "ErasePersonalData": self.erase_personal_data,
            "ExportPersonalData": self.export_personal_data,
        }

    async def erase_personal_data(
        self, request: pb.ErasePersonalDataRequest, call: Call
    ) -> pb.ErasePersonalDataResponse:
        """`ErasePersonalData`."""
        progress = await erasure.erase_personal_data(self._on, call.caller, user_id=request.user_id)
        return pb.ErasePersonalDataResponse(**progress._asdict())

    async def export_personal_data(
        self, request: pb.ExportPersonalDataRequest, call: Call
    ) -> pb.ExportPersonalDataResponse:
        """`ExportPersonalData`."""
        page = PageRequest(request.page_size, request.page_token)
        found = await export.export_personal_data(self._on, call.caller, user_id=request.user_id, page=page)
        return pb.ExportPersonalDataResponse(
            records=[self._record(record) for record in found.rows], next_page_token=found.next_page_token
        )

    def _record(self, record: Record) -> pb.PersonalRecord:
        match record:
            case TicketRecord(ticket, feedback, order):
                return pb.PersonalRecord(
                    ticket=ticket_message(ticket),
                    feedback=feedback and feedback_message(feedback, self._on.feedback_changeable_for),
                    order=order and ticket_order_message(order),
                )
            case Comment():
                return pb.PersonalRecord(comment=comment_message(record))
            case HistoryEntry():
                return pb.PersonalRecord(history_entry=history_message(record))
