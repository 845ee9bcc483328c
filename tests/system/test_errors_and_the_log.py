"""What an operator finds in the logs, what a caller is told, and that neither learns what is the other's."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import psycopg
import pytest
from nibble.support.v1 import ticket_service_pb2

from tests.system.doors import Answer, Caller, Door, Grpc
from tests.system.stage import Stage
from tests.system.vocabulary import as_agent, as_customer, comment, eventually, move, new_id, open_ticket

# Short, since PostgreSQL cuts what it quotes of a row.
FORBIDDEN = f"forbidden-{new_id()}"
CONSTRAINT = "no_such_subject"

# What a caller may see beside an answer. The www-authenticate header is the one that RFC 6750 asks for.
REST_HEADERS = {
    *("content-type", "content-length", "date", "server", "vary", "x-request-id", "retry-after", "www-authenticate"),
}
GRPC_METADATA = {"date", "server", "vary", "x-request-id", "grpc-status-details-bin", "retry-after", "www-authenticate"}
LEAKS = ["traceback", "psycopg", "select", "insert", "constraint", "admin_service", "127.0.0.1", "localhost", ".py"]


def api_log(stage: Stage) -> list[dict[str, Any]]:
    """The lines of the API's log, of all its workers."""
    lines = (stage.stack.logs / "api.log").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def lines_about(stage: Stage, request_id: str, count: int) -> list[dict[str, Any]]:
    """The lines with this request id, once there are as many."""

    def found() -> list[dict[str, Any]]:
        return [line for line in api_log(stage) if line.get("request_id") == request_id]

    eventually(lambda: len(found()) >= count)
    return found()


@contextmanager
def database_that_refuses(stage: Stage, subject: str) -> Iterator[None]:
    """A table with a rule that the service does not know: a defect, as far as it can see."""
    table = "admin_service.support_tickets"
    with psycopg.connect(stage.stack.dsn, autocommit=True) as connection:
        connection.execute(f"ALTER TABLE {table} ADD CONSTRAINT {CONSTRAINT} CHECK (subject <> '{subject}') NOT VALID")
        try:
            yield
        finally:
            connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {CONSTRAINT}")


@pytest.fixture(scope="module")
def unexpected(stage: Stage) -> dict[str, Answer]:
    """An unexpected failure, by the name of the door."""
    with database_that_refuses(stage, FORBIDDEN):
        return {
            door.name: door.call("CreateTicket", as_customer(), subject=FORBIDDEN, description="d", key=new_id())
            for door in stage.doors
        }


def request_id_of(answer: Answer) -> str:
    (info,) = answer.payload["details"]
    request_id: str = info["metadata"]["request_id"]
    return request_id


def test_an_unexpected_failure_is_internal_and_tells_nothing_but_a_request_id(unexpected: dict[str, Answer]) -> None:
    for answer in unexpected.values():
        assert (answer.code, answer.reason) == (13, "INTERNAL")
        assert request_id_of(answer) in answer.payload["message"]
        told = json.dumps(answer.payload).lower()
        assert not [leak for leak in [*LEAKS, FORBIDDEN, CONSTRAINT] if leak in told], told


def test_the_log_has_the_cause_of_an_unexpected_failure_under_its_request_id(
    stage: Stage, unexpected: dict[str, Answer]
) -> None:
    assert len({request_id_of(answer) for answer in unexpected.values()}) == len(unexpected)
    for answer in unexpected.values():
        cause, call = lines_about(stage, request_id_of(answer), 2)
        assert CONSTRAINT in cause["exception"]
        assert (call["code"], call["method"]) == ("INTERNAL", "TicketService.CreateTicket")


def test_the_request_id_of_a_rest_answer_is_that_of_the_log(stage: Stage) -> None:
    owner = as_customer()
    ticket = open_ticket(stage.rest, owner)
    for path, code in ((f"/api/v1/tickets/{ticket['id']}", "OK"), (f"/api/v1/tickets/{new_id()}", "NOT_FOUND")):
        headers = {"authorization": f"Bearer {stage.mint(owner)}", "x-request-id": "of-the-callers-own-making"}
        answer = stage.rest.http.get(path, headers=headers)
        (line,) = lines_about(stage, answer.headers["x-request-id"], 1)
        assert (line["code"], line["role"], line["ticket_id"]) == (code, "customer", path.rpartition("/")[2])


# --- What is nobody's business ----------------------------------------------------------------------------------------


def secret(name: str) -> str:
    return f"{name}-{new_id()}"


@pytest.mark.usefixtures("unexpected")
def test_no_log_holds_a_text_a_token_or_a_key_of_a_caller(stage: Stage) -> None:
    owner, agent = as_customer(), as_agent()
    texts = {name: secret(name) for name in ("subject", "description", "comment", "note", "notes", "key", "cut")}
    for door in stage.doors:
        ticket = open_ticket(
            door, owner, subject=texts["subject"], description=texts["description"], key=texts["key"] + door.name[:1]
        )
        comment(door, owner, ticket, comment=texts["comment"])
        comment(door, agent, ticket, comment=texts["note"], is_internal=True)
        move(door, agent, ticket, "resolved", resolution_notes=texts["notes"])
        refuse_all(door, owner, ticket["id"], texts)
    token = stage.rest.call("ListMyTickets", owner, page_size=1).resource["next_page_token"]
    stage.rest.call("ListMyTickets", owner, page_token=token)
    refused_by_the_gateway(stage, owner, {"page_token": token, "colour": texts["cut"]})

    logs = {log.name: log.read_text(encoding="utf-8", errors="replace") for log in stage.stack.logs.iterdir()}
    assert {"api.log", "gateway.log", "relay.log", "postgres.log"} <= logs.keys()
    tokens = [stage.mint(owner).split(".")[1], stage.mint(agent).split(".")[1]]
    hidden = [*texts.values(), token, *tokens, FORBIDDEN]
    assert [(name, value) for name, log in logs.items() for value in hidden if value in log] == []


def refused_by_the_gateway(stage: Stage, caller: Caller, query: dict[str, str]) -> None:
    """A request that gets no further than the gateway, whose line is in the log by the end of this."""
    headers = {"authorization": f"Bearer {stage.mint(caller)}"}
    answer = stage.rest.http.get("/api/v1/tickets/my", params=query, headers=headers)
    assert answer.status_code == 400
    log = stage.stack.logs / "gateway.log"
    eventually(lambda: answer.headers["x-request-id"] in log.read_text(encoding="utf-8"), 20)


def refuse_all(door: Door, owner: Caller, ticket: str, texts: dict[str, str]) -> None:
    """Every kind of refusal of a request that holds a text."""
    refusals = [
        door.call("CreateTicket", owner, subject="s", description=texts["description"] + "\0"),
        door.call("CreateTicket", owner, subject=texts["subject"] * 10, description="d", order_id=texts["cut"]),
        door.call("CreateTicket", owner, subject="s", description="d", key=f"{texts['key']} x"),
        door.call("AddComment", owner, ticket_id=ticket, comment=texts["comment"], is_internal=True),
        door.call("AddComment", owner, ticket_id=texts["cut"], comment=texts["comment"]),
        door.call("UpdateTicketStatus", owner, ticket_id=ticket, status="resolved", resolution_notes=texts["notes"]),
        door.call("ListMyTickets", owner, page_token=texts["cut"]),
    ]
    assert {answer.code for answer in refusals} <= {3, 7}


# --- Headers and trailers ---------------------------------------------------------------------------------------------


def test_no_rest_answer_has_a_header_that_is_not_on_the_list(stage: Stage) -> None:
    token = stage.mint(as_customer())
    for path, status, authorization in (
        ("/api/v1/tickets/my", 200, f"Bearer {token}"),
        (f"/api/v1/tickets/{new_id()}", 404, f"Bearer {token}"),
        ("/api/v1/tickets", 403, f"Bearer {token}"),
        ("/api/v1/tickets/x", 400, f"Bearer {token}"),
        ("/api/v1/tickets/my", 401, "Bearer x"),
        ("/nothing", 404, ""),
    ):
        answer = stage.rest.http.get(path, headers={"authorization": authorization})
        assert answer.status_code == status
        assert set(answer.headers) <= REST_HEADERS, path


def metadata_of(door: Grpc, token: str, subject: str) -> list[tuple[str, str | bytes]]:
    """Everything that comes along with the answer to a CreateTicket, before it and after."""
    call = door.channel.unary_unary(
        "/nibble.support.v1.TicketService/CreateTicket",
        request_serializer=ticket_service_pb2.CreateTicketRequest.SerializeToString,
        response_deserializer=bytes,
    )
    request = ticket_service_pb2.CreateTicketRequest(subject=subject, description="d")
    try:
        done: Any = call.with_call(request, metadata=(("authorization", f"Bearer {token}"),), timeout=10)[1]
    except grpc.RpcError as error:
        done = error
    return [*done.initial_metadata(), *done.trailing_metadata()]


@pytest.mark.parametrize("subject", ["s", " "])
def test_no_grpc_answer_has_metadata_that_is_not_on_the_list(stage: Stage, subject: str) -> None:
    token = stage.mint(as_customer())
    for door in (stage.grpc, stage.own_port):
        for sent in (token, "x"):
            assert {name for name, _ in metadata_of(door, sent, subject)} <= GRPC_METADATA
