"""Rating how a ticket was resolved, and reading it."""

from uuid import UUID

from server.db import statements
from server.domain import feedback
from server.domain.callers import Caller
from server.domain.feedback import HIGHEST, LOWEST, MAX_REMARK, Feedback, Opinion
from server.domain.validation import Fields
from server.errors import FeedbackNotFound
from server.usecases.collaborators import Collaborators
from server.usecases.contention import settle
from server.usecases.masking import as_json, masked
from server.usecases.recording import event_values
from server.usecases.tickets import read_ticket


async def rate_ticket(
    on: Collaborators, caller: Caller, *, ticket_id: str, rating: int, remark: str | None
) -> Feedback:
    """The ticket's feedback as it is then; unchanged where it said the same already.

    Raises:
        InvalidFields: a field is bad.
        TicketNotFound: there is no such ticket for this caller.
        TicketNotRatable: the ticket is open or in progress.
        FeedbackFinal: this resolution was rated too long ago.
    """
    fields = Fields()
    wanted = fields.uuid("ticket_id", ticket_id)
    stars = fields.whole_number("rating", rating, LOWEST, HIGHEST)
    words = None if remark is None else fields.text("remark", remark, MAX_REMARK)
    fields.check()
    opinion = await _as_stored(stars, words)

    async def attempt() -> Feedback | None:
        ticket = await read_ticket(on, caller, wanted)
        given = await _read(on, wanted)
        now = on.clock()
        new = feedback.rate(ticket, given, opinion, on.feedback_changeable_for, now)
        if new is None:
            return given
        values = {"version": ticket.version, **_feedback_values(new, given)}
        values |= event_values(on, caller, [feedback.rated(new)], now)
        return await on.db.fetch_one(statements.RATE_TICKET, values, Feedback._make)

    return await settle(attempt)


async def _as_stored(rating: int, remark: str | None) -> Opinion:
    """The opinion with its remark masked. As it was written it is kept nowhere: nobody has to act on it."""
    if remark is None:
        return Opinion(rating)
    safe = await masked({"remark": remark})
    return Opinion(rating, safe.texts["remark"], safe.findings)


def _feedback_values(new: Feedback, given: Feedback | None) -> dict[str, object]:
    """The row as it is to be, and what the decision rests on of the row as it was read."""
    return {
        **new._asdict(),
        "findings": as_json(new.findings),
        "given_rating": given and given.rating,
        "given_remark": given and given.remark,
        "given_rated_at": given and given.rated_at,
    }


async def get_ticket_feedback(on: Collaborators, caller: Caller, ticket_id: str) -> Feedback:
    """What the ticket's owner said.

    Raises:
        InvalidFields: the id is malformed.
        TicketNotFound: there is no such ticket for this caller.
        FeedbackNotFound: it was not rated.
    """
    fields = Fields()
    wanted = fields.uuid("ticket_id", ticket_id)
    fields.check()
    await read_ticket(on, caller, wanted)
    found = await _read(on, wanted)
    if found is None:
        raise FeedbackNotFound(ticket_id=wanted)
    return found


async def _read(on: Collaborators, ticket_id: UUID) -> Feedback | None:
    return await on.db.fetch_one(statements.GET_FEEDBACK, {"ticket_id": ticket_id}, Feedback._make)
