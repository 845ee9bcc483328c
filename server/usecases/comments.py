"""Commenting: public answers and internal notes."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from server.db import statements
from server.domain import lifecycle, permissions
from server.domain.callers import Caller
from server.domain.events import EventDraft, EventType
from server.domain.lifecycle import Change
from server.domain.tickets import Comment, Ticket
from server.domain.validation import MAX_TEXT, Fields
from server.usecases.collaborators import Collaborators
from server.usecases.contention import settle
from server.usecases.idempotency import Claim, claim, claim_values, find_earlier
from server.usecases.masking import Masked, masked
from server.usecases.recording import event_values, ticket_values
from server.usecases.tickets import read_ticket


class _NewComment(NamedTuple):
    ticket_id: UUID
    text: Masked
    is_internal: bool


async def add_comment(
    on: Collaborators,
    caller: Caller,
    *,
    ticket_id: str,
    comment: str,
    is_internal: bool,
    idempotency_key: str | None,
) -> Comment:
    """A new comment; a user's public one on a resolved ticket reopens it, unless that is switched off.

    With an idempotency key that came before, the comment that it created, whatever the ticket's status is now.

    Raises:
        InvalidFields: any of the fields is bad.
        TicketNotFound: there is no such ticket for this caller.
        ActionNotAllowed: a user asked for an internal note.
        TicketClosed: the ticket is closed and the comment is public.
        IdempotencyKeyReused: the key came before with another payload.
    """
    fields = Fields()
    wanted = fields.uuid("ticket_id", ticket_id)
    text = fields.text("comment", comment, MAX_TEXT)
    key = fields.idempotency_key(idempotency_key)
    fields.check()
    # What was sent is compared: masked, two PINs look the same.
    claimed = claim("AddComment", key, wanted, text, is_internal)
    new = _NewComment(wanted, await masked({"comment": text}), is_internal)

    async def attempt() -> Comment | None:
        now = on.clock()
        ticket = await read_ticket(on, caller, new.ticket_id)
        permissions.require_internal_note(caller, is_internal=is_internal)
        earlier = await find_earlier(on, caller, claimed, now)
        if earlier is not None:
            return await on.db.fetch_one(statements.GET_COMMENT, {"comment_id": earlier}, Comment._make)
        return await _insert(on, caller, ticket, new, claimed, now)

    return await settle(attempt)


async def _insert(
    on: Collaborators, caller: Caller, ticket: Ticket, new: _NewComment, claimed: Claim | None, now: datetime
) -> Comment | None:
    change = lifecycle.comment(ticket, caller, is_internal=new.is_internal, reopens=on.reopen_on_comment, now=now)
    comment_id = on.new_id()
    values = {
        "comment_id": comment_id,
        **new.text.values(),
        "is_internal": new.is_internal,
        **ticket_values(ticket, caller, change, now),
        **event_values(on, caller, _events(caller, comment_id, change), now),
    }
    if claimed is None:
        return await on.db.fetch_one(statements.ADD_COMMENT, values, Comment._make)
    keyed = values | claim_values(on, claimed, now)
    return await on.db.fetch_one(statements.ADD_COMMENT_ONCE, keyed, Comment._make)


def _events(caller: Caller, comment_id: UUID, change: Change | None) -> Sequence[EventDraft]:
    commented = EventDraft(EventType.TICKET_COMMENTED, comment_id=comment_id, author_role=caller.role)
    return commented, *(change.events if change else ())
