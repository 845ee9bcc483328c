"""Batches that Kafka's client can't read to their end: what is lost is named, and nothing else is."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from kafka.errors import CorruptRecordError
from kafka.record.memory_records import MemoryRecordsBuilder

from server.workers.unread_records import ForgivingBatch, NotRead

UNCOMPRESSED, GZIP = 0, 1
HEADER_SIZE = 61


def a_batch(values: Iterable[bytes], codec: int = UNCOMPRESSED) -> bytearray:
    builder = MemoryRecordsBuilder(2, codec, 1_000_000)
    for value in values:
        builder.append(1_000, b"key", value, [("name", b"")])
    builder.close()
    return bytearray(builder.buffer())


def given_by(data: bytes) -> list[Any]:
    return list(ForgivingBatch(data))


def test_a_record_whose_length_is_wrong_takes_those_behind_it_along() -> None:
    data = a_batch([b"one", b"two", b"three"])
    first_length = data[HEADER_SIZE] // 2  # a varint of one byte
    data[HEADER_SIZE + first_length + 1] = 0x7F
    first, rest = given_by(bytes(data))
    assert first.value == b"one"
    assert (rest.value.first, rest.value.last, rest.offset) == (1, 2, 2)
    assert rest.value.why == "the records at the offsets 1 to 2 can't be read (CorruptRecordError)"


def test_what_can_not_be_unpacked_stands_for_all_of_its_batch() -> None:
    data = a_batch([b"x" * 500, b"y" * 500], GZIP)
    data[HEADER_SIZE : HEADER_SIZE + 4] = b"oops"
    (only,) = given_by(bytes(data))
    assert only.value.offsets == "0-1"
    assert "oops" not in only.value.why


def test_what_its_checksum_contradicts_is_not_believed() -> None:
    data = a_batch([b"one"])
    data[-5] ^= 1
    assert not ForgivingBatch(bytes(data)).validate_crc()


@given(st.integers(HEADER_SIZE, 150), st.integers(0, 255))
def test_whatever_byte_is_wrong_all_that_is_not_given_is_named_and_the_last_is_reached(at: int, value: int) -> None:
    data = a_batch([b"one" * 5, b"two" * 5, b"three" * 5, b"four" * 5])
    data[min(at, len(data) - 1)] = value
    batch, records = ForgivingBatch(bytes(data)), []
    with suppress(CorruptRecordError):
        # Raised behind all of its records alone.
        for record in batch:
            records.append(record)
    unread = [record.value for record in records if isinstance(record.value, NotRead)]
    assert all(0 <= each.first <= each.last <= 3 for each in unread)
    assert len(records) == 4 or unread[-1].last == 3
