"""One token, one verdict: REST and gRPC through the gateway, and the server's own port."""

import base64
import http.client
import json
import random
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import grpc
import httpx
import pytest

from tests.system.doors import Door, Grpc, answer_in, error_in
from tests.system.stage import Stage
from tests.system.tokens import LATE_KEY, LEEWAY, framed, kinds, publish, raw_header, signed, written
from tests.system.vocabulary import as_customer, as_supervisor, dice, eventually, new_id, open_ticket
from tests.unit.signing import signer

UNAUTHENTICATED = 16
REFUSED = (UNAUTHENTICATED, "INVALID_TOKEN")
KINDS = kinds()


def verdict(door: Door, authorization: str) -> tuple[int, str]:
    """What the door says to a call that every role but a user's may make."""
    answer = door.call_with("ListTickets", {"authorization": authorization}, page_size=1)
    return answer.code, answer.reason


@pytest.mark.parametrize("name", KINDS)
def test_a_token_has_one_verdict_at_every_door(stage: Stage, name: str) -> None:
    kind = KINDS[name]
    verdicts = {door.name: verdict(door, kind.authorization()) for door in stage.doors}
    assert verdicts == dict.fromkeys(verdicts, (0, "") if kind.is_good else REFUSED)


def test_there_are_tokens_of_many_kinds() -> None:
    assert sum(kind.is_good for kind in KINDS.values()) > 20
    assert sum(not kind.is_good for kind in KINDS.values()) > 150


def damaged(chance: random.Random) -> str:
    """A token with a few characters changed: of what it looks like, or of what it says before it is signed."""

    def change(text: str, damage: Sequence[str]) -> str:
        start = chance.randrange(len(text))
        return text[:start] + chance.choice(damage) + text[start + chance.randrange(3) :]

    within = partial(change, damage=["", '"', "{", "]", ",", "\\", "-", "1e9", "\x00", "é", "\\u0000", "\\ud800", " "])
    outside = partial(change, damage=["", "A", "_", ".", "=", "+", "/", "~", ","])
    if chance.random() < 0.5:
        return f"Bearer {outside(signed()().removeprefix('Bearer '))}"
    return chance.choice([written(within), raw_header(within)])()


def test_whatever_is_damaged_about_a_token_the_verdict_is_one(stage: Stage) -> None:
    chance = dice("damaged tokens")
    seen = set()
    for _ in range(150):
        authorization = damaged(chance)
        verdicts = {verdict(door, authorization) for door in stage.doors}
        assert len(verdicts) == 1, (authorization, verdicts)
        seen |= verdicts
    assert seen <= {(0, ""), REFUSED}
    assert REFUSED in seen


# --- blanks, which HTTP clients and gRPC clients don't all send ---


def over_a_plain_connection(stage: Stage, *authorizations: str) -> tuple[int, str]:
    """The verdict on headers exactly as they are, over HTTP/1.1."""
    connection = http.client.HTTPConnection(stage.stack.gateway_url.removeprefix("http://"), timeout=20)
    try:
        connection.putrequest("GET", "/api/v1/tickets?page_size=1")
        for value in authorizations:
            connection.putheader("authorization", value)
        connection.endheaders()
        response = connection.getresponse()
        answer = answer_in(httpx.Response(response.status, content=response.read()))
        return answer.code, answer.reason
    finally:
        connection.close()


@pytest.mark.parametrize("blanks", ["{}", " {}", "{} ", "  {}  "])
def test_blanks_around_the_header_are_no_part_of_it(stage: Stage, blanks: str) -> None:
    authorization = blanks.format(framed("Bearer {}")())
    assert over_a_plain_connection(stage, authorization) == (0, "")
    assert verdict(stage.grpc, authorization) == (0, "")
    assert verdict(stage.own_port, authorization) == (0, "")


def test_a_scheme_and_a_blank_are_no_token(stage: Stage) -> None:
    assert over_a_plain_connection(stage, "Bearer ") == REFUSED
    assert verdict(stage.grpc, "Bearer ") == REFUSED
    assert verdict(stage.own_port, "Bearer ") == REFUSED


@pytest.mark.parametrize("frame", ["Bearer\t{}", "Bearer \t{}", "Bearer {}\t."])
def test_a_tab_is_no_blank(stage: Stage, frame: str) -> None:
    # gRPC's own clients send none.
    assert over_a_plain_connection(stage, framed(frame)()) == REFUSED


# --- two tokens ---


def over_grpc(door: Grpc, *authorizations: str) -> tuple[int, str]:
    """The verdict on several entries of the same name."""
    call: Any = door.channel.unary_unary("/nibble.support.v1.TicketService/ListTickets")
    try:
        call(b"", metadata=[("authorization", value) for value in authorizations], timeout=20)
    except grpc.RpcError as error:
        answer = error_in(error)
        return answer.code, answer.reason
    return 0, ""


@pytest.mark.parametrize("second", ["Bearer x", "Basic x", "x", "the same"])
@pytest.mark.parametrize("good_first", [True, False])
def test_two_tokens_are_none(stage: Stage, second: str, good_first: bool) -> None:
    good = signed()()
    pair = [good, good if second == "the same" else second]
    authorizations = pair if good_first else pair[::-1]
    assert over_a_plain_connection(stage, *authorizations) == REFUSED
    assert over_grpc(stage.grpc, *authorizations) == REFUSED
    assert over_grpc(stage.own_port, *authorizations) == REFUSED
    assert over_grpc(stage.own_port, good) == (0, "")


def test_an_empty_header_is_no_token_and_takes_none_away(stage: Stage) -> None:
    good = signed()()
    for authorizations, said in ((("", good), (0, "")), ((good, ""), (0, "")), (("", ""), REFUSED)):
        assert over_a_plain_connection(stage, *authorizations) == said
        assert over_grpc(stage.grpc, *authorizations) == said
        assert over_grpc(stage.own_port, *authorizations) == said


@pytest.mark.parametrize("name", ["proxy-authorization", "x-authorization", "x-forwarded-authorization", "cookie"])
def test_a_token_anywhere_else_is_none(stage: Stage, name: str) -> None:
    for door in stage.doors:
        answer = door.call_with("ListTickets", {name: signed()()}, page_size=1)
        assert (answer.code, answer.reason) == REFUSED, door.name


def test_a_token_in_the_query_is_none(stage: Stage) -> None:
    bare = signed()().removeprefix("Bearer ")
    for parameter in ("access_token", "token", "authorization"):
        response = stage.rest.http.get("/api/v1/tickets", params={parameter: bare})
        answer = answer_in(response)
        assert (answer.code, answer.reason) == REFUSED


# --- the end and the beginning ---

# Asks again and again: the gateway lets services make many calls.
IMPATIENT = {"role": "service", "sub": new_id}


def test_a_token_ends_at_every_door_a_leeway_after_its_end(stage: Stage) -> None:
    end = int(time.time()) + 3
    authorization = signed(exp=end - LEEWAY, **IMPATIENT)()
    # Believed and remembered while it lasts; nobody believes it any longer than that.
    for door in stage.doors:
        assert believed_at(door, authorization) or time.time() >= end
    still = list(stage.doors)
    while still:
        for door in list(still):
            began = time.time()
            if believed_at(door, authorization):
                assert began < end, door.name
            else:
                assert time.time() >= end, door.name
                still.remove(door)


@pytest.mark.parametrize("claim", ["nbf", "iat"])
def test_a_token_begins_at_every_door_a_leeway_before_its_beginning(stage: Stage, claim: str) -> None:
    beginning = int(time.time()) + 2
    authorization = signed(**{claim: beginning + LEEWAY}, **IMPATIENT)()
    waiting = list(stage.doors)
    while waiting:
        for door in list(waiting):
            began = time.time()
            if believed_at(door, authorization):
                assert time.time() >= beginning, door.name
                waiting.remove(door)
            else:
                assert began < beginning, door.name


def believed_at(door: Door, authorization: str) -> bool:
    """Whether the door lets the token in; AssertionError when it says anything but yes and no."""
    said = verdict(door, authorization)
    assert said in {(0, ""), REFUSED}, (door.name, said)
    return said == (0, "")


# --- whom a caller says that it is, beside the token ---

SPOOFS = {
    "x-user-id": "{id}",
    "X-User-Id": "{id}",
    "x-user-role": "support_supervisor",
    "x-role": "support_supervisor",
    "X-Role": "support_supervisor",
    "x-roles": "support_supervisor",
    "x-sub": "{id}",
    "x-auth-request-user": "{id}",
    "x-remote-user": "{id}",
    "x-jwt-payload": "{payload}",
    "x-endpoint-api-userinfo": "{payload}",
    "x-forwarded-user": "{id}",
    "x-forwarded-for": "127.0.0.1",
    "x-forwarded-client-cert": "By=spiffe://nibble/support;URI=spiffe://nibble/admin",
    "x-envoy-internal": "true",
    "x-original-user": "{id}",
    "role": "support_supervisor",
    "sub": "{id}",
    "user-id": "{id}",
}


@pytest.mark.parametrize("name", SPOOFS)
def test_what_a_caller_says_of_itself_beside_its_token_changes_nothing(stage: Stage, name: str) -> None:
    me, other = as_customer(), as_supervisor()
    theirs = open_ticket(stage.rest, as_customer())
    payload = json.dumps({"sub": other.id, "role": other.role})
    said = SPOOFS[name].format(id=theirs["user_id"], payload=base64.b64encode(payload.encode()).decode())
    for door in stage.doors:
        honest = {"authorization": f"Bearer {stage.mint(me)}"}
        # gRPC knows names in lower case only.
        spoofed = {**honest, (name if door is stage.rest else name.lower()): said}
        for call, fields in (
            ("GetTicket", {"ticket_id": theirs["id"]}),
            ("AssignTicket", {"ticket_id": theirs["id"], "assigned_to": me.id}),
            ("ListTickets", {}),
            ("ListMyTickets", {}),
        ):
            plain = door.call_with(call, honest, **fields)
            assert door.call_with(call, spoofed, **fields) == plain, (door.name, call)
            assert door.call_with(call, {name.lower(): said}, **fields).code == UNAUTHENTICATED, (door.name, call)
        created = door.call_with("CreateTicket", spoofed, subject="Cold soup", description="It was hot.")
        assert created.resource["user_id"] == me.id, door.name


# --- new keys ---


def test_a_new_key_works_on_the_servers_own_port_within_seconds(stage: Stage) -> None:
    new = signer("RS256", new_id())
    publish(stage.stack.identity.jwks_file, new)
    # At once, or after the rest that the server takes between two looks at the key set.
    eventually(lambda: believed_at(stage.own_port, signed(new)()), within=15)


def test_a_new_key_works_at_every_door_within_two_minutes(stage: Stage) -> None:
    # Published when the stage was set up, so that a run of all tests need not wait for the gateway here.
    authorization = signed(signer("ES256", LATE_KEY))()
    for door in stage.doors:
        left = stage.late_key_since + 120 - time.monotonic()
        eventually(lambda door=door: believed_at(door, authorization), within=max(left, 0))  # type: ignore[misc]
