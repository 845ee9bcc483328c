"""Creating, reading, assigning and moving tickets."""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from server.db import statements
from server.db.statement import Statement
from server.domain import lifecycle, permissions
from server.domain.callers import Caller
from server.domain.events import EventDraft, EventType
from server.domain.lifecycle import Change
from server.domain.tickets import Priority, Status, Ticket
from server.domain.validation import MAX_SUBJECT, MAX_TEXT, Fields
from server.usecases.collaborators import Collaborators
from server.usecases.contention import settle
from server.usecases.idempotency import Claim, claim, claim_values, find_earlier
from server.usecases.masking import Masked, masked
from server.usecases.recording import event_values, ticket_values

_CREATED = (EventDraft(EventType.TICKET_CREATED),)


async def create_ticket(
    on: Collaborators,
    caller: Caller,
    *,
    subject: str,
    description: str,
    order_id: str | None,
    priority: str | None,
    user_id: str | None,
    idempotency_key: str | None,
) -> Ticket:
    """A new open ticket; `priority` None means medium, `user_id` None the caller.

    With an idempotency key that came before, the ticket that it created, as it was then.

    Raises:
        InvalidFields: any of the fields is bad.
        ActionNotAllowed: a user named another user.
        IdempotencyKeyReused: the key came before with another payload.
    """
    fields = Fields()
    texts = {
        "subject": fields.text("subject", subject, MAX_SUBJECT),
        "description": fields.text("description", description, MAX_TEXT),
    }
    ticket: dict[str, object] = {
        **texts,
        "order_id": None if order_id is None else fields.uuid("order_id", order_id),
        "priority": fields.choice("priority", priority or Priority.MEDIUM, Priority),
    }
    owner = caller.id if user_id is None else fields.uuid("user_id", user_id)
    key = fields.idempotency_key(idempotency_key)
    fields.check()
    permissions.require_owner_choice(caller, owner)
    # What was sent is compared: masked, two PINs look the same.
    claimed = claim("CreateTicket", key, sorted({**ticket, "user_id": owner}.items()))
    safe = await masked(texts)
    return await _insert(on, caller, {**ticket, "user_id": owner, **safe.values()}, claimed)


async def _insert(on: Collaborators, caller: Caller, ticket: dict[str, object], claimed: Claim | None) -> Ticket:
    now = on.clock()
    values = {"ticket_id": on.new_id(), **ticket, **event_values(on, caller, _CREATED, now)}
    if claimed is None:
        return await _written(on, statements.CREATE_TICKET, values)

    async def attempt() -> Ticket | None:
        keyed = values | claim_values(on, claimed, now)
        created = await on.db.fetch_one(statements.CREATE_TICKET_ONCE, keyed, Ticket._make)
        earlier = None if created else await find_earlier(on, caller, claimed, now)
        return created if earlier is None else (await read_ticket(on, caller, earlier)).as_created()

    # The key can be gone again between the two looks at it: its holder was rolled back, or it expired.
    return await settle(attempt)


async def _written(on: Collaborators, statement: Statement, values: dict[str, object]) -> Ticket:
    (ticket,) = await on.db.fetch_all(statement, values, Ticket._make)
    return ticket


async def get_ticket(on: Collaborators, caller: Caller, ticket_id: str) -> Ticket:
    """One ticket.

    Raises:
        InvalidFields: the id is malformed.
        TicketNotFound: there is no such ticket for this caller.
    """
    fields = Fields()
    wanted = fields.uuid("ticket_id", ticket_id)
    fields.check()
    return await read_ticket(on, caller, wanted)


async def read_ticket(on: Collaborators, caller: Caller, ticket_id: UUID) -> Ticket:
    """The ticket as it is now, for those who may see it.

    Raises:
        TicketNotFound: there is no such ticket for this caller.
    """
    found = await on.db.fetch_one(statements.GET_TICKET, {"ticket_id": ticket_id}, Ticket._make)
    return permissions.require_sight(caller, found, ticket_id)


async def update_ticket_status(
    on: Collaborators,
    caller: Caller,
    *,
    ticket_id: str,
    status: str | None,
    resolution_notes: str | None,
    expected_version: int | None,
) -> Ticket:
    """The ticket in its new status; unchanged where it had that status already.

    Raises:
        InvalidFields: a field is bad, or notes come with a status other than resolved.
        TicketNotFound: there is no such ticket for this caller.
        ActionNotAllowed: a user asked for another status than closed.
        VersionMismatch: the ticket is at another version than expected.
        IllegalTransition: the state machine has no such step.
    """
    fields = Fields()
    wanted_id = fields.uuid("ticket_id", ticket_id)
    wanted = fields.choice("status", status, Status)
    notes = _notes(fields, status, resolution_notes)
    version = fields.expected_version(expected_version)
    fields.check()
    safe = await masked({} if notes is None else {"resolution_notes": notes})

    def decide(ticket: Ticket, now: datetime) -> Change | None:
        permissions.require_status_change(caller, wanted)
        lifecycle.expect_version(ticket, version)
        return lifecycle.change_status(ticket, wanted, safe.texts.get("resolution_notes"), caller, now)

    return await _change(on, caller, wanted_id, decide, safe)


def _notes(fields: Fields, status: str | None, notes: str | None) -> str | None:
    if notes is None:
        return None
    # Where the status itself is bad, nothing can be said about what goes with it.
    if status not in (None, Status.RESOLVED):
        fields.refuse("resolution_notes", "goes with the status resolved only")
    return fields.text("resolution_notes", notes, MAX_TEXT)


async def assign_ticket(
    on: Collaborators, caller: Caller, *, ticket_id: str, assigned_to: str, expected_version: int | None
) -> Ticket:
    """The ticket with its new assignee, in progress; unchanged where it was theirs already.

    Raises:
        InvalidFields: a field is bad.
        TicketNotFound: there is no such ticket.
        ActionNotAllowed: an agent named somebody else.
        VersionMismatch: the ticket is at another version than expected.
        TicketNotAssignable: the ticket is resolved or closed.
        AgentAtCapacity, AgentNotActive: the new assignee is on the roster, which says so.
    """
    fields = Fields()
    wanted_id = fields.uuid("ticket_id", ticket_id)
    assignee = fields.uuid("assigned_to", assigned_to)
    version = fields.expected_version(expected_version)
    fields.check()

    def decide(ticket: Ticket, _now: datetime) -> Change | None:
        permissions.require_assignment(caller, assignee)
        lifecycle.expect_version(ticket, version)
        return lifecycle.assign(ticket, assignee, lifecycle.assigned_by(caller, assignee))

    return await _change(on, caller, wanted_id, decide)


async def _change(
    on: Collaborators,
    caller: Caller,
    ticket_id: UUID,
    decide: Callable[[Ticket, datetime], Change | None],
    notes: Masked | None = None,
) -> Ticket:
    async def attempt() -> Ticket | None:
        ticket = await read_ticket(on, caller, ticket_id)
        now = on.clock()
        change = decide(ticket, now)
        return ticket if change is None else await write_change(on, caller, ticket, change, now, notes)

    return await settle(attempt)


async def write_change(
    on: Collaborators, caller: Caller, ticket: Ticket, change: Change, now: datetime, notes: Masked | None = None
) -> Ticket | None:
    """The ticket as changed, or None where others have changed it since it was read.

    Args:
        notes: those of a resolution, which take the place of earlier ones; without it no originals are touched.

    Raises:
        AgentAtCapacity, AgentNotActive: the change gives it to somebody of whom the roster says so.
    """
    values = ticket_values(ticket, caller, change, now) | event_values(on, caller, change.events, now)
    if notes is None or change.status is not Status.RESOLVED:
        kept = change.assigned_to == ticket.assigned_to
        return await on.db.fetch_one(
            statements.CHANGE_TICKET if kept else statements.ASSIGN_TICKET, values, Ticket._make
        )
    values |= notes.after(ticket.findings_at_creation()).values()
    return await on.db.fetch_one(statements.RESOLVE_TICKET, values, Ticket._make)
