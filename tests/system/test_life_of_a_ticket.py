"""One ticket's life over REST, as its history, its owner and Kafka tell it."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

import pytest

from tests.system.doors import Caller
from tests.system.stage import Stage
from tests.system.topic import Record
from tests.system.vocabulary import (
    as_agent,
    as_customer,
    as_supervisor,
    assign,
    comment,
    move,
    new_id,
    open_ticket,
)

# Each is looked for in every byte of the topic.
DESCRIPTION = "description-that-stays-in-the-database"
NOTES = "notes-that-stay-in-the-database"
PUBLIC = "public-comment-that-stays-in-the-database"
INTERNAL = "internal-note-that-stays-in-the-database"
REOPENING = "reopening-comment-that-stays-in-the-database"


class Life(NamedTuple):
    """A ticket that went from open to closed, and everybody who had a part in it."""

    owner: Caller
    agent: Caller
    boss: Caller
    created: dict[str, Any]
    closed: dict[str, Any]
    comment: dict[str, Any]
    note: dict[str, Any]
    reopening: dict[str, Any]


@pytest.fixture(scope="module")
def life(stage: Stage) -> Life:
    """Created, assigned, commented, noted, resolved, reopened by its owner's comment, resolved again, closed."""
    rest, owner, agent, boss = stage.rest, as_customer(), as_agent(), as_supervisor()
    created = open_ticket(rest, owner, subject="Cold soup", description=DESCRIPTION, order_id=new_id())
    assign(rest, boss, created, to=agent)
    written = comment(rest, agent, created, comment=PUBLIC)
    note = comment(rest, agent, created, comment=INTERNAL, is_internal=True)
    move(rest, agent, created, "resolved", resolution_notes=NOTES)
    reopening = comment(rest, owner, created, comment=REOPENING)
    move(rest, agent, created, "resolved")
    closed = move(rest, owner, created, "closed")
    return Life(owner, agent, boss, created, closed, written, note, reopening)


EVENTS: list[tuple[str, dict[str, Any]]] = [
    ("ticket_created", {}),
    ("ticket_assigned", {"assigned_to": "agent", "reason": "by_supervisor"}),
    ("ticket_status_changed", {"from": "open", "to": "in_progress", "reason": "assignment"}),
    ("ticket_commented", {"comment_id": "comment", "author_role": "support_agent"}),
    ("ticket_status_changed", {"from": "in_progress", "to": "resolved", "reason": "by_staff"}),
    ("ticket_resolved", {"has_resolution_notes": True}),
    ("ticket_commented", {"comment_id": "reopening", "author_role": "customer"}),
    ("ticket_status_changed", {"from": "resolved", "to": "in_progress", "reason": "comment"}),
    ("ticket_status_changed", {"from": "in_progress", "to": "resolved", "reason": "by_staff"}),
    ("ticket_resolved", {"has_resolution_notes": False}),
    ("ticket_status_changed", {"from": "resolved", "to": "closed", "reason": "by_owner"}),
    ("ticket_closed", {"reason": "by_owner"}),
]
"""The events of the life, with what each type adds."""

CHANGES = [1, 2, 1, 2, 2, 2, 2]
"""How many events each change has."""

ACTORS = ["owner", *["boss"] * 2, *["agent"] * 3, *["owner"] * 2, *["agent"] * 2, *["owner"] * 2]

ENVELOPE = {"event_id", "event_type", "ticket_id", "sequence", "change_id", "occurred_at", "actor", "ticket"}
PRIVATE = {"description", "resolution_notes", "sensitive_findings"}
SNAPSHOT = {"id", "user_id", "order_id", "subject", "status", "priority", "created_at", "updated_at", "version"}


def additions(life: Life) -> Iterator[tuple[str, dict[str, Any]]]:
    """EVENTS with the ids of this life."""
    ids = {"agent": life.agent.id, "comment": life.comment["id"], "reopening": life.reopening["id"]}
    for event_type, added in EVENTS:
        yield (
            event_type,
            {name: ids.get(value, value) if name.endswith(("_to", "_id")) else value for name, value in added.items()},
        )


def added_by(event: dict[str, Any], beside: set[str]) -> tuple[str, dict[str, Any]]:
    return event["event_type"], {name: value for name, value in event.items() if name not in beside}


@pytest.fixture(scope="module")
def records(stage: Stage, life: Life) -> list[Record]:
    return stage.topic.records_of(life.created["id"], len(EVENTS))


@pytest.fixture(scope="module")
def events(records: list[Record]) -> list[dict[str, Any]]:
    return [record.event for record in records]


@pytest.fixture(scope="module")
def history(stage: Stage, life: Life) -> list[dict[str, Any]]:
    """As staff see it."""
    entries: list[dict[str, Any]] = stage.rest.call(
        "ListTicketHistory", life.agent, ticket_id=life.created["id"], page_size=100
    ).resource["entries"]
    return entries


def test_kafka_tells_the_whole_life_in_order(life: Life, events: list[dict[str, Any]]) -> None:
    assert [added_by(event, ENVELOPE) for event in events] == list(additions(life))
    assert [event["sequence"] for event in events] == list(range(1, len(EVENTS) + 1))
    assert [event["actor"]["user_id"] for event in events] == [getattr(life, actor).id for actor in ACTORS]


def test_events_of_one_change_share_its_id_and_its_moment(events: list[dict[str, Any]]) -> None:
    by_change = [list(group) for _, group in groupby(events, lambda event: event["change_id"])]
    assert [len(change) for change in by_change] == CHANGES
    assert len({change[0]["change_id"] for change in by_change}) == len(CHANGES)
    for change in by_change:
        assert len({event["occurred_at"] for event in change}) == 1
        assert len({event["event_id"] for event in change}) == len(change)


def test_a_record_is_a_cloud_event_in_binary_mode(life: Life, records: list[Record]) -> None:
    for record in records:
        event = record.event
        assert record.key.decode() == life.created["id"] == event["ticket_id"]
        assert record.headers == {
            "ce_id": event["event_id"],
            "ce_type": event["event_type"],
            "ce_source": "/nibble/support",
            "ce_subject": life.created["id"],
            "ce_time": event["occurred_at"],
            "ce_specversion": "1.0",
            "content-type": "application/json",
        }


def test_the_records_of_a_ticket_lie_in_one_partition(records: list[Record]) -> None:
    assert len({record.partition for record in records}) == 1


def test_a_snapshot_shows_the_ticket_as_it_was_after_the_change(life: Life, events: list[dict[str, Any]]) -> None:
    snapshots = [event["ticket"] for event in events]
    for name in ("status", "version"):
        assert snapshots[0][name] == life.created[name]
    assert snapshots[0].keys() == SNAPSHOT
    assert snapshots[-1] == {name: value for name, value in life.closed.items() if name not in PRIVATE}
    assert [snapshot["version"] for snapshot in snapshots] == [1, 2, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]


def test_history_tells_the_same_story_with_the_internal_note_in_its_place(
    events: list[dict[str, Any]], history: list[dict[str, Any]]
) -> None:
    public = [entry for entry in history if not entry["is_internal"]]
    for entry, event in zip(public, events, strict=True):
        told = {name: value for name, value in event.items() if name != "ticket"}
        assert entry == {**told, "is_internal": False}

    (note,) = (entry for entry in history if entry["is_internal"])
    assert history.index(note) == 4
    assert note["event_type"] == "ticket_commented"
    assert "sequence" not in note


def test_the_owner_reads_the_history_without_the_internal_note(
    stage: Stage, life: Life, history: list[dict[str, Any]]
) -> None:
    seen = stage.rest.call("ListTicketHistory", life.owner, ticket_id=life.created["id"], page_size=100).resource
    assert seen["entries"] == [entry for entry in history if not entry["is_internal"]]


def test_the_owner_reads_comments_newest_first_without_the_internal_note(stage: Stage, life: Life) -> None:
    def comments_for(caller: Caller) -> list[dict[str, Any]]:
        found = stage.rest.call("ListComments", caller, ticket_id=life.created["id"]).resource
        comments: list[dict[str, Any]] = found["comments"]
        return comments

    assert comments_for(life.agent) == [life.reopening, life.note, life.comment]
    assert comments_for(life.owner) == [life.reopening, life.comment]


def test_a_reopening_forgets_the_resolution_and_a_closing_keeps_it(life: Life, events: list[dict[str, Any]]) -> None:
    resolved_at = [event["ticket"].get("resolved_at") for event in events]
    first, second = events[4]["occurred_at"], events[8]["occurred_at"]
    assert resolved_at == [None] * 4 + [first] * 2 + [None] * 2 + [second] * 4
    assert "resolution_notes" not in life.closed


@pytest.mark.usefixtures("records")
def test_no_byte_of_the_topic_holds_a_description_a_comment_or_notes(stage: Stage) -> None:
    secrets = [secret.encode() for secret in (DESCRIPTION, NOTES, PUBLIC, INTERNAL, REOPENING)]
    for record in stage.topic.records():
        everything = record.key + record.value + repr(record.headers).encode()
        assert not [secret for secret in secrets if secret in everything]


def test_the_note_is_no_event(stage: Stage, life: Life, events: list[dict[str, Any]]) -> None:
    assert life.note["id"] not in {event.get("comment_id") for event in events}
    unsent = stage.query(
        "SELECT count(*) FROM admin_service.ticket_events WHERE ticket_id = %s AND is_internal", life.created["id"]
    )
    assert unsent == [(1,)]


def test_an_agent_who_takes_a_ticket_over_from_another_is_named_with_the_one_before(stage: Stage) -> None:
    first, second = as_agent(), as_agent()
    ticket = open_ticket(stage.rest, as_customer())
    assign(stage.rest, first, ticket)
    assign(stage.rest, second, ticket)

    event = stage.topic.events_of(ticket["id"], 4)[-1]
    assert added_by(event, ENVELOPE) == (
        "ticket_assigned",
        {"assigned_to": second.id, "previous_assignee": first.id, "reason": "self_assigned"},
    )
