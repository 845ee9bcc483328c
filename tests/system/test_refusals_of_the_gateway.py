"""What never reaches the service: answered by the gateway in the same form, and telling nothing about the inside."""

import contextlib
import http.client
import json
import random
import socket
import string
from typing import Any, NamedTuple

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

from devstack.ports import LOOPBACK
from tests.system.doors import Answer, answer_in
from tests.system.stage import Stage
from tests.system.vocabulary import as_agent, as_customer, dice, open_ticket

JSON = {"content-type": "application/json"}
TOO_MUCH = b'{"subject": "s", "description": "' + b"d" * (1 << 20) + b'"}'


class Refused(NamedTuple):
    """A request over REST, and what must come of it."""

    method: str
    path: str
    status: int
    code: int
    reason: str
    body: bytes = b""
    headers: dict[str, str] = JSON


def malformed(method: str, path: str, body: bytes = b"", **headers: str) -> Refused:
    """Not to be read."""
    return Refused(method, path, 400, 3, "MALFORMED_REQUEST", body, {**JSON, **headers})


TICKET = "/api/v1/tickets/0192f0c1-2345-7abc-8def-0123456789ab"

REFUSED = {
    "an unknown path": Refused("GET", "/api/v1/ticket", 404, 5, "UNKNOWN_PATH"),
    "the root": Refused("POST", "/", 404, 5, "UNKNOWN_PATH"),
    "a path too deep": Refused("GET", f"{TICKET}/history/1", 404, 5, "UNKNOWN_PATH"),
    "a gRPC path without gRPC": Refused("GET", "/nibble.support.v1.TicketService/GetTicket", 404, 5, "UNKNOWN_PATH"),
    "a method that no path takes": Refused("DELETE", TICKET, 405, 12, "METHOD_NOT_ALLOWED"),
    "a method that this path does not take": Refused("POST", f"{TICKET}/status", 405, 12, "METHOD_NOT_ALLOWED", b"{}"),
    "another kind of body": Refused(
        *("POST", "/api/v1/tickets", 415, 3, "UNSUPPORTED_MEDIA_TYPE", b"<ticket/>"), {"content-type": "text/xml"}
    ),
    "a body that is too large": Refused("POST", "/api/v1/tickets", 413, 8, "REQUEST_TOO_LARGE", TOO_MUCH),
    "headers that are too large": Refused(*("GET", TICKET, 431, 8, "REQUEST_TOO_LARGE", b""), {"x-long": "x" * 20_000}),
    "half of a JSON": malformed("POST", "/api/v1/tickets", b'{"subject": "s"'),
    "a body that is no object": malformed("POST", "/api/v1/tickets", b'["subject"]'),
    "a body that is not UTF-8": malformed("POST", "/api/v1/tickets", b'{"subject": "\xff", "description": "d"}'),
    "half of a surrogate pair": malformed("POST", "/api/v1/tickets", b'{"subject": "\\ud83c", "description": "d"}'),
    "a value of the wrong type": malformed("POST", "/api/v1/tickets", b'{"subject": ["s"], "description": "d"}'),
    "an unknown enum value": malformed("POST", "/api/v1/tickets", b'{"subject": "s", "priority": "asap"}'),
    "an id that is not UTF-8": malformed("GET", "/api/v1/tickets/%ff%fe"),
    "an id with a zero byte": malformed("GET", "/api/v1/tickets/%00"),
    "half of an escape": malformed("GET", "/api/v1/tickets/%f"),
    "an unknown query parameter": malformed("GET", "/api/v1/tickets?colour=red"),
    "a query that is not UTF-8": malformed("GET", "/api/v1/tickets?page_token=%ff"),
    "an id in the query": malformed("GET", f"{TICKET}?ticket_id=0192f0c1-2345-7abc-8def-0123456789ab"),
    "a HEAD": Refused("HEAD", TICKET, 405, 12, "METHOD_NOT_ALLOWED"),
    "a TRACE": Refused("TRACE", TICKET, 405, 12, "METHOD_NOT_ALLOWED"),
    "an OPTIONS that is no preflight": Refused("OPTIONS", TICKET, 405, 12, "METHOD_NOT_ALLOWED"),
    "a CONNECT": Refused("CONNECT", "gateway:443", 404, 5, "UNKNOWN_PATH"),
    "gRPC for browsers": Refused(
        *("POST", "/nibble.support.v1.TicketService/GetTicket", 404, 5, "UNKNOWN_PATH", b"\0\0\0\0\0"),
        {"content-type": "application/grpc-web+proto"},
    ),
    "an upgrade": malformed("GET", TICKET, connection="upgrade", upgrade="websocket"),
    "too many headers": Refused("GET", TICKET, 431, 8, "REQUEST_TOO_LARGE", b"", {f"x-{i}": "x" for i in range(120)}),
    "an escaped slash in an id": malformed("GET", "/api/v1/tickets/a%2fb"),
    "fields in the query of a write": malformed("POST", "/api/v1/tickets?subject=s", b'{"description": "d"}'),
}


def request(stage: Stage, refused: Refused, token: str | None) -> httpx.Response:
    # Not by httpx: it would repair paths before sending them.
    connection = http.client.HTTPConnection(LOOPBACK, stage.stack.ports.gateway, timeout=20)
    with contextlib.closing(connection):
        authorization = {} if token is None else {"authorization": f"Bearer {token}"}
        connection.request(refused.method, refused.path, refused.body or None, {**refused.headers, **authorization})
        raw = connection.getresponse()
        return httpx.Response(raw.status, headers=raw.getheaders(), content=raw.read())


def insist_on_form(response: httpx.Response) -> Answer:
    """What the response says; AssertionError when it has another form than errors have, or leaks."""
    assert response.headers["content-type"].startswith("application/json"), response.headers
    leaked = [name for name in response.headers if name.startswith(("grpc-", "x-envoy-"))]
    assert not leaked
    assert response.headers["server"] == "nibble"
    answer = answer_in(response)
    assert answer.payload["message"]
    assert answer.reason
    return answer


def reason_of(error: Any) -> str:  # noqa: ANN401 - an RpcError that is a Call too
    """The reason that a gRPC caller gets; the empty string where there is none."""
    info = error_details_pb2.ErrorInfo()
    status = rpc_status.from_call(error)
    return str(info.reason) if status and status.details[0].Unpack(info) else ""


@pytest.mark.parametrize("name", REFUSED)
def test_a_request_that_cannot_be_served_gets_an_error_in_the_form_of_all_errors(stage: Stage, name: str) -> None:
    refused = REFUSED[name]
    response = request(stage, refused, stage.mint(as_agent()))
    if refused.method == "HEAD":
        assert (response.status_code, response.content) == (refused.status, b"")
        return
    answer = insist_on_form(response)

    assert (response.status_code, answer.code, answer.reason) == (refused.status, refused.code, refused.reason)


def test_a_refused_method_is_answered_with_those_that_the_path_takes(stage: Stage) -> None:
    for path, allowed in {"/api/v1/tickets": "GET, POST", TICKET: "GET", f"{TICKET}/assign": "PUT"}.items():
        response = request(stage, Refused("PATCH", path, 405, 12, ""), stage.mint(as_agent()))
        assert response.headers["allow"] == allowed


def test_a_missing_token_is_an_error_in_the_form_of_all_errors(stage: Stage) -> None:
    response = request(stage, Refused("GET", TICKET, 401, 16, "INVALID_TOKEN"), None)
    answer = insist_on_form(response)

    assert (response.status_code, answer.code, answer.reason) == (401, 16, "INVALID_TOKEN")


def test_an_error_of_the_service_leaks_no_header_either(stage: Stage) -> None:
    response = request(stage, Refused("GET", TICKET, 404, 5, "TICKET_NOT_FOUND"), stage.mint(as_agent()))
    answer = insist_on_form(response)

    assert (response.status_code, answer.reason) == (404, "TICKET_NOT_FOUND")


def test_a_success_leaks_no_header_either(stage: Stage) -> None:
    owner = as_customer()
    ticket = open_ticket(stage.rest, owner)
    response = stage.rest.http.get(
        f"/api/v1/tickets/{ticket['id']}", headers={"authorization": f"Bearer {stage.mint(owner)}"}
    )

    assert response.status_code == 200
    assert not [name for name in response.headers if name.startswith(("grpc-", "x-envoy-"))]


def test_health_needs_no_token(stage: Stage) -> None:
    assert stage.rest.http.get("/healthz").status_code == 200


def refusal_of(channel: grpc.Channel, method: str, token: str) -> tuple[grpc.StatusCode, str]:
    """Code and reason with which a gRPC call without content is refused."""
    call = channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
    with pytest.raises(grpc.RpcError) as caught:
        call(b"", metadata=(("authorization", f"Bearer {token}"),), timeout=10)
    return caught.value.code(), reason_of(caught.value)


@pytest.mark.parametrize("method", ["/nibble.support.v1.TicketService/Nothing", "/nibble.support.v2.Nothing/Get"])
def test_a_call_that_does_not_exist_is_unimplemented_for_grpc_callers(stage: Stage, method: str) -> None:
    token = stage.mint(as_agent())
    for channel in (stage.grpc.channel, stage.own_port.channel):
        assert refusal_of(channel, method, token) == (grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED")


def test_the_gateway_does_not_offer_the_health_of_a_single_worker(stage: Stage) -> None:
    refused = refusal_of(stage.grpc.channel, "/grpc.health.v1.Health/Check", stage.mint(as_agent()))
    assert refused == (grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED")


def test_the_gateway_offers_no_reflection(stage: Stage) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        ProtoReflectionDescriptorDatabase(stage.grpc.channel).get_services()
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_headers_that_the_gateway_lets_through_are_not_too_large_for_the_service(stage: Stage) -> None:
    token = stage.mint(as_agent())
    for _ in range(30):
        accepted = Refused("GET", "/api/v1/tickets/my", 200, 0, "", headers={"x-long": "x" * 14_000})
        response = request(stage, accepted, token)
        assert response.status_code == 200, response.text


# --- What is hardly HTTP; the head without the last line ---

BODY = "content-type: application/json\r\n"
HARDLY_HTTP = {
    "no host": "GET /api/v1/tickets/my HTTP/1.1",
    "HTTP/1.0": "GET /api/v1/tickets/my HTTP/1.0\r\nhost: gateway",
    "HTTP/0.9": "GET /",
    "an unknown method": "FETCH /api/v1/tickets HTTP/1.1\r\nhost: gateway",
    "two lengths": f"POST /api/v1/tickets HTTP/1.1\r\nhost: gateway\r\n{BODY}content-length: 2\r\ncontent-length: 3",
    "a length that is no number": f"POST /api/v1/tickets HTTP/1.1\r\nhost: gateway\r\n{BODY}content-length: two",
    "a length and chunks": f"POST /api/v1/tickets HTTP/1.1\r\nhost: gateway\r\n{BODY}content-length: 2\r\n"
    "transfer-encoding: chunked",
    "an unknown transfer encoding": f"POST /api/v1/tickets HTTP/1.1\r\nhost: gateway\r\n{BODY}transfer-encoding: gzip",
    "a header's name with a blank": "GET / HTTP/1.1\r\nhost: gateway\r\nx y: z",
    "a zero byte in a header": "GET / HTTP/1.1\r\nhost: gateway\r\nx: a\0b",
    "TLS where none is spoken": "\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
    "a fragment in the path": "GET /api/v1/tickets/my#top HTTP/1.1\r\nhost: gateway",
}


def answer_to(port: int, wire: bytes) -> httpx.Response:
    with socket.create_connection((LOOPBACK, port), timeout=20) as connection:
        connection.sendall(wire)
        with contextlib.closing(http.client.HTTPResponse(connection)) as raw:
            raw.begin()
            return httpx.Response(raw.status, headers=raw.getheaders(), content=raw.read())


@pytest.mark.parametrize("name", HARDLY_HTTP)
def test_what_is_hardly_http_gets_an_error_in_the_form_of_all_errors(stage: Stage, name: str) -> None:
    response = answer_to(stage.stack.ports.gateway, f"{HARDLY_HTTP[name]}\r\n\r\n".encode("latin-1"))
    answer = insist_on_form(response)

    assert (response.status_code, answer.code, answer.reason) == (400, 3, "MALFORMED_REQUEST")


def test_chunks_that_cannot_be_told_apart_are_refused(stage: Stage) -> None:
    head = f"POST /api/v1/tickets HTTP/1.1\r\nhost: gateway\r\n{BODY}authorization: Bearer {stage.mint(as_agent())}\r\n"
    wire = f"{head}transfer-encoding: chunked\r\n\r\nzz\r\n{{}}\r\n0\r\n\r\n".encode()
    assert insist_on_form(answer_to(stage.stack.ports.gateway, wire)).reason == "MALFORMED_REQUEST"


# --- No bytes yield a 5xx ---------------------------------------------------------------------------------------------

ANY_PATH = string.printable.strip() + "%" * 20


def junk(chance: random.Random, longest: int) -> bytes:
    return chance.randbytes(chance.randrange(longest))


def escapes(chance: random.Random, longest: int) -> str:
    return "".join(
        chance.choice([f"%{byte:02x}", chr(byte)]) if 33 <= byte < 127 else f"%{byte:02X}"
        for byte in junk(chance, longest)
    )


def random_request(chance: random.Random, token: str) -> bytes:
    """A request as it goes over the wire, wrong in one place or more."""
    paths = [
        f"/api/v1/tickets/{escapes(chance, 12)}",
        f"/api/v1/tickets?{escapes(chance, 12)}={escapes(chance, 12)}",
        f"/api/v1/tickets?page_token={escapes(chance, 30)}&page_size={escapes(chance, 4)}",
        f"{TICKET}/{''.join(chance.choices(ANY_PATH, k=6))}",
        "/api/v1/tickets",
    ]
    body = json.dumps({"subject": "s", "description": "d"}).encode()
    if chance.random() < 0.7:
        body = body[: chance.randrange(len(body))] + junk(chance, 8) + body[chance.randrange(len(body)) :]
    method = chance.choice(["GET", "POST"])
    if method == "GET" and chance.random() < 0.7:
        body = b""  # any other one is refused before the rest is looked at
    key = junk(chance, 12).replace(b"\r", b"").replace(b"\n", b"")
    head = f"{method} {chance.choice(paths)} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\nauthorization: Bearer {token}\r\n"
    return head.encode() + b"idempotency-key: " + key + b"\r\n\r\n" + body


def status_of(port: int, wire: bytes) -> int:
    with socket.create_connection((LOOPBACK, port), timeout=20) as connection:
        connection.sendall(wire)
        response = http.client.HTTPResponse(connection)
        with contextlib.closing(response):
            response.begin()
            return response.status


def test_no_bytes_in_path_query_header_or_body_yield_a_server_error(stage: Stage) -> None:
    chance = dice("bytes")
    token = stage.mint(as_agent())
    seen: dict[int, int] = {}
    for _ in range(400):
        wire = random_request(chance, token)
        status = status_of(stage.stack.ports.gateway, wire)
        assert status < 500, wire
        seen[status] = seen.get(status, 0) + 1
    assert {200, 400} <= seen.keys(), seen


def test_no_bytes_in_a_grpc_message_yield_a_server_error(stage: Stage) -> None:
    chance = dice("messages")
    metadata: Any = (("authorization", f"Bearer {stage.mint(as_agent())}"),)
    for channel in (stage.grpc.channel, stage.own_port.channel):
        call = channel.unary_unary(
            "/nibble.support.v1.TicketService/CreateTicket", request_serializer=bytes, response_deserializer=bytes
        )
        for _ in range(100):
            with pytest.raises(grpc.RpcError) as caught:
                call(junk(chance, 20), metadata=metadata, timeout=10)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
