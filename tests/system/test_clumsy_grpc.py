"""gRPC as nobody means to speak it, at both doors that take gRPC: an answer for the caller, and no harm to others."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, TypeAlias

import grpc
import pytest
from nibble.support.v1 import ticket_pb2, ticket_service_pb2

from devstack.ports import LOOPBACK
from devstack.service import is_serving
from tests.system.doors import OK, Answer, Grpc, error_in
from tests.system.stage import Stage
from tests.system.vocabulary import as_customer, eventually, open_ticket

INVALID_ARGUMENT, RESOURCE_EXHAUSTED = 3, 8
SERVICE = "/nibble.support.v1.TicketService/"
MIB = 2**20
# A connection's preface with empty settings, and a ping.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
PING = bytes([0, 0, 8, 6, 0, 0, 0, 0, 0]) + b"12345678"
MOST_PINGS = 100
# More than fit into the buffers on the way.
FLOOD = 1_000_000

Stub: TypeAlias = "grpc.StreamUnaryMultiCallable[bytes, Any]"


@pytest.fixture(params=["gateway", "own port"])
def door(stage: Stage, request: pytest.FixtureRequest) -> Grpc:
    return stage.grpc if request.param == "gateway" else stage.own_port


def send(
    stage: Stage,
    door: Grpc,
    requests: Iterator[bytes],
    call: str = "CreateTicket",
    extra: tuple[tuple[str, str], ...] = (),
    compression: grpc.Compression = grpc.Compression.NoCompression,
) -> Answer:
    """What these requests, as one call that should have one, come to."""
    metadata = (("authorization", f"Bearer {stage.mint(as_customer())}"), *extra)
    stub: Stub = door.channel.stream_unary(SERVICE + call)
    try:
        stub(requests, metadata=metadata, timeout=10, compression=compression)
    except grpc.RpcError as error:
        return error_in(error)
    return Answer(OK, "", {})


def create(description: str) -> bytes:
    return ticket_service_pb2.CreateTicketRequest(subject="s", description=description).SerializeToString()


def test_a_call_without_a_request_is_refused_at_once(stage: Stage, door: Grpc) -> None:
    answer = send(stage, door, iter(()))
    assert (answer.code, answer.reason) == (INVALID_ARGUMENT, "MALFORMED_REQUEST")


def test_of_two_requests_in_a_call_no_more_than_one_takes_effect(stage: Stage, door: Grpc) -> None:
    owner = as_customer()
    metadata = (("authorization", f"Bearer {stage.mint(owner)}"),)
    stub: Stub = door.channel.stream_unary(SERVICE + "CreateTicket", response_deserializer=ticket_pb2.Ticket.FromString)
    ticket = stub(iter([create("first"), create("second")]), metadata=metadata, timeout=10)
    assert ticket.description == "first"
    assert len(door.call("ListMyTickets", owner).resource["tickets"]) == 1


@pytest.mark.parametrize("size", [MIB, 3 * MIB, 64 * MIB], ids=lambda size: f"{size // MIB} MiB")
def test_the_limit_on_a_request_counts_after_decompression(stage: Stage, size: int) -> None:
    answer = send(stage, stage.own_port, iter([create("d" * size)]), compression=grpc.Compression.Gzip)
    assert answer.code == RESOURCE_EXHAUSTED


def test_a_compressed_request_is_taken(stage: Stage) -> None:
    assert send(stage, stage.own_port, iter([create("d" * 9_000)]), compression=grpc.Compression.Gzip).code == OK


def test_thousands_of_metadata_entries_are_too_many_for_the_server(stage: Stage) -> None:
    extra = tuple((f"x-{number}", "v") for number in range(10_000))
    assert send(stage, stage.own_port, iter([create("d")]), extra=extra).code == RESOURCE_EXHAUSTED
    assert open_ticket(stage.own_port, as_customer())["version"] == 1


def test_calls_that_never_send_their_request_end_at_their_deadline_and_leave_room(stage: Stage) -> None:
    """Twice as many as the process takes at a time."""
    stub: Stub = stage.own_port.channel.stream_unary(SERVICE + "CreateTicket")
    enough = threading.Event()

    def nothing() -> Iterator[bytes]:
        enough.wait(30)
        yield from ()

    metadata = (("authorization", f"Bearer {stage.mint(as_customer())}"),)
    calls = [stub.future(nothing(), metadata=metadata, timeout=1.5) for _ in range(400)]
    try:
        assert is_serving(stage.stack.ports.grpc)
        codes = {call.code() for call in calls}
    finally:
        enough.set()
    assert codes <= {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
    eventually(lambda: stage.own_port.call("ListMyTickets", as_customer()).code == OK)


def is_hung_up_on(connection: socket.socket) -> bool:
    """Whether that many pings, each after the answer to the one before, are too many for the other end."""
    for _ in range(MOST_PINGS):
        try:
            connection.sendall(PING)
            if not connection.recv(MIB):
                return True
        except (BrokenPipeError, ConnectionResetError):
            return True
    return False


def test_who_does_nothing_but_ping_is_hung_up_on(stage: Stage) -> None:
    with socket.create_connection((LOOPBACK, stage.stack.ports.grpc), timeout=10) as connection:
        connection.sendall(PREFACE)
        assert is_hung_up_on(connection)
    assert stage.own_port.call("ListMyTickets", as_customer()).code == OK


def test_a_flood_of_pings_whose_answers_nobody_reads_holds_up_no_call(stage: Stage) -> None:
    """gRPC's core does not hang up before its answers are read, but it reads no more."""
    with socket.create_connection((LOOPBACK, stage.stack.ports.grpc), timeout=1) as connection:
        with suppress(OSError):
            connection.sendall(PREFACE + FLOOD * PING)
        assert stage.own_port.call("ListMyTickets", as_customer()).code == OK
