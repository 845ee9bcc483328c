"""What Kafka carries, held against section 7 of the contract, byte for byte."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from hypothesis import given
from hypothesis import strategies as st
from nibble.support.v1 import ticket_event_pb2

from server.domain.events import EventType, HistoryEntry, Reason
from server.domain.tickets import Priority, Status
from server.workers.event_message import SNAPSHOT_FIELDS, event_message
from tests.unit.vocabulary import AGENT, OWNER, ROLES, an_entry, moments

TICKET_ID = "01990000-0000-7000-8000-000000000001"
# As `jsonb_build_object` writes a row: every column of the snapshot, absent ones null.
SNAPSHOT: dict[str, Any] = {
    "id": TICKET_ID,
    "user_id": str(OWNER),
    "order_id": None,
    "subject": "Cold soup",
    "status": "open",
    "priority": "medium",
    "assigned_to": None,
    "resolved_at": None,
    "created_at": "2026-03-04T05:06:07.891011+00:00",
    "updated_at": "2026-03-04T05:06:07.891011+00:00",
    "version": 1,
}
TICKET = {
    "id": TICKET_ID,
    "user_id": str(OWNER),
    "subject": "Cold soup",
    "status": "open",
    "priority": "medium",
    "created_at": "2026-03-04T05:06:07.891011Z",
    "updated_at": "2026-03-04T05:06:07.891011Z",
    "version": 1,
}
CREATED = {
    "event_id": "01990000-0000-7000-8000-0000000000e1",
    "event_type": "ticket_created",
    "ticket_id": TICKET_ID,
    "sequence": 1,
    "change_id": "01990000-0000-7000-8000-0000000000c1",
    "occurred_at": "2026-03-04T05:06:07.891011Z",
    "actor": {"user_id": str(OWNER), "role": "customer"},
    "ticket": TICKET,
}


def content(entry: HistoryEntry, **ticket: object) -> dict[str, Any]:
    """The value of the message, parsed."""
    parsed = json.loads(event_message(entry, SNAPSHOT | ticket).value)
    assert isinstance(parsed, dict)
    return parsed


def added(entry: HistoryEntry) -> dict[str, Any]:
    """What the event says beside what every event says."""
    return {name: value for name, value in content(entry).items() if name not in CREATED}


def test_the_key_is_the_tickets_id() -> None:
    assert event_message(an_entry(), SNAPSHOT).key == TICKET_ID.encode()


def test_the_headers_are_those_of_cloudevents_in_binary_mode() -> None:
    assert sorted(event_message(an_entry(), SNAPSHOT).headers) == [
        ("ce_id", b"01990000-0000-7000-8000-0000000000e1"),
        ("ce_source", b"/nibble/support"),
        ("ce_specversion", b"1.0"),
        ("ce_subject", TICKET_ID.encode()),
        ("ce_time", b"2026-03-04T05:06:07.891011Z"),
        ("ce_type", b"ticket_created"),
        ("content-type", b"application/json"),
    ]


def test_a_creation_says_what_every_event_says_and_leaves_out_what_is_absent() -> None:
    assert content(an_entry()) == CREATED


def test_zero_and_false_are_said() -> None:
    entry = an_entry(event_type="ticket_resolved", has_resolution_notes=False)
    assert added(entry) == {"has_resolution_notes": False}


def test_an_assignment_adds_the_assignee_the_one_before_and_the_reason() -> None:
    entry = an_entry(
        event_type="ticket_assigned", assigned_to=AGENT, previous_assignee=OWNER, reason="by_supervisor", sequence=2
    )
    assert added(entry) == {
        "assigned_to": str(AGENT),
        "previous_assignee": str(OWNER),
        "reason": "by_supervisor",
    }


def test_a_change_of_status_adds_from_to_and_reason() -> None:
    entry = an_entry(
        event_type="ticket_status_changed", from_status="open", to_status="in_progress", reason="assignment"
    )
    assert added(entry) == {"from": "open", "to": "in_progress", "reason": "assignment"}


def test_a_comment_adds_its_id_and_its_authors_role() -> None:
    comment = UUID("01990000-0000-7000-8000-0000000000d1")
    entry = an_entry(event_type="ticket_commented", comment_id=comment, author_role="driver")
    assert added(entry) == {"comment_id": str(comment), "author_role": "driver"}


@pytest.mark.parametrize("reason", ["by_owner", "by_staff", "auto"])
def test_a_closing_adds_its_reason(reason: str) -> None:
    assert added(an_entry(event_type="ticket_closed", reason=reason)) == {"reason": reason}


def test_the_optionals_of_the_ticket_are_there_when_they_are_set() -> None:
    ticket = content(an_entry(), order_id=str(OWNER), assigned_to=str(AGENT), resolved_at="2026-03-04T05:06:07+00:00")[
        "ticket"
    ]
    assert ticket == TICKET | {
        "order_id": str(OWNER),
        "assigned_to": str(AGENT),
        "resolved_at": "2026-03-04T05:06:07Z",
    }


def test_the_subject_is_written_as_text_and_not_escaped() -> None:
    message = event_message(an_entry(), SNAPSHOT | {"subject": "Суп 🍜 «froid»"})
    assert "Суп 🍜 «froid»".encode() in message.value


def test_times_are_written_the_same_in_value_and_header_whatever_their_fraction() -> None:
    entry = an_entry(occurred_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    message = event_message(entry, SNAPSHOT)
    assert dict(message.headers)["ce_time"] == b"2026-01-02T03:04:05Z"
    assert content(entry)["occurred_at"] == "2026-01-02T03:04:05Z"


# --- What is written by hand is what proto JSON would write -----------------------------------------------------------

ids = st.uuids()
texts = st.text(st.characters(codec="utf-8"), min_size=1)


def word(words: Any) -> st.SearchStrategy[str]:  # noqa: ANN401 - an enum or a tuple
    """One of the words of a column."""
    return st.sampled_from([str(each) for each in words])


def absent(column: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A column that may be null."""
    return st.none() | column


entries = st.builds(
    HistoryEntry,
    id=ids,
    ticket_id=ids,
    position=st.just(1),
    sequence=st.integers(1, 2**31 - 1),
    change_id=ids,
    event_type=word(EventType),
    occurred_at=moments,
    actor_id=ids,
    actor_role=word(ROLES),
    is_internal=st.just(False),
    from_status=absent(word(Status)),
    to_status=absent(word(Status)),
    assigned_to=absent(ids),
    previous_assignee=absent(ids),
    reason=absent(word(Reason)),
    comment_id=absent(ids),
    author_role=absent(word(ROLES)),
    has_resolution_notes=absent(st.booleans()),
    rating=absent(st.integers(1, 5)),
    erased_user_id=absent(ids),
)
times = moments.map(lambda moment: moment.isoformat())
snapshots = st.fixed_dictionaries(
    {
        "id": ids.map(str),
        "user_id": ids.map(str),
        "order_id": absent(ids.map(str)),
        "subject": texts,
        "status": word(Status),
        "priority": word(Priority),
        "assigned_to": absent(ids.map(str)),
        "resolved_at": absent(times),
        "created_at": times,
        "updated_at": times,
        "version": st.integers(1, 2**31 - 1),
        "flagged_at": absent(times),
    }
)


@given(entries, snapshots)
def test_the_value_is_the_json_of_the_proto_to_the_byte(entry: HistoryEntry, ticket: dict[str, Any]) -> None:
    value = event_message(entry, ticket).value
    event = ParseDict(json.loads(value), ticket_event_pb2.TicketEvent())
    by_protobuf = MessageToDict(event, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    assert value == json.dumps(by_protobuf, ensure_ascii=False, separators=(",", ":")).encode()
    assert event.occurred_at.ToDatetime(UTC) == entry.occurred_at
    assert event.ticket.created_at.ToDatetime(UTC) == datetime.fromisoformat(ticket["created_at"])
    assert event.ticket.subject == ticket["subject"]


def test_the_snapshot_has_the_fields_of_the_proto() -> None:
    fields = ticket_event_pb2.TicketSnapshot.DESCRIPTOR.fields_by_name
    assert list(fields) == list(SNAPSHOT_FIELDS)


@pytest.mark.parametrize(
    ("stored", "sent"), [("", ""), (".5", ".500"), (".89", ".890"), (".8910", ".891"), (".891011", ".891011")]
)
def test_a_time_of_the_snapshot_has_the_digits_of_proto_json_whatever_the_database_wrote(
    stored: str, sent: str
) -> None:
    ticket = content(an_entry(), updated_at=f"2026-03-04T05:06:07{stored}+00:00")["ticket"]
    assert ticket["updated_at"] == f"2026-03-04T05:06:07{sent}Z"


@pytest.mark.parametrize("private", ["description", "resolution_notes", "findings"])
def test_an_event_has_no_room_for_the_long_texts(private: str) -> None:
    with pytest.raises(ValueError, match=private):
        event_message(an_entry(), SNAPSHOT | {private: "secret"})
