"""The words of the unit tests: callers, tickets and what is done to them, each with defaults."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from hypothesis import strategies as st

from server.domain.callers import Caller, Role
from server.domain.events import EventDraft, HistoryEntry
from server.domain.lifecycle import Change
from server.domain.tickets import Ticket

NOW = datetime(2026, 3, 4, 5, 6, 7, 891_011, tzinfo=UTC)
OWNER = UUID("01990000-0000-7000-8000-00000000000a")
AGENT = UUID("01990000-0000-7000-8000-00000000000b")
SUPERVISOR = UUID("01990000-0000-7000-8000-00000000000c")

STATUSES = ("open", "in_progress", "resolved", "closed")
ROLES = ("customer", "restaurant", "driver", "support_agent", "support_supervisor", "service")

moments = st.datetimes(timezones=st.just(UTC))


def a_caller(role: str, id: UUID | None = None) -> Caller:  # noqa: A002
    """A caller with this role, a stranger to every ticket unless `id` says otherwise."""
    return Caller(id or uuid4(), Role(role))


def the_owner(role: str = "customer") -> Caller:
    """The user whose ticket `a_ticket` is."""
    return a_caller(role, OWNER)


def an_agent() -> Caller:
    """A support agent, always the same one."""
    return a_caller("support_agent", AGENT)


def a_supervisor() -> Caller:
    """A supervisor, always the same one."""
    return a_caller("support_supervisor", SUPERVISOR)


def a_ticket(**values: Any) -> Ticket:  # noqa: ANN401
    """An open ticket of the owner, with other `values` where given; one that is resolved has its time."""
    ticket = Ticket(
        id=UUID("01990000-0000-7000-8000-000000000001"),
        user_id=OWNER,
        order_id=None,
        subject="Cold soup",
        description="The soup came cold.",
        status="open",
        priority="medium",
        assigned_to=None,
        resolved_at=None,
        resolution_notes=None,
        created_at=NOW - timedelta(days=1),
        updated_at=NOW - timedelta(days=1),
        version=1,
    )
    if values.get("status") == "resolved":
        ticket = ticket._replace(resolved_at=NOW - timedelta(hours=2), resolution_notes="Refunded.")
    return ticket._replace(**values)


def an_entry(**values: Any) -> HistoryEntry:  # noqa: ANN401
    """The entry of a creation, with other `values` where given."""
    entry = HistoryEntry(
        id=UUID("01990000-0000-7000-8000-0000000000e1"),
        ticket_id=UUID("01990000-0000-7000-8000-000000000001"),
        position=1,
        sequence=1,
        change_id=UUID("01990000-0000-7000-8000-0000000000c1"),
        event_type="ticket_created",
        occurred_at=NOW,
        actor_id=OWNER,
        actor_role="customer",
        is_internal=False,
        from_status=None,
        to_status=None,
        assigned_to=None,
        previous_assignee=None,
        reason=None,
        comment_id=None,
        author_role=None,
        has_resolution_notes=None,
    )
    return entry._replace(**values)


def after(ticket: Ticket, change: Change | None, now: datetime) -> Ticket:
    """The ticket as the change leaves it, by the rule that every change is one version."""
    if change is None:
        return ticket
    return ticket._replace(
        status=change.status,
        assigned_to=change.assigned_to,
        resolved_at=change.resolved_at,
        resolution_notes=change.resolution_notes,
        updated_at=now,
        version=ticket.version + 1,
    )


def types_of(change: Change | None) -> list[str]:
    """The types of the events of a change, in order."""
    return [str(draft.event_type) for draft in change.events] if change else []


def said(draft: EventDraft) -> dict[str, object]:
    """What the draft of an event says, absent fields left out."""
    return {name: value for name, value in draft._asdict().items() if value is not None}
