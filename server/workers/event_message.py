"""A row of `ticket_events` as the CloudEvents message that Kafka carries (contract, section 7)."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from server.domain.events import HistoryEntry

SOURCE = "/nibble/support"
# What `nibble.support.v1.TicketSnapshot` has, in its order; a snapshot with more than that is no event's.
SNAPSHOT_FIELDS = (
    "id", "user_id", "order_id", "subject", "status", "priority", "assigned_to", "resolved_at", "created_at",
    "updated_at", "version", "flagged_at",
)  # fmt: skip
_TIMES = ("resolved_at", "created_at", "updated_at", "flagged_at")


class EventMessage(NamedTuple):
    """What is handed to Kafka: the key (the ticket's id), the value and the headers of CloudEvents' binary mode."""

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


def event_message(entry: HistoryEntry, ticket: Mapping[str, Any]) -> EventMessage:
    """The message for one event; `ticket` is its snapshot as the database stored it.

    The value is what proto JSON makes of a `nibble.support.v1.TicketEvent`, to the byte, which a test holds. It is
    written without the message in between: that would take five times as long, most of what an event costs.

    Raises:
        ValueError: the snapshot has a field that an event must not carry.
    """
    content = _content(entry, ticket)
    return EventMessage(
        key=str(entry.ticket_id).encode(),
        value=json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(),
        headers=_headers(entry, content["occurred_at"]),
    )


def _content(entry: HistoryEntry, ticket: Mapping[str, Any]) -> dict[str, Any]:
    """The event in the order of the proto's fields."""
    always = {
        "event_id": str(entry.id),
        "event_type": entry.event_type,
        "ticket_id": str(entry.ticket_id),
        "sequence": entry.sequence,
        "change_id": str(entry.change_id),
        "occurred_at": _time(entry.occurred_at),
        "actor": {"user_id": str(entry.actor_id), "role": entry.actor_role},
        "ticket": _snapshot(ticket),
    }
    added = {
        "from": entry.from_status,
        "to": entry.to_status,
        "assigned_to": entry.assigned_to and str(entry.assigned_to),
        "previous_assignee": entry.previous_assignee and str(entry.previous_assignee),
        "reason": entry.reason,
        "comment_id": entry.comment_id and str(entry.comment_id),
        "author_role": entry.author_role,
        "has_resolution_notes": entry.has_resolution_notes,
        "rating": entry.rating,
        "erased_user_id": entry.erased_user_id and str(entry.erased_user_id),
    }
    return always | _present(added)


def _snapshot(ticket: Mapping[str, Any]) -> dict[str, Any]:
    if odd := ticket.keys() - set(SNAPSHOT_FIELDS):
        raise ValueError(f"no event may carry {', '.join(sorted(odd))}")
    times = {name: _time(datetime.fromisoformat(ticket[name])) for name in _TIMES if ticket.get(name) is not None}
    return _present({name: times.get(name, ticket.get(name)) for name in SNAPSHOT_FIELDS})


def _present(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _time(moment: datetime) -> str:
    """RFC 3339 as proto JSON writes it: UTC, with no fraction, or with three or six digits of it."""
    utc = moment.astimezone(UTC).replace(tzinfo=None)
    digits = "seconds" if not utc.microsecond else "microseconds" if utc.microsecond % 1000 else "milliseconds"
    return f"{utc.isoformat(timespec=digits)}Z"


def _headers(entry: HistoryEntry, time: str) -> list[tuple[str, bytes]]:
    headers = {
        "ce_specversion": "1.0",
        "ce_id": str(entry.id),
        "ce_type": entry.event_type,
        "ce_source": SOURCE,
        "ce_subject": str(entry.ticket_id),
        "ce_time": time,
        "content-type": "application/json",
    }
    return [(name, value.encode()) for name, value in headers.items()]
