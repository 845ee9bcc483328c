"""Reading a text as it was written, where everybody else sees it masked: never without an entry in the history."""

from uuid import UUID

from server.db import statements
from server.domain.callers import Caller
from server.domain.events import EventDraft, EventType
from server.domain.tickets import Comment, Ticket
from server.domain.validation import Fields
from server.errors import CommentNotFound
from server.usecases.collaborators import Collaborators
from server.usecases.contention import settle
from server.usecases.recording import event_values
from server.usecases.tickets import read_ticket


async def reveal_ticket(on: Collaborators, caller: Caller, *, ticket_id: str) -> Ticket:
    """The ticket with its texts as they were written.

    Raises:
        InvalidFields: the id is malformed.
        TicketNotFound: there is no such ticket.
    """
    fields = Fields()
    wanted = fields.uuid("ticket_id", ticket_id)
    fields.check()

    async def attempt() -> Ticket | None:
        values = await _noted(on, caller, wanted, EventDraft(EventType.TICKET_REVEALED))
        return await on.db.fetch_one(statements.REVEAL_TICKET, values, Ticket._make)

    return await settle(attempt)


async def reveal_comment(on: Collaborators, caller: Caller, *, ticket_id: str, comment_id: str) -> Comment:
    """The comment as it was written.

    Raises:
        InvalidFields: an id is malformed.
        TicketNotFound: there is no such ticket.
        CommentNotFound: the ticket has no such comment.
    """
    fields = Fields()
    wanted = fields.uuid("ticket_id", ticket_id)
    wanted_comment = fields.uuid("comment_id", comment_id)
    fields.check()

    async def attempt() -> Comment | None:
        draft = EventDraft(EventType.TICKET_REVEALED, comment_id=wanted_comment)
        values = await _noted(on, caller, wanted, draft)
        comment = await on.db.fetch_one(statements.GET_COMMENT, {"comment_id": wanted_comment}, Comment._make)
        if comment is None or comment.ticket_id != wanted:
            raise CommentNotFound(comment_id=wanted_comment)
        return await on.db.fetch_one(statements.REVEAL_COMMENT, values | {"comment_id": wanted_comment}, Comment._make)

    return await settle(attempt)


async def _noted(on: Collaborators, caller: Caller, ticket_id: UUID, draft: EventDraft) -> dict[str, object]:
    """What writes the entry, at the version that the ticket has: so nobody is shown another version's originals."""
    ticket = await read_ticket(on, caller, ticket_id)
    return {"ticket_id": ticket.id, "version": ticket.version, **event_values(on, caller, (draft,), on.clock())}
