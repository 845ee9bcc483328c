"""What a consumer takes for an event: all that the relay sends, later versions' too, and nothing else."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.workers.event_message import event_message
from server.workers.event_reading import Unreadable, read_event
from tests.unit.test_event_message import SNAPSHOT
from tests.unit.ticket_events import ARecord, a_record, an_event
from tests.unit.vocabulary import an_entry

TEXT = "The soup was cold"


def test_what_the_relay_sends_is_read_as_it_was() -> None:
    message = event_message(an_entry(), SNAPSHOT)
    event = read_event(ARecord(message.value, message.key, message.headers))
    assert event is not None
    assert (event.event_id, event.sequence, event.ticket.subject) == (str(an_entry().id), 1, "Cold soup")


def test_a_record_without_headers_and_key_is_read_by_its_value() -> None:
    assert read_event(a_record(an_event(), key=None, headers=[])) is not None


def test_fields_and_headers_of_a_later_version_do_no_harm() -> None:
    event = an_event(mood="sour")
    event["ticket"]["status"] = "escalated"
    read = read_event(a_record(event, headers=[("ce_mood", b"sour"), ("ce_time", None)]))
    assert read is not None
    assert read.ticket.status == 0


@pytest.mark.parametrize("event_type", ["ticket_escalated", 99])
def test_an_event_of_a_later_version_is_passed_over_whatever_else_it_holds(event_type: str | int) -> None:
    assert read_event(a_record(an_event(event_type=event_type, ticket=None) | {"sequence": "many"})) is None


BAD_VALUES: dict[str, bytes | None] = {
    "the record has no value": None,
    "the value is not JSON": b"\xff\xfe" + TEXT.encode(),
    "the value is not JSON ": b"",
    "the value is not JSON  ": b"[" * 100_000,
    "the value is not a JSON object": json.dumps([TEXT]).encode(),
}


@pytest.mark.parametrize("reason", BAD_VALUES)
def test_a_value_that_is_no_object_is_named_so(reason: str) -> None:
    with pytest.raises(Unreadable, match=f"^{reason.strip()}$"):
        read_event(ARecord(BAD_VALUES[reason]))


BAD_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"event_type": None}, "event_type is missing"),
    ({"event_type": "type_unspecified"}, "event_type is missing"),
    ({"event_type": [TEXT]}, r"the value is no TicketEvent \(at event_type\)"),
    ({"event_id": None}, "event_id is missing"),
    ({"event_id": TEXT}, "event_id is no UUID"),
    ({"event_id": {"a": TEXT}}, r"the value is no TicketEvent \(at event_id\)"),
    ({"ticket_id": "0" * 32}, "ticket_id is no UUID"),
    ({"change_id": "{}"}, "change_id is no UUID"),
    ({"actor": None}, "actor.user_id is missing"),
    ({"actor": {"user_id": TEXT}}, "actor.user_id is no UUID"),
    ({"ticket": None}, "ticket.user_id is missing"),
    ({"sequence": None}, "sequence is missing or below 1"),
    ({"sequence": -1}, "sequence is missing or below 1"),
    ({"sequence": TEXT}, r"the value is no TicketEvent \(at sequence\)"),
    ({"sequence": 2**40}, r"the value is no TicketEvent \(at sequence\)"),
    ({"occurred_at": None}, "occurred_at is missing"),
    ({"occurred_at": TEXT}, r"the value is no TicketEvent \(at occurred_at\)"),
    ({"from": {"a": TEXT}}, "the value is no TicketEvent"),
]


@pytest.mark.parametrize(("fields", "reason"), BAD_FIELDS)
def test_a_bad_field_is_named_and_not_quoted(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unreadable, match=f"^{reason}") as refusal:
        read_event(a_record({**an_event(), **fields} if None not in fields.values() else an_event(**fields)))
    assert TEXT not in str(refusal.value)


def test_the_ticket_must_be_the_one_that_is_named() -> None:
    with pytest.raises(Unreadable, match="not the one that ticket_id names"):
        read_event(a_record(an_event() | {"ticket": an_event()["ticket"]}))


@pytest.mark.parametrize("header", ["ce_id", "ce_type", "ce_subject"])
@pytest.mark.parametrize("value", [TEXT.encode(), b"", None])
def test_a_header_that_tells_of_another_event_is_believed_no_more_than_the_value(
    header: str, value: bytes | None
) -> None:
    event = an_event()
    with pytest.raises(Unreadable, match=f"^the header {header} is not the "):
        read_event(a_record(event, headers=[*a_record(event).headers, (header, value)]))


def test_a_key_of_another_ticket_is_refused() -> None:
    with pytest.raises(Unreadable, match=r"^the key is not the ticket_id$"):
        read_event(a_record(an_event(), key=b"another"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
fields = st.sampled_from([*sorted(an_event()), "from", "to", "reason", "assigned_to", "has_resolution_notes"])


@given(st.dictionaries(fields, json_values, max_size=3), st.booleans())
def test_no_content_of_a_field_gets_past_without_a_verdict(changes: dict[str, Any], in_ticket: bool) -> None:
    event = an_event()
    (event["ticket"] if in_ticket else event).update(changes)
    verdict(a_record(event))


@given(st.none() | st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_no_value_gets_past_without_a_verdict(value: bytes | None) -> None:
    verdict(ARecord(value))


def verdict(record: ARecord) -> None:
    """An event, a type passed over, or a refusal; any other exception is a failure."""
    try:
        event = read_event(record)
    except Unreadable:
        return
    assert event is None or (event.sequence >= 1 and event.ticket.id == event.ticket_id)
