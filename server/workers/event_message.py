"""A row of `ticket_events` as the CloudEvents message that Kafka carries (contract, section 7)."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

from google.protobuf.json_format import MessageToDict, ParseDict
from nibble.support.v1 import ticket_event_pb2

from server.domain.events import HistoryEntry

SOURCE = "/nibble/support"


class EventMessage(NamedTuple):
    """What is handed to Kafka: the key (the ticket's id), the value and the headers of CloudEvents' binary mode."""

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


def event_message(entry: HistoryEntry, ticket: Mapping[str, Any]) -> EventMessage:
    """The message for one event; `ticket` is its snapshot as the database stored it."""
    event = ticket_event_pb2.TicketEvent()
    ParseDict(_words(entry, ticket), event)
    content = MessageToDict(event, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return EventMessage(
        key=str(entry.ticket_id).encode(),
        value=json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(),
        headers=_headers(entry, content["occurred_at"]),
    )


def _words(entry: HistoryEntry, ticket: Mapping[str, Any]) -> dict[str, Any]:
    """The event in the proto's own JSON words; None is how proto JSON writes an absent field."""
    return {
        "event_id": str(entry.id),
        "event_type": entry.event_type,
        "ticket_id": str(entry.ticket_id),
        "sequence": entry.sequence,
        "change_id": str(entry.change_id),
        "occurred_at": entry.occurred_at.isoformat(),
        "actor": {"user_id": str(entry.actor_id), "role": entry.actor_role},
        "ticket": ticket,
        "from": entry.from_status,
        "to": entry.to_status,
        "assigned_to": _text(entry.assigned_to),
        "previous_assignee": _text(entry.previous_assignee),
        "reason": entry.reason,
        "comment_id": _text(entry.comment_id),
        "author_role": entry.author_role,
        "has_resolution_notes": entry.has_resolution_notes,
    }


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)


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
