"""Fields in the binary format of PostgreSQL's COPY, to be joined into rows.

Its source: the documentation of COPY, "Binary Format". PostgreSQL has next to nothing to parse in it.
"""

import struct

SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
NULL = b"\xff\xff\xff\xff"
TRUE, FALSE = b"\0\0\0\1\1", b"\0\0\0\1\0"

# PostgreSQL counts from 2000, as everybody else does from 1970.
_EPOCH = 946_684_800_000_000
_LENGTH = struct.Struct(">i")
_NUMBER = struct.Struct(">ii")
_MOMENT = struct.Struct(">iq")


def fields(count: int) -> bytes:
    """What a row of so many fields begins with."""
    return struct.pack(">h", count)


def text(value: str) -> bytes:
    """A text."""
    return binary(value.encode())


def binary(value: bytes) -> bytes:
    """A bytea, or anything of which the bytes are known."""
    return _LENGTH.pack(len(value)) + value


def uuid(value: bytes) -> bytes:
    """A UUID, from its 16 bytes."""
    return b"\0\0\0\x10" + value


def number(value: int) -> bytes:
    """An integer of four bytes."""
    return _NUMBER.pack(4, value)


def moment(at: int) -> bytes:
    """A timestamptz, from microseconds since 1970."""
    return _MOMENT.pack(8, at - _EPOCH)


def jsonb(value: str) -> bytes:
    """A JSON text."""
    raw = value.encode()
    return _LENGTH.pack(len(raw) + 1) + b"\1" + raw
