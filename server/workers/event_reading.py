"""A record of the topic read as an event: what `event_message` writes, held against what the contract says of it."""

import json
import re
from collections.abc import Sequence
from typing import Any, Protocol

from google.protobuf.json_format import ParseDict, ParseError
from nibble.support.v1.ticket_event_pb2 import TicketEvent

from server.domain.validation import is_uuid
from server.workers.unread_records import NotRead

_TYPES = {value.name: value.number for value in TicketEvent.Type.DESCRIPTOR.values}
_FIELD_OF_ERROR = re.compile(r"Failed to parse (\w+) field")
# Which header of CloudEvents repeats which field.
_REPEATED = {"ce_id": "event_id", "ce_type": "event_type", "ce_subject": "ticket_id"}


class Record(Protocol):
    """What Kafka's client gives: where the record stands, when it was sent (in milliseconds), and its content."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class Unreadable(Exception):
    """The record is no event. The message says why, and quotes nothing of the record."""


def read_event(record: Record) -> TicketEvent | None:
    """The event in the record, or None for one of a type that this version does not know.

    Later versions of the support service may send other types and more fields; neither does harm.

    Raises:
        Unreadable: the record is no event at all, or its key or headers tell of another one.
    """
    content = _content(record)
    event_type = content.get("event_type")
    if isinstance(event_type, str | int) and event_type and event_type not in {*_TYPES, *_TYPES.values()}:
        return None
    event = _parsed(content)
    _check(event)
    _check_surroundings(event, record)
    return event


def _content(record: Record) -> dict[str, Any]:
    if isinstance(record.value, NotRead):
        raise Unreadable(record.value.why)
    if record.value is None:
        raise Unreadable("the record has no value")
    try:
        content = json.loads(record.value)
    except (ValueError, RecursionError) as error:
        raise Unreadable("the value is not JSON") from error
    if not isinstance(content, dict):
        raise Unreadable("the value is not a JSON object")
    return content


def _parsed(content: dict[str, Any]) -> TicketEvent:
    try:
        return ParseDict(content, TicketEvent(), ignore_unknown_fields=True)
    except (ParseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        # The message quotes what it could not parse; the name of the field is ours.
        field = _FIELD_OF_ERROR.match(str(error))
        raise Unreadable(f"the value is no TicketEvent{f' (at {field[1]})' if field else ''}") from error


def _check(event: TicketEvent) -> None:
    if not event.event_type:
        raise Unreadable("event_type is missing")
    ids = {
        "event_id": event.event_id,
        "ticket_id": event.ticket_id,
        "change_id": event.change_id,
        "actor.user_id": event.actor.user_id,
        "ticket.user_id": event.ticket.user_id,
    }
    for name, text in ids.items():
        if not is_uuid(text):
            raise Unreadable(f"{name} is {'no UUID' if text else 'missing'}")
    if event.sequence < 1:
        raise Unreadable("sequence is missing or below 1")
    if not event.HasField("occurred_at"):
        raise Unreadable("occurred_at is missing")
    if event.ticket.id != event.ticket_id:
        raise Unreadable("the ticket is not the one that ticket_id names")


def _check_surroundings(event: TicketEvent, record: Record) -> None:
    """The key and the headers, where there are any, repeat fields of the event."""
    if record.key is not None and record.key != event.ticket_id.encode():
        raise Unreadable("the key is not the ticket_id")
    said = {
        "event_id": event.event_id,
        "event_type": TicketEvent.Type.Name(event.event_type),
        "ticket_id": event.ticket_id,
    }
    for header, value in record.headers:
        field = _REPEATED.get(header)
        if field is not None and value != said[field].encode():
            raise Unreadable(f"the header {header} is not the {field}")
