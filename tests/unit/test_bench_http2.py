"""What the callers of the benchmarks write and read: REST by the bindings of the protos, gRPC as ready bytes."""

import asyncio
import json
import socket
from collections.abc import Iterator

import pytest
from nibble.support.v1 import comment_service_pb2, ticket_pb2, ticket_service_pb2

from bench.http2 import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    MAX_CONCURRENT_STREAMS,
    PING,
    PREFACE,
    SETTINGS,
    WINDOW_UPDATE,
    Connection,
    Ended,
    Unreadable,
    frame,
    ready,
    status_in,
)
from bench.kinds import KINDS
from bench.rest import Connection as RestConnection
from bench.rest import NotOk, http_request

GET = KINDS["get"].method
TICKET = "0199b0a4-0000-7000-8000-000000000001"
REQUEST = ready(GET, ticket_service_pb2.GetTicketRequest(ticket_id=TICKET), "t.o.k", 5.0)


# --- REST -------------------------------------------------------------------------------------------------------------


def test_a_get_has_its_fields_in_the_path_and_the_query() -> None:
    request = comment_service_pb2.ListCommentsRequest(ticket_id=TICKET, page_size=20)
    head, body = http_request(KINDS["list-comments"].method, request, "t.o.k").split(b"\r\n\r\n")
    assert head.splitlines()[0] == f"GET /api/v1/tickets/{TICKET}/comments?page_size=20 HTTP/1.1".encode()
    assert b"authorization: Bearer t.o.k" in head.splitlines()
    assert body == b""


def test_a_repeated_field_comes_once_for_each_value() -> None:
    request = ticket_service_pb2.ListTicketsRequest(status=[ticket_pb2.Ticket.open, ticket_pb2.Ticket.closed])
    line = http_request(KINDS["list"].method, request, "t").splitlines()[0]
    assert line == b"GET /api/v1/tickets?status=open&status=closed HTTP/1.1"


def test_a_put_has_the_rest_of_its_fields_in_the_body() -> None:
    request = ticket_service_pb2.UpdateTicketStatusRequest(ticket_id=TICKET, status=ticket_pb2.Ticket.open)
    head, body = http_request(KINDS["status"].method, request, "t").split(b"\r\n\r\n")
    assert head.splitlines()[0] == f"PUT /api/v1/tickets/{TICKET}/status HTTP/1.1".encode()
    assert f"content-length: {len(body)}".encode() in head.splitlines()
    assert json.loads(body) == {"status": "open"}


async def answered(answer: bytes) -> object:
    """What a client makes of that answer."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        connection = await RestConnection.open(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        try:
            return await connection.answer_to(b"GET / HTTP/1.1\r\n\r\n")
        finally:
            connection.close()


async def test_an_answer_is_read_whether_it_tells_its_length_or_comes_in_chunks() -> None:
    whole = await answered(b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"id": "one"}')
    assert whole == await answered(
        b'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\n{"id":\r\n7\r\n "one"}\r\n0\r\n\r\n'
    )


async def test_another_status_than_200_is_no_answer() -> None:
    with pytest.raises(NotOk, match="try again"):
        await answered(b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 9\r\n\r\ntry again")


# --- gRPC -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def peers() -> Iterator[tuple[Connection, socket.socket]]:
    """A connection, and its peer, who has read the greeting."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = Connection(*server.getsockname())
        peer, _ = server.accept()
        peer.settimeout(5)
        connection.flush()
        assert peer.recv(4_096).startswith(PREFACE)
        with peer, connection.socket:
            yield connection, peer


def heard(connection: Connection, peer: socket.socket, *frames: bytes) -> list[Ended]:
    """What the connection makes of frames of its peer."""
    connection.socket.setblocking(True)
    peer.sendall(b"".join(frames))
    found = connection.receive()
    connection.socket.setblocking(False)
    return found


def trailers(stream: int, block: bytes) -> bytes:
    return frame(HEADERS, END_HEADERS | END_STREAM, stream, block)


def test_a_status_is_found_in_plain_letters_and_in_huffmans_code() -> None:
    assert status_in(b"\0\x0bgrpc-status\x018") == 8
    assert status_in(b"\0\x0bgrpc-status\x0214\0\x0cgrpc-message\x02no") == 14
    # As nghttp2 writes the name.
    assert status_in(b"\0\x88\x9a\xca\xc8\xb2\x12\x34\xda\x8f\x010") == 0
    with pytest.raises(Unreadable):
        status_in(b"\0\x17grpc-status-details-bin\x018")


def test_a_call_is_open_until_its_trailers_come(peers: tuple[Connection, socket.socket]) -> None:
    connection, peer = peers
    first, second = connection.begin(REQUEST), connection.begin(REQUEST)
    connection.flush()
    sent = peer.recv(4_096)
    assert (first, second) == (1, 3)
    assert sent.count(REQUEST.headers) == sent.count(REQUEST.body) == 2
    began = frame(HEADERS, END_HEADERS, first, b"\x88")
    assert heard(connection, peer, began, frame(DATA, 0, first, b"\0\0\0\0\0")) == []
    assert heard(connection, peer, trailers(second, b"\0\x0bgrpc-status\x018")) == [Ended(3, 8)]
    assert connection.open == {first}
    assert heard(connection, peer, trailers(first, b"\0\x0bgrpc-status\x010")) == [Ended(1, 0)]


def test_a_frame_may_come_in_two_pieces(peers: tuple[Connection, socket.socket]) -> None:
    connection, peer = peers
    whole = trailers(connection.begin(REQUEST), b"\0\x0bgrpc-status\x010")
    assert heard(connection, peer, whole[:12]) == []
    assert heard(connection, peer, whole[12:]) == [Ended(1, 0)]


def test_the_peer_says_how_many_calls_it_takes_at_a_time(peers: tuple[Connection, socket.socket]) -> None:
    connection, peer = peers
    assert heard(connection, peer, frame(SETTINGS, 0, 0, b"\0" + bytes([MAX_CONCURRENT_STREAMS]) + b"\0\0\0\x01")) == []
    assert connection.takes(REQUEST)
    stream = connection.begin(REQUEST)
    assert not connection.takes(REQUEST)
    connection.cancel(stream)
    assert connection.takes(REQUEST)


def test_what_the_peer_has_not_room_for_waits(peers: tuple[Connection, socket.socket]) -> None:
    connection, peer = peers
    large = REQUEST._replace(body=b"x" * 60_000)
    connection.begin(large)
    assert not connection.takes(large)
    heard(connection, peer, frame(WINDOW_UPDATE, 0, 0, (60_000).to_bytes(4, "big")))
    assert connection.takes(large)


def test_a_ping_is_answered_and_a_farewell_is_an_error(peers: tuple[Connection, socket.socket]) -> None:
    connection, peer = peers
    heard(connection, peer, frame(PING, 0, 0, b"12345678"))
    connection.flush()
    assert peer.recv(4_096) == frame(PING, ACK, 0, b"12345678")
    with pytest.raises(Unreadable):
        heard(connection, peer, frame(GOAWAY, 0, 0, b"\0" * 8))
