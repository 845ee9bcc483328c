"""Poison: it becomes a dead letter with its reason, the others go on, and too much of it ends the consumer."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from psycopg import Connection
from psycopg.types.json import Jsonb

from server.workers.dead_letters import TooManyDeadLetters
from tests.integration.consumer_line import Line, consumed, some_events
from tests.integration.recorder import BROKEN, Recorder, breaks
from tests.system.vocabulary import eventually
from tests.unit.ticket_events import ARecord, a_record, an_event

Told = Sequence[Mapping[str, Any]]
SECRET = "the soup of which nobody may read in a log"  # noqa: S105


def broken(**values: Any) -> dict[str, Any]:  # noqa: ANN401
    """An event that the recorder fails on."""
    event = an_event(**values)
    event["ticket"]["subject"] = BROKEN
    return event


def letters_of(line: Line) -> list[dict[str, str]]:
    """The headers of the dead letters."""
    return [{name: value.decode() for name, value in letter.headers} for letter in line.dead_letters()]


def test_poison_becomes_a_dead_letter_and_all_others_go_on(line: Line, told: Told) -> None:
    good = some_events(6, each=5)
    bad = broken(ticket_id=good[0]["ticket_id"], sequence=6)
    after = an_event(bad["ticket_id"], 7)
    line.send_events([*good, bad, after])
    before = consumed("dead")
    with line.consumer(Recorder(breaks)):
        line.until_committed()
    line.until_applied([*good, after])

    (letter,) = line.dead_letters()
    sent = a_record(bad)
    assert (letter.key, letter.value) == (sent.key, sent.value)
    headers = dict(letter.headers)
    assert {name: headers[name] for name, _ in sent.headers} == dict(sent.headers)
    assert headers["dlq_reason"].decode() == f"ValueError: can't get over {BROKEN}"
    assert (headers["dlq_topic"].decode(), headers["dlq_consumer"].decode()) == (line.name, line.name)
    (place,) = ((r.partition, r.offset) for r in line.records() if r.value == sent.value)
    assert (int(headers["dlq_partition"]), int(headers["dlq_offset"])) == place
    assert headers["dlq_time"].decode() > "2026"
    assert consumed("dead") == before + 1
    (line_of_log,) = (said for said in told if said["event"] == "dead letter")
    assert (line_of_log["event_id"], line_of_log["ticket_id"]) == (bad["event_id"], bad["ticket_id"])
    assert line_of_log["reason"].startswith("ValueError")
    assert BROKEN not in str(told)


def test_what_is_done_after_the_commit_is_done_for_no_batch_that_is_rolled_back(line: Line) -> None:
    good = some_events(1, each=5)
    line.send_events([*good, broken(ticket_id=good[0]["ticket_id"], sequence=6)])
    recorder = Recorder(breaks)
    with line.consumer(recorder):
        line.until_committed()
    assert sum(recorder.committed) == len(good) < sum(recorder.batches)


def test_a_handlers_row_is_quoted_nowhere(line: Line, told: Told) -> None:
    line.query("CREATE TABLE recorded.subjects (subject text PRIMARY KEY, more jsonb)")

    def act(connection: Connection[Any], event: Any) -> None:  # noqa: ANN401
        connection.execute("INSERT INTO recorded.subjects VALUES ($1, $2)", [event.ticket.subject, Jsonb({})])

    events = some_events(1, each=2)
    for event in events:
        event["ticket"]["subject"] = SECRET
    line.send_events(events)
    with line.consumer(Recorder(act)):
        line.until_committed()
    (headers,) = letters_of(line)
    assert headers["dlq_reason"].startswith("UniqueViolation 23505 duplicate key")
    assert "subjects_pkey" in headers["dlq_reason"]
    assert SECRET not in headers["dlq_reason"]
    assert SECRET not in str(told)


ODD = [
    ARecord(b"\x00\xff", key=b"k", headers=[("ce_id", b"\xff"), ("dlq_reason", b"an older one"), ("mine", b"")]),
    ARecord(None, key=b"tombstone"),
    ARecord(b"{}"),
    ARecord(b""),
    # As large as the topic takes one, so that the dead letter is larger.
    ARecord(b"x" * 1_048_400, key=b"large"),
]


def test_records_that_are_no_events_are_dead_letters_as_they_came(line: Line) -> None:
    good = some_events(2, each=2)
    line.send(*ODD)
    line.send_events(good)
    with line.consumer():
        line.until_committed()
    line.until_applied(good)
    found = {(letter.key, letter.value) for letter in line.dead_letters()}
    assert found == {(record.key, record.value) for record in ODD}
    (first,) = (dict(letter.headers) for letter in line.dead_letters() if letter.key == b"k")
    assert (first["ce_id"], first["mine"], first["dlq_reason"]) == (b"\xff", b"", b"the value is not JSON")


def test_more_poison_than_the_limit_ends_the_consumer_and_what_was_not_put_aside_comes_again(
    line: Line, told: Told
) -> None:
    bad, good = [broken() for _ in range(5)], some_events(4, each=4)
    line.send_events([*bad, *good])
    with (
        pytest.raises(TooManyDeadLetters, match="more than 3 dead letters"),
        line.consumer(Recorder(breaks), dead_letter_limit=3) as running,
    ):
        eventually(running.ended.done)
    assert len(line.dead_letters()) == 3
    assert [said["log_level"] for said in told if said["event"] == "stopped by poison"] == ["error"]
    line.until_applied(good)

    # Another try has room for three again: the two that are left, and none twice.
    with line.consumer(Recorder(breaks), dead_letter_limit=3):
        line.until_committed()
    assert sorted(headers["ce_id"] for headers in letters_of(line)) == sorted(event["event_id"] for event in bad)
    line.until_applied(good)


def test_poison_waits_where_dead_letters_are_not_taken_and_the_rest_does_not(line: Line) -> None:
    missing = f"{line.name}.missing"
    good, bad = some_events(3, each=3), [broken()]
    line.send_events([*bad, *good])
    before = consumed("dead")
    with line.consumer(Recorder(breaks), dead_letter_topic=missing):
        line.until_applied(good)
        eventually(lambda: line.committed() > 0)
        assert line.committed() < line.size()
        assert consumed("dead") == before
        line.create_topic(missing, 1)
        line.until_committed(20)
    assert consumed("dead") == before + 1
    line.until_applied(good)


def test_the_dead_letters_of_a_batch_hold_its_json_byte_for_byte(line: Line) -> None:
    event = broken() | {"mood": "süß"}
    value = json.dumps(event, ensure_ascii=False, indent=1).encode()
    line.send(a_record(event, value=value))
    with line.consumer(Recorder(breaks)):
        line.until_committed()
    assert [letter.value for letter in line.dead_letters()] == [value]
