"""What Kafka's client can't read is a dead letter without content, and all that is around it is applied once."""

import json
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from kafka import KafkaProducer
from kafka.producer import kafka as producers
from kafka.record import default_records

from tests.integration.consumer_line import Line, some_events
from tests.integration.recorder import BROKEN, Recorder, breaks
from tests.integration.test_consumer_dead_letter_desk import Book
from tests.integration.test_consumer_poison import broken, letters_of
from tests.system.vocabulary import eventually
from tests.unit.ticket_events import ARecord, a_record, an_event

Told = Sequence[Mapping[str, Any]]
SECRET = b"\xff\xfe never seen"


class Garbled(str):
    """A header's name that is no UTF-8 on the wire."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        return SECRET


def garbled(event: dict[str, Any]) -> ARecord:
    record = a_record(event)
    return replace(record, headers=[*record.headers, (Garbled("x"), b"")])


def send_as_one_batch(line: Line, records: Iterable[ARecord], **config: Any) -> None:  # noqa: ANN401
    """All to partition 0."""
    with closing(
        KafkaProducer(bootstrap_servers=line.bootstrap, linger_ms=5000, batch_size=500_000, **config)
    ) as kafka:
        sent = [kafka.send(line.name, each.value, each.key, list(each.headers), partition=0) for each in records]
        kafka.flush(10)
        assert [each.get(10).partition for each in sent] == [0] * len(sent)


def in_zstd(data: bytes) -> bytes:
    """A frame of that format, without its library: runs of blanks are told by their length, the rest as it is."""
    pieces = [piece for piece in re.split(rb"( {100,})", bytes(data)) if piece]
    frame = b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", len(data))
    for number, piece in enumerate(pieces, 1):
        is_run = not piece.strip()
        frame += struct.pack("<I", len(piece) << 3 | is_run << 1 | (number == len(pieces)))[:3]
        frame += b" " if is_run else piece
    return frame


def send_in_a_codec_unknown_here(line: Line, events: Iterable[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as as_another_client:
        as_another_client.setattr(default_records.codecs, "has_zstd", lambda: True)
        as_another_client.setattr(default_records, "zstd_encode", in_zstd)
        attempts = producers.KafkaProducer._COMPRESSORS
        as_another_client.setitem(attempts, "zstd", (lambda: True, attempts["zstd"][1]))
        records = [a_record(each, value=json.dumps(each).encode() + b" " * 500) for each in events]
        send_as_one_batch(line, records, compression_type="zstd")


def test_a_record_alone_in_its_batch_is_a_dead_letter_and_its_partition_goes_on(line: Line, told: Told) -> None:
    good, ticket_id = some_events(4, each=2), an_event()["ticket_id"]
    first, bad, last = (an_event(ticket_id, sequence) for sequence in (1, 2, 3))
    line.send_events([*good, first])
    line.send(garbled(bad))
    line.send_events([last])
    with line.consumer():
        line.until_committed()
        line.until_applied([*good, first, last])
        (letter,) = line.dead_letters()
        later = an_event(ticket_id, 4)
        line.send_events([later])
        line.until_committed()
    assert (letter.key, letter.value) == (None, b"")
    headers = {name: value.decode() for name, value in letter.headers}
    ((place, before),) = ((r.partition, r.offset) for r in line.records() if r.value == a_record(first).value)
    assert (headers["dlq_partition"], headers["dlq_offset"]) == (str(place), str(before + 1))
    assert headers["dlq_unread"] == headers["dlq_offset"]
    assert (headers["dlq_topic"], headers["dlq_consumer"]) == (line.name, line.name)
    assert headers["dlq_reason"] == "the record can't be read (CorruptRecordError, UnicodeDecodeError)"
    assert [said["offset"] for said in told if said["event"] == "dead letter"] == [before + 1]
    assert not any("answer" in said["event"] for said in told)
    assert "never seen" not in str(told)

    # One that is started anew has none of it again.
    with line.consumer():
        line.until_applied([*good, first, last, later])
        line.until_committed()
    assert len(line.dead_letters()) == 1


def test_the_good_ones_before_between_and_behind_them_in_a_batch_are_applied(line: Line) -> None:
    ticket_id = an_event()["ticket_id"]
    events = [an_event(ticket_id, sequence) for sequence in range(1, 10)]
    bad = {0, 3, 4, 8}
    send_as_one_batch(line, (garbled(each) if at in bad else a_record(each) for at, each in enumerate(events)))
    with line.consumer(batch=2):
        line.until_committed()
    line.until_applied([each for at, each in enumerate(events) if at not in bad])
    assert [headers["dlq_unread"] for headers in letters_of(line)] == ["0", "3", "4", "8"]


def test_a_new_group_that_reads_all_again_and_one_that_begins_within_a_batch_come_past_them(line: Line) -> None:
    events = some_events(1, each=6)
    send_as_one_batch(line, (garbled(each) if at == 1 else a_record(each) for at, each in enumerate(events)))
    good = [events[0], *events[2:]]
    with line.consumer():
        line.until_committed()
    with line.consumer(group=f"{line.name}-again"):
        eventually(lambda: line.committed(f"{line.name}-again") == line.size())
    line.until_applied(good)
    assert [headers["dlq_unread"] for headers in letters_of(line)] == ["1", "1"]


def test_a_batch_that_can_not_be_unpacked_is_one_dead_letter_with_its_range(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, lost, after = (some_events(1, each=3) for _ in range(3))
    send_as_one_batch(line, map(a_record, before))
    send_in_a_codec_unknown_here(line, lost, monkeypatch)
    send_as_one_batch(line, map(a_record, after))
    with line.consumer():
        line.until_committed()
    line.until_applied([*before, *after])
    (headers,) = letters_of(line)
    assert (headers["dlq_offset"], headers["dlq_unread"]) == ("3", "3-5")
    assert headers["dlq_reason"].startswith("the records at the offsets 3 to 5 can't be read (UnsupportedCodecError")


def test_what_could_not_be_read_is_not_redriven_and_keeps_nothing_behind_it(line: Line) -> None:
    event = broken(ticket_id=an_event()["ticket_id"], sequence=2)
    line.send(garbled(an_event(event["ticket_id"], 1)))
    line.send_events([event])
    book = Book(line)
    with line.consumer(Recorder(breaks)):
        line.until_committed()
        line.query("INSERT INTO recorded.mended VALUES (now())")
        size = line.size()
        assert book.desk.show() == 2
        assert book.desk.redrive() == 1
        assert line.size() == size + 1
        line.until_applied([event])
    assert book.said[-3].startswith("nothing to send for 0 ")
    assert "the record can't be read" in book.said[-3]
    assert book.said[-2].startswith("redriven 1 ")
    assert BROKEN in book.said[-2]
    assert book.pending() == []
