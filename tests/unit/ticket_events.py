"""Ticket events and the records that carry them, each with defaults."""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.unit.vocabulary import OWNER


def an_event(ticket_id: str | None = None, sequence: int = 1, **values: Any) -> dict[str, Any]:  # noqa: ANN401
    """The JSON of a comment's event, with other `values` where given; None takes a field away."""
    ticket_id = ticket_id or str(uuid.uuid4())
    event: dict[str, Any] = {
        "event_id": str(uuid.uuid4()),
        "event_type": "ticket_commented",
        "ticket_id": ticket_id,
        "sequence": sequence,
        "change_id": str(uuid.uuid4()),
        "occurred_at": "2026-03-04T05:06:07.891011Z",
        "actor": {"user_id": str(OWNER), "role": "customer"},
        "ticket": {
            "id": ticket_id,
            "user_id": str(OWNER),
            "subject": "Cold soup",
            "status": "open",
            "priority": "medium",
            "created_at": "2026-03-04T05:06:07.891011Z",
            "updated_at": "2026-03-04T05:06:07.891011Z",
            "version": 1,
        },
        "comment_id": str(uuid.uuid4()),
        "author_role": "customer",
    }
    return {name: value for name, value in (event | values).items() if value is not None}


def headers_of(event: dict[str, Any]) -> list[tuple[str, bytes]]:
    """The headers that repeat fields of the event, as far as it has them."""
    names = {"ce_id": "event_id", "ce_type": "event_type", "ce_subject": "ticket_id"}
    return [(header, str(event[field]).encode()) for header, field in names.items() if field in event]


@dataclass
class ARecord:
    """A record as Kafka's client gives it."""

    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes | None]] = ()
    topic: str = "support.ticket-events.v1"
    partition: int = 0
    offset: int = 0
    timestamp: int = 0


def a_record(event: dict[str, Any], **values: Any) -> ARecord:  # noqa: ANN401
    """The record of an event, as the relay sends it."""
    key = str(event.get("ticket_id")).encode()
    return ARecord(**{"value": json.dumps(event).encode(), "key": key, "headers": headers_of(event), **values})
