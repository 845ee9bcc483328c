"""How far a consumer tells Kafka that it is, and what it says of what failed."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID, uuid5

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition

from server.workers.consumer import _in_order, _read, in_words, settled_offsets, without_texts
from server.workers.dead_letter_desk import _line
from server.workers.dead_letters import Limit, TooManyDeadLetters, header_text, original_headers, printable
from tests.unit.ticket_events import ARecord, a_record, an_event
from tests.unit.vocabulary import NOW

TOPIC = "support.ticket-events.v1"
Batch = Mapping[TopicPartition, Sequence[ARecord]]


def batch_of(offsets: Mapping[int, set[int]]) -> Batch:
    """Records at these offsets of these partitions."""
    return {
        TopicPartition(TOPIC, number): [
            ARecord(b"", partition=number, offset=offset) for offset in sorted(of_partition)
        ]
        for number, of_partition in offsets.items()
    }


# Not every offset has a record: compaction and transactions leave gaps.
batches = st.dictionaries(st.integers(0, 3), st.sets(st.integers(0, 50), min_size=1), min_size=1).map(batch_of)


@given(batches, st.data())
def test_an_offset_is_never_committed_past_a_record_that_is_left(batch: Batch, data: st.DataObject) -> None:
    records = [record for of_partition in batch.values() for record in of_partition]
    left = [record for record in records if data.draw(st.booleans())]
    settled = settled_offsets(batch, left)
    assert settled.keys() == batch.keys()
    for record in records:
        done = record.offset < settled[TopicPartition(TOPIC, record.partition)]
        assert not (done and record in left)
        earlier = [other for other in left if other.partition == record.partition and other.offset <= record.offset]
        assert done == (not earlier)


def test_of_postgresqls_errors_nothing_is_said_that_quotes_a_row() -> None:
    error = psycopg.errors.UniqueViolation("duplicate key\nDETAIL: Key (subject)=(Cold soup)")
    assert "soup" not in without_texts(error)
    assert without_texts(error) == "UniqueViolation 23505"
    assert "soup" not in in_words(error)


def test_the_log_is_told_where_a_handler_failed_and_not_on_what() -> None:
    with pytest.raises(AttributeError) as failure:
        settled_offsets({}, ["Cold soup"])  # type: ignore[list-item]
    assert without_texts(failure.value).startswith("AttributeError at consumer.py:")
    assert in_words(ValueError("bad soup")) == "ValueError: bad soup"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("plain", "plain"), ("a\x1b[31m\nb\u202e", "a [31m b "), ("x" * 11, "x" * 9 + "…"), ("\ud800", " ")],
)
def test_what_is_shown_of_a_dead_letter_moves_no_cursor(text: str, shown: str) -> None:
    assert printable(text, 10) == shown


def test_a_dead_letter_of_anything_is_one_line() -> None:
    headers = [("ce_id", b"\xff\x1b\n"), ("ce_type", None), ("dlq_reason", "ü".encode()), ("dlq_reason", b"b\r\nc")]
    line = _line(ARecord(None, headers=headers))
    assert line.isprintable()
    assert line.endswith(": b  c")
    assert header_text(headers, "dlq_time") == "-"


def test_the_headers_that_a_dead_letter_adds_go_with_it() -> None:
    headers = [("ce_id", b"1"), ("dlq_reason", b"x"), ("other", None), ("dlq_of_later_times", b"x")]
    assert original_headers(headers) == [("ce_id", b"1"), ("other", b"")]


def test_the_limit_is_on_any_minute_and_not_on_a_life() -> None:
    limit, now = Limit(3), NOW
    for _ in range(50):
        limit.check(now)
        limit.note(now)
        now += timedelta(seconds=20)
    limit.note(now)
    with pytest.raises(TooManyDeadLetters, match="DEAD_LETTER_LIMIT"):
        limit.check(now)
    limit.check(now + timedelta(seconds=20))


def test_a_limit_of_zero_puts_up_with_none() -> None:
    with pytest.raises(TooManyDeadLetters):
        Limit(0).check(NOW)


@given(st.permutations([(ticket, sequence) for ticket in "ab" for sequence in range(1, 5)]))
def test_a_handler_gets_each_new_event_once_and_a_tickets_in_order(arrived: list[tuple[str, int]]) -> None:
    ids = {letter: str(uuid5(UUID(int=0), letter)) for letter in "ab"}
    records = [a_record(an_event(ids[ticket], sequence)) for ticket, sequence in arrived]
    readings, poison, passed_over = _read([*records, *records])
    new = {reading.mark for reading in readings if reading.mark.sequence > 1}
    assert (poison, passed_over) == ([], 0)
    given_out = [(event.ticket_id, event.sequence) for event in _in_order(readings, new)]
    assert sorted(given_out) == given_out
    assert len(given_out) == len(new) == 6
