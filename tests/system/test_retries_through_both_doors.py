"""One idempotency key, whatever the door: one result."""

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from nibble.support.v1 import ticket_service_pb2, ticket_service_pb2_grpc

from tests.system.doors import Json, answer_in
from tests.system.stage import Stage
from tests.system.vocabulary import as_agent, as_customer, comment, move, new_id, open_ticket

AT_ONCE = 50


def test_a_retry_through_another_door_gets_the_first_ticket(stage: Stage) -> None:
    owner, key = as_customer(), new_id()
    first, *others = (open_ticket(door, owner, key=key) for door in stage.doors)

    assert others == [first, first]
    assert stage.rest.call("ListMyTickets", owner).resource["tickets"] == [first]


def test_a_retry_gets_the_ticket_as_it_was_first_returned(stage: Stage) -> None:
    owner, key = as_customer(), new_id()
    created = open_ticket(stage.rest, owner, key=key)
    move(stage.rest, as_agent(), created, "resolved")

    assert open_ticket(stage.grpc, owner, key=key) == created


def test_a_retried_comment_is_answered_even_when_the_ticket_has_been_closed(stage: Stage) -> None:
    owner, key = as_customer(), new_id()
    ticket = open_ticket(stage.rest, owner)
    written = stage.grpc.call("AddComment", owner, key=key, ticket_id=ticket["id"], comment="c").resource
    move(stage.rest, owner, ticket, "closed")

    for door in stage.doors:
        assert door.call("AddComment", owner, key=key, ticket_id=ticket["id"], comment="c").resource == written
    assert stage.rest.call("ListComments", owner, ticket_id=ticket["id"]).resource["comments"] == [written]


def test_a_key_is_its_callers_own(stage: Stage) -> None:
    key = new_id()
    one, other = open_ticket(stage.rest, as_customer(), key=key), open_ticket(stage.rest, as_customer(), key=key)
    assert one["id"] != other["id"]


def test_without_a_key_the_same_request_makes_another_ticket(stage: Stage) -> None:
    owner = as_customer()
    assert open_ticket(stage.rest, owner)["id"] != open_ticket(stage.rest, owner)["id"]


def test_a_refused_call_does_not_use_up_its_key(stage: Stage) -> None:
    owner, key = as_customer(), new_id()
    assert stage.rest.call("CreateTicket", owner, key=key, subject=" ", description="d").code == 3
    assert open_ticket(stage.grpc, owner, key=key)["version"] == 1


@pytest.mark.parametrize("key", ["!", "~" * 255, '"a,b"'])
def test_any_visible_key_is_taken_as_it_is_at_every_door(stage: Stage, key: str) -> None:
    owner = as_customer()
    first, *others = (open_ticket(door, owner, key=key) for door in stage.doors)
    assert others == [first, first]


@pytest.mark.parametrize("second", ["a", "b", ""])
def test_two_keys_in_one_call_are_refused_at_every_door(stage: Stage, second: str) -> None:
    keys = [
        ("authorization", f"Bearer {stage.mint(as_customer())}"),
        ("idempotency-key", "a"),
        ("idempotency-key", second),
    ]
    texts: Json = {"subject": "s", "description": "d"}

    refused = answer_in(stage.rest.http.post("/api/v1/tickets", json=texts, headers=keys))
    assert (refused.code, refused.bad_fields) == (3, ["idempotency-key"])
    for door in (stage.grpc, stage.own_port):
        stub = ticket_service_pb2_grpc.TicketServiceStub(door.channel)
        with pytest.raises(grpc.RpcError, match="idempotency-key") as caught:
            stub.CreateTicket(ticket_service_pb2.CreateTicketRequest(**texts), metadata=tuple(keys), timeout=10)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_many_at_once_through_every_door_make_one_ticket_and_one_event(stage: Stage) -> None:
    owner, key = as_customer(), new_id()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        tickets = list(pool.map(lambda i: open_ticket(stage.doors[i % 3], owner, key=key), range(AT_ONCE)))

    assert all(ticket == tickets[0] for ticket in tickets)
    assert stage.rest.call("ListMyTickets", owner).resource["tickets"] == tickets[:1]
    # The comment's event comes after all others of the ticket.
    comment(stage.rest, owner, tickets[0])
    events = stage.topic.events_of(tickets[0]["id"], 2)
    assert [event["event_type"] for event in events] == ["ticket_created", "ticket_commented"]
