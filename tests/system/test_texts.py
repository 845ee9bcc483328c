"""Every text field, with whatever a text can hold, through every door: stored as the rules say, or refused by name."""

import json
import re
import unicodedata
from typing import Any, NamedTuple

import grpc
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.system.doors import OK, Answer, Caller, Door, answer_in, error_in
from tests.system.stage import Stage
from tests.system.vocabulary import as_agent, as_customer, move, open_ticket

INVALID_ARGUMENT = 3
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# They print nothing, though Unicode calls them letters or symbols.
FILLERS = "\u115f\u1160\u2800\u3164\uffa0"
AWKWARD = (
    "\0\t\n\r\x1f\x7f\x85\xa0\xad\u0301\u061c\u180e\u200b\u200d\u2028\u202e\u2066\u3000\u3164\ufeff\ufffd\ufffe\uffff"
)
EXAMPLES = 60

texts = st.text(st.sampled_from(AWKWARD) | st.characters(codec="utf-8"), max_size=30)


class Place(NamedTuple):
    """A field that takes a text: the call, the field, its limit, and what the call needs beside it."""

    call: str
    field: str
    limit: int
    beside: dict[str, Any]


PLACES = [
    Place("CreateTicket", "subject", 200, {"description": "d"}),
    Place("CreateTicket", "description", 10_000, {"subject": "s"}),
    Place("AddComment", "comment", 10_000, {}),
    Place("UpdateTicketStatus", "resolution_notes", 10_000, {"status": "resolved"}),
    Place("RateTicket", "remark", 2_000, {"rating": 3}),
]


def stored(text: str, limit: int) -> str | None:
    """The text as section 3 has it stored, None where it is refused."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    kept = lines.strip()
    seen = [c for c in kept if not c.isspace() and c not in FILLERS and unicodedata.category(c) != "Cf"]
    return kept if seen and len(kept) <= limit and not CONTROL.search(lines) else None


def write(door: Door, place: Place, text: str) -> Answer:
    """The text in its place, on a ticket of its own."""
    owner, fields = as_customer(), {**place.beside, place.field: text}
    if place.call == "CreateTicket":
        return door.call(place.call, owner, **fields)
    ticket = open_ticket(door, owner)
    if place.call == "RateTicket":
        move(door, as_agent(), ticket, "resolved")
    caller = as_agent() if place.call == "UpdateTicketStatus" else owner
    return door.call(place.call, caller, ticket_id=ticket["id"], **fields)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.field)
def test_any_text_is_stored_as_the_rules_say_or_refused_by_its_name(stage: Stage, place: Place) -> None:
    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(texts, st.integers(0, 2))
    @example("\0", 0)
    @example("a\0b", 1)
    @example("\U0010ffff", 0)
    @example("\ufffe", 1)
    @example("🍲" * place.limit, 0)
    @example("🍲" * (place.limit + 1), 2)
    def check(text: str, number: int) -> None:
        answer, right = write(stage.doors[number], place, text), stored(text, place.limit)
        if right is None:
            assert (answer.code, answer.bad_fields) == (INVALID_ARGUMENT, [place.field]), answer
        else:
            assert answer.code == OK, answer
            assert answer.payload[place.field] == right

    check()


def post(stage: Stage, caller: Caller, body: bytes) -> Answer:
    """CreateTicket over REST with just these bytes."""
    headers = {"authorization": f"Bearer {stage.mint(caller)}", "content-type": "application/json"}
    return answer_in(stage.rest.http.post("/api/v1/tickets", content=body, headers=headers))


NO_UTF8 = [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80"]
NO_SURROGATE_PAIRS = [rb"\ud800", rb"\udc00", rb"\ud83c!", rb"\udf72\ud83c"]


@pytest.mark.parametrize("part", [*NO_UTF8, *NO_SURROGATE_PAIRS], ids=repr)
def test_a_body_that_is_no_unicode_is_the_callers_mistake_or_repaired_but_never_ours(stage: Stage, part: bytes) -> None:
    owner = as_customer()
    answer = post(stage, owner, b'{"subject": "a' + part + b'z", "description": "d"}')
    assert answer.code in (OK, INVALID_ARGUMENT), answer
    if answer.code == OK:
        # Whatever came of it, it reads the same everywhere from then on.
        assert json.dumps(answer.payload).encode()
        assert stage.grpc.call("GetTicket", owner, ticket_id=answer.payload["id"]).resource == answer.payload


@pytest.mark.parametrize("part", NO_UTF8, ids=repr)
def test_a_message_that_is_no_utf8_is_malformed_at_both_grpc_doors(stage: Stage, part: bytes) -> None:

    text = b"a" + part + b"z"
    request = b"\x0a" + bytes([len(text)]) + text + b"\x12\x01d"
    for door in (stage.grpc, stage.own_port):
        stub: Any = door.channel.unary_unary("/nibble.support.v1.TicketService/CreateTicket")
        with pytest.raises(grpc.RpcError) as refusal:
            stub(request, metadata=(("authorization", f"Bearer {stage.mint(as_customer())}"),), timeout=10)
        answer = error_in(refusal.value)
        assert (answer.code, answer.reason) == (INVALID_ARGUMENT, "MALFORMED_REQUEST")
