"""CommentService: each method hands the fields to one use case and the result back."""

from nibble.support.v1 import comment_pb2
from nibble.support.v1 import comment_service_pb2 as pb

from server.api.boundary import Call, Method
from server.api.translate import comment_message
from server.usecases import comments, lists, reveal
from server.usecases.collaborators import Collaborators
from server.usecases.lists import PageRequest


class CommentServicer:
    """The calls of `nibble.support.v1.CommentService`; the proto's comments say what each one does."""

    def __init__(self, on: Collaborators) -> None:
        self._on = on

    def methods(self) -> dict[str, Method]:
        """The calls by their names in the proto."""
        return {
            "AddComment": self.add_comment,
            "ListComments": self.list_comments,
            "RevealComment": self.reveal_comment,
        }

    async def add_comment(self, request: pb.AddCommentRequest, call: Call) -> comment_pb2.TicketComment:
        """`AddComment`."""
        comment = await comments.add_comment(
            self._on,
            call.caller,
            ticket_id=request.ticket_id,
            comment=request.comment,
            is_internal=request.is_internal,
            idempotency_key=call.idempotency_key,
        )
        return comment_message(comment)

    async def list_comments(self, request: pb.ListCommentsRequest, call: Call) -> pb.ListCommentsResponse:
        """`ListComments`."""
        page = PageRequest(request.page_size, request.page_token)
        found = await lists.list_comments(self._on, call.caller, request.ticket_id, page)
        response = pb.ListCommentsResponse(next_page_token=found.next_page_token)
        for comment in found.rows:
            comment_message(comment, response.comments.add)
        return response

    async def reveal_comment(self, request: pb.RevealCommentRequest, call: Call) -> comment_pb2.TicketComment:
        """`RevealComment`."""
        comment = await reveal.reveal_comment(
            self._on, call.caller, ticket_id=request.ticket_id, comment_id=request.comment_id
        )
        return comment_message(comment)
