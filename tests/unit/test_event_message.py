"""What Kafka carries, held against section 7 of the contract, byte for byte."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.json_format import ParseError

from server.domain.events import HistoryEntry
from server.workers.event_message import event_message
from tests.unit.vocabulary import AGENT, OWNER, an_entry

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


@pytest.mark.parametrize("private", ["description", "resolution_notes"])
def test_an_event_has_no_room_for_the_long_texts(private: str) -> None:
    with pytest.raises(ParseError, match=private):
        event_message(an_entry(), SNAPSHOT | {private: "secret"})
