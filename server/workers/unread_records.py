"""Records that Kafka's client can't read, given as such instead of keeping the consumer from all that follows them.

The broker takes what this client does not: a header whose name is no UTF-8, or a compression whose library is missing.
The client then raises out of every poll, and stands before that record for ever.
"""

from typing import Any

from kafka.errors import CorruptRecordError, UnsupportedCodecError
from kafka.record import memory_records
from kafka.record.default_records import DefaultRecord, DefaultRecordBatch
from kafka.record.util import decode_varint


class NotRead(bytes):
    """The value, empty, of a record that stands for one or more that could not be read.

    first, last: the offsets that it stands for; its own offset is the last, so that who has it is past them all.
    why: quotes nothing of what could not be read.
    """

    first: int
    last: int
    why: str

    @classmethod
    def between(cls, first: int, last: int, error: Exception) -> "NotRead":
        value = cls()
        what = "the record" if first == last else f"the records at the offsets {first} to {last}"
        value.first, value.last, value.why = first, last, f"{what} can't be read ({_cause(error)})"
        return value

    @property
    def offsets(self) -> str:
        """`7`, or `7-9`."""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


class ForgivingBatch(DefaultRecordBatch):  # type: ignore[misc]
    """A batch that goes on after a record that can't be read; of one that can't be unpacked a single record is given.

    What a checksum contradicts is not forgiven: no record may be believed there, and another replica may have them.
    """

    _following: int
    """The offset behind the last record that was given."""

    def __iter__(self) -> Any:  # noqa: ANN401 - an iterator of the client's records
        self._following = self.base_offset
        try:
            return super().__iter__()
        except Exception as error:  # noqa: BLE001 - each codec's library has errors of its own
            return iter([self._not_read(self.base_offset, self.last_offset, error)])

    def __next__(self) -> Any:  # noqa: ANN401
        start = self._pos
        try:
            record = super().__next__()
        except CorruptRecordError as error:
            if self._next_record_index >= self._num_records:
                raise
            record = self._pass_over(start, error)
        self._following = record.offset + 1
        return record

    def _pass_over(self, start: int, error: Exception) -> Any:  # noqa: ANN401
        """What stands for the record at `start`; for all the rest, where it can't be told where the next begins."""
        try:
            length, begin = decode_varint(self._buffer, start)
            position = begin + 1  # the attributes
            _, position = decode_varint(self._buffer, position)
            delta, _ = decode_varint(self._buffer, position)
        except (ValueError, IndexError):
            return self._give_up(error)
        offset, end = self.base_offset + delta, begin + length
        if not (position < end <= len(self._buffer) and self._following <= offset <= self.last_offset):
            return self._give_up(error)
        self._pos = end
        self._next_record_index += 1
        return self._not_read(offset, offset, error)

    def _give_up(self, error: Exception) -> Any:  # noqa: ANN401
        self._pos, self._next_record_index = len(self._buffer), self._num_records
        return self._not_read(min(self._following, self.last_offset), self.last_offset, error)

    def _not_read(self, first: int, last: int, error: Exception) -> Any:  # noqa: ANN401
        value = NotRead.between(first, last, error)
        return DefaultRecord(0, last, self.first_timestamp, self.timestamp_type, None, value, [])


def forgive_unread_records() -> None:
    """Have every consumer of this process give them; the client has no setting for it."""
    memory_records.DefaultRecordBatch = ForgivingBatch


def _cause(error: Exception) -> str:
    if isinstance(error, UnsupportedCodecError):
        return str(error)
    # The messages of the others quote what could not be read.
    return ", ".join(type(each).__name__ for each in (error, error.__context__) if each is not None)
