"""The parameters that every write shares: who, when, and the drafts of its events as one array per field."""

from collections.abc import Sequence
from datetime import datetime

from server.domain import lifecycle
from server.domain.callers import Caller
from server.domain.events import EventDraft
from server.domain.lifecycle import Change
from server.domain.tickets import Status, Ticket
from server.usecases.collaborators import Collaborators


def event_values(on: Collaborators, caller: Caller, drafts: Sequence[EventDraft], now: datetime) -> dict[str, object]:
    """The events of one change: one `change_id` and one moment for all of them."""
    columns = zip(EventDraft._fields, zip(*drafts, strict=True), strict=True)
    return {
        "change_id": on.new_id(),
        "now": now,
        "actor_id": caller.id,
        "actor_role": caller.role,
        "draft_event_id": [on.new_id() for _ in drafts],
        **{f"draft_{name}": list(values) for name, values in columns},
    }


def ticket_values(ticket: Ticket, caller: Caller, change: Change | None, now: datetime) -> dict[str, object]:
    """The ticket as a write leaves it, and the version that the write rests on."""
    kept = Change(Status(ticket.status), ticket.assigned_to, ticket.resolved_at, ticket.resolution_notes, ())
    new = change or kept
    return {
        "ticket_id": ticket.id,
        "version": ticket.version,
        "new_status": new.status,
        "new_assigned_to": new.assigned_to,
        "new_resolved_at": new.resolved_at,
        "new_resolution_notes": new.resolution_notes,
        "new_updated_at": now if change else ticket.updated_at,
        "new_version": ticket.version + 1 if change else ticket.version,
        "attended": lifecycle.attends(ticket, caller, change),
    }
