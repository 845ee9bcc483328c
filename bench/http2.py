"""gRPC calls as ready bytes over HTTP/2, for callers that must cost next to nothing.

A client of gRPC takes as long over a call as a server over refusing it, so that one that offers three times what a
server can do would be short of processor time itself. This one writes frames that were made before, and of an answer
reads whether it was a message and which status it ended with.
"""

import re
import socket
from collections.abc import Iterator
from typing import NamedTuple

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM = ACK = 1
END_HEADERS = 4
MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 3, 4
# Without a table of their own peers repeat every name in full, so that a status can be found in the bytes.
_NO_TABLE = b"\x00\x01" + (0).to_bytes(4, "big")
_WIDEST = (1 << 31) - 1
_WIDE = b"\x00\x04" + _WIDEST.to_bytes(4, "big")
_FIRST_WINDOW = 65_535
_WIDEN_AFTER = 1 << 28
# The codes of these letters in HPACK (RFC 7541, appendix B), in which gateways write.
_CODES = ("100110", "101100", "101011", "00100", "010110", "01000", "01001", "00011", "101101")
_HUFFMAN = dict(zip("grpc-stau", _CODES, strict=True))
CANCELLED = (8).to_bytes(4, "big")


def _huffman(text: str) -> bytes:
    bits = "".join(_HUFFMAN[letter] for letter in text)
    bits += "1" * (-len(bits) % 8)
    return bytes([0x80 | len(bits) // 8]) + int(bits, 2).to_bytes(len(bits) // 8, "big")


_NAME = b"grpc-status"
_STATUS = re.compile(
    b"(?:"
    + re.escape(bytes([len(_NAME)]) + _NAME)
    + b"|"
    + re.escape(_huffman("grpc-status"))
    + rb")[\x01\x02](\d{1,2})"
)


class Unreadable(ConnectionError):
    """The peer said something that this client does not understand, or hung up."""


class Ready(NamedTuple):
    """A request: its block of headers, and its message with gRPC's prefix."""

    headers: bytes
    body: bytes


class Ended(NamedTuple):
    """A call that was answered: its stream, and the code of its status."""

    stream: int
    code: int


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame as it goes over the wire."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _text(text: str) -> bytes:
    """A string as HPACK has it (RFC 7541, section 5.2), without Huffman's code."""
    raw = text.encode("ascii")
    if len(raw) < 127:
        return bytes([len(raw)]) + raw
    rest, length = len(raw) - 127, b"\x7f"
    while rest >= 128:
        length += bytes([rest % 128 + 128])
        rest //= 128
    return length + bytes([rest]) + raw


def ready(method: MethodDescriptor, request: Message, token: str, deadline: float) -> Ready:
    """The request of a call, which is given so many seconds."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"/{method.containing_service.full_name}/{method.name}",
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
        "grpc-timeout": f"{deadline * 1000:.0f}m",
        "authorization": f"Bearer {token}",
    }
    message = request.SerializeToString()
    headers = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items())
    return Ready(headers, b"\0" + len(message).to_bytes(4, "big") + message)


def status_in(block: bytes) -> int:
    """The code of `grpc-status` in a block of headers, written by a peer that has no table.

    Raises:
        Unreadable: there is none.
    """
    found = _STATUS.search(block)
    if found is None:
        raise Unreadable(f"a call ended without a status: {block!r}")
    return int(found[1])


class Connection:
    """One connection, which never blocks: what can't be written now waits, and what is read may be nothing."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port), timeout=5)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.streams_allowed = 100
        self._out = bytearray(PREFACE + frame(SETTINGS, 0, 0, _NO_TABLE + _WIDE))
        self._out += frame(WINDOW_UPDATE, 0, 0, (_WIDEST - _FIRST_WINDOW).to_bytes(4, "big"))
        self._in = bytearray()
        self._window = _FIRST_WINDOW
        """How many bytes of messages the peer still takes."""
        self._read = 0
        self._next = 1
        self.open: set[int] = set()

    def takes(self, request: Ready) -> bool:
        """Whether the peer lets one more call begin."""
        return len(self.open) < self.streams_allowed and len(request.body) <= self._window

    def begin(self, request: Ready) -> int:
        """Begin a call; returns its stream. It is on its way after the next `flush`."""
        stream, self._next = self._next, self._next + 2
        self._out += frame(HEADERS, END_HEADERS, stream, request.headers)
        self._out += frame(DATA, END_STREAM, stream, request.body)
        self._window -= len(request.body)
        self.open.add(stream)
        return stream

    def cancel(self, stream: int) -> None:
        """Give up a call."""
        self.open.discard(stream)
        self._out += frame(RST_STREAM, 0, stream, CANCELLED)

    def flush(self) -> None:
        """Write what waits, as far as the kernel takes it."""
        if self._out:
            try:
                sent = self.socket.send(self._out)
            except BlockingIOError:
                return
            del self._out[:sent]

    def receive(self) -> list[Ended]:
        """The calls that have been answered since.

        Raises:
            Unreadable: the peer hung up, or said what this client can't read.
        """
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return []
        if not data:
            raise Unreadable("the peer hung up")
        self._in += data
        return [ended for frame in self._frames() for ended in self._take(*frame)]

    def _frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        at, whole = 0, self._in
        while len(whole) - at >= 9:
            length = int.from_bytes(whole[at : at + 3], "big")
            if len(whole) - at - 9 < length:
                break
            stream = int.from_bytes(whole[at + 5 : at + 9], "big")
            yield whole[at + 3], whole[at + 4], stream, bytes(whole[at + 9 : at + 9 + length])
            at += 9 + length
        del whole[:at]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> Iterator[Ended]:
        if kind == HEADERS:
            if flags & END_STREAM and stream in self.open:
                self.open.discard(stream)
                yield Ended(stream, status_in(payload))
        elif kind == DATA:
            self._count_read(len(payload))
        elif kind == RST_STREAM and stream in self.open:
            raise Unreadable(f"a call was broken off: {payload!r}")
        else:
            self._answer(kind, flags, stream, payload)

    def _answer(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """What concerns the connection."""
        if kind == SETTINGS and not flags & ACK:
            self._heed(payload)
            self._out += frame(SETTINGS, ACK, 0)
        elif kind == PING and not flags & ACK:
            self._out += frame(PING, ACK, 0, payload)
        elif kind == WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload, "big")
        elif kind == GOAWAY:
            raise Unreadable(f"the peer goes away: {payload!r}")

    def _heed(self, settings: bytes) -> None:
        for at in range(0, len(settings), 6):
            if int.from_bytes(settings[at : at + 2], "big") == MAX_CONCURRENT_STREAMS:
                self.streams_allowed = int.from_bytes(settings[at + 2 : at + 6], "big")

    def _count_read(self, size: int) -> None:
        self._read += size
        if self._read > _WIDEN_AFTER:
            self._out += frame(WINDOW_UPDATE, 0, 0, self._read.to_bytes(4, "big"))
            self._read = 0
