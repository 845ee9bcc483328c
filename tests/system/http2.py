"""HTTP/2 as no library sends it: one request on a connection of its own, with any headers and trailers."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import closing

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
END_STREAM = ACK = 1
END_HEADERS = 4
Fields = Mapping[str, str]


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _text(text: str) -> bytes:
    """A string as HPACK has it (RFC 7541, section 5.2), without Huffman's code."""
    raw = text.encode("latin-1")
    if len(raw) < 127:
        return bytes([len(raw)]) + raw
    rest, length = len(raw) - 127, b"\x7f"
    while rest >= 128:
        length += bytes([rest % 128 + 128])
        rest //= 128
    return length + bytes([rest]) + raw


def _fields(fields: Fields) -> bytes:
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items())


def _frames(connection: socket.socket) -> Iterator[tuple[int, int, bytes]]:
    """Kind, flags and payload of each frame that comes, until the peer hangs up."""
    with connection.makefile("rb") as stream:
        while head := stream.read(9):
            yield head[3], head[4], stream.read(int.from_bytes(head[:3], "big"))


def send(address: tuple[str, int], headers: Fields, body: bytes = b"", trailers: Fields | None = None) -> bytes:
    """The body of the answer; ConnectionError where the stream or the connection is broken off instead.

    `headers` holds the pseudo headers too, in the order in which they are sent.
    """
    request = _frame(HEADERS, END_HEADERS, 1, _fields(headers))
    request += _frame(DATA, 0 if trailers else END_STREAM, 1, body)
    request += _frame(HEADERS, END_HEADERS | END_STREAM, 1, _fields(trailers)) if trailers else b""
    with closing(socket.create_connection(address, timeout=20)) as connection:
        connection.sendall(PREFACE + _frame(SETTINGS, 0, 0) + request)
        return _body(connection)


def _body(connection: socket.socket) -> bytes:
    body = b""
    for kind, flags, payload in _frames(connection):
        if kind in (RST_STREAM, GOAWAY):
            break
        if kind == SETTINGS and not flags & ACK:
            connection.sendall(_frame(SETTINGS, ACK, 0))
        body += payload if kind == DATA else b""
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            return body
    raise ConnectionError("the answer was broken off")
