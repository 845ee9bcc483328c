"""HTTP/2 that no client library sends: it troubles nobody but its sender, and is no failure of the service."""

import gzip
import json
from collections.abc import Mapping

import grpc
import pytest
from nibble.support.v1 import ticket_service_pb2

from devstack.ports import LOOPBACK
from tests.system import http2
from tests.system.doors import OK
from tests.system.stage import Stage
from tests.system.vocabulary import as_customer, as_service

LIST_MY_TICKETS = "/nibble.support.v1.TicketService/ListMyTickets"
NO_FIELDS = b"\0\0\0\0\0"
TICKET = b'{"subject": "s", "description": "d"}'
ODD_TRAILERS = {
    "a name that gRPC does not know": {"a!b": "x"},
    "what should be base64": {"trace-bin": "%%%"},
    "a status": {"grpc-status": "0", "grpc-encoding": "bogus"},
    "another caller's identity": {"authorization": "Bearer x", "x-user-id": "0192f0c1-2345-7abc-8def-0123456789ab"},
    "bytes beyond ASCII": {"x-note": "\xff"},
}
# What gRPC's core parses itself, in a way that it can't be parsed.
UNREADABLE = {
    "grpc-encoding": "bogus",
    "grpc-internal-encoding-request": "bogus",
    "grpc-previous-rpc-attempts": "many",
    "grpc-retry-pushback-ms": "soon",
    "grpc-status": "fine",
    "grpc-timeout": "later",
    "grpc-tags-bin": "%%%",
    "lb-cost-bin": "AAAA",
}


def headers(stage: Stage, method: str, path: str, content_type: str, **more: str) -> dict[str, str]:
    """Those of a request by a service of its own."""
    return {
        ":method": method,
        ":scheme": "http",
        ":authority": "gateway",
        ":path": path,
        "authorization": f"Bearer {stage.mint(as_service())}",
        "content-type": content_type,
        **more,
    }


def to_the_gateway(stage: Stage, fields: Mapping[str, str], body: bytes, trailers: http2.Fields | None = None) -> bytes:
    return http2.send((LOOPBACK, stage.stack.ports.gateway), fields, body, trailers)


@pytest.mark.parametrize("name", ODD_TRAILERS)
def test_the_trailers_of_a_request_change_nothing(stage: Stage, name: str) -> None:
    create = headers(stage, "POST", "/api/v1/tickets", "application/json")
    ticket = json.loads(to_the_gateway(stage, create, TICKET, ODD_TRAILERS[name]))
    assert ticket["subject"] == "s"

    read = headers(stage, "GET", f"/api/v1/tickets/{ticket['id']}", "application/json")
    assert json.loads(to_the_gateway(stage, read, b"", ODD_TRAILERS[name])) == ticket

    listed = to_the_gateway(
        stage, headers(stage, "POST", LIST_MY_TICKETS, "application/grpc"), NO_FIELDS, ODD_TRAILERS[name]
    )
    assert listed[:1] == b"\0"


def calls_that_fail(stage: Stage, metadata: tuple[tuple[str, str | bytes], ...], calls: int) -> list[str]:
    """What comes of calls by a caller who means no harm, with compressed requests, over connections of the gateway."""
    gateway = f"{LOOPBACK}:{stage.stack.ports.gateway}"
    token = ("authorization", f"Bearer {stage.mint(as_customer())}")
    with grpc.insecure_channel(
        gateway, options=[("grpc.enable_http_proxy", 0)], compression=grpc.Compression.Gzip
    ) as channel:
        call = channel.unary_unary(
            LIST_MY_TICKETS,
            request_serializer=ticket_service_pb2.ListMyTicketsRequest.SerializeToString,
            response_deserializer=ticket_service_pb2.ListTicketsResponse.FromString,
        )
        failures = []
        for _ in range(calls):
            try:
                call(ticket_service_pb2.ListMyTicketsRequest(), metadata=(token, *metadata), timeout=20)
            except grpc.RpcError as error:
                failures.append(str(error.details()))
    return failures


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_metadata_of_one_caller_does_not_fail_the_calls_of_others(stage: Stage, name: str) -> None:
    unreadable = headers(stage, "POST", LIST_MY_TICKETS, "application/grpc", **{name: UNREADABLE[name]})
    for _ in range(20):
        to_the_gateway(stage, unreadable, NO_FIELDS)

    metadata = ((name, b"\0" * 12),) if name == "lb-cost-bin" else ()
    assert calls_that_fail(stage, metadata, 40) == []
    readable = {**unreadable, name: "gzip"} if "encoding" in name else {**unreadable, name: "1S"}
    packed = gzip.compress(b"", mtime=0)
    body = b"\1" + len(packed).to_bytes(4, "big") + packed if name == "grpc-encoding" else NO_FIELDS
    assert {to_the_gateway(stage, readable, body)[:5] for _ in range(40)} == {NO_FIELDS}


def test_an_unreadable_deadline_of_one_stream_does_not_fail_the_streams_of_others(stage: Stage) -> None:
    path = "/nibble.notification.v1.NotificationService/StreamNotifications"
    unreadable = headers(stage, "POST", path, "application/grpc", **{"grpc-timeout": UNREADABLE["grpc-timeout"]})
    for _ in range(20):
        to_the_gateway(stage, unreadable, NO_FIELDS)  # refused, since it comes from a service
    assert {stage.grpc.call("StreamNotifications", as_customer()).code for _ in range(40)} == {OK}


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH"])
def test_grpc_is_posted(stage: Stage, method: str) -> None:
    fields = headers(stage, method, LIST_MY_TICKETS, "application/grpc")
    response = stage.rest.http.request(
        method, LIST_MY_TICKETS, content=NO_FIELDS, headers={k: v for k, v in fields.items() if k[0] != ":"}
    )
    assert response.headers["grpc-status"] == "12"


def test_grpc_works_behind_a_proxy_that_drops_te(stage: Stage) -> None:
    assert to_the_gateway(stage, headers(stage, "POST", LIST_MY_TICKETS, "application/grpc"), NO_FIELDS) == NO_FIELDS
