"""What a REST request may hold: the gateway lets through what the contract allows, and names what it does not."""

import http.client
import json
import re
import string
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple

import httpx
import pytest
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from nibble.notification.v1 import notification_pb2, notification_service_pb2
from nibble.support.v1 import (
    actor_pb2,
    agent_pb2,
    agent_service_pb2,
    comment_service_pb2,
    privacy_service_pb2,
    ticket_pb2,
    ticket_service_pb2,
)

from devstack.ports import LOOPBACK
from tests.system.doors import EVERY_CALL, Answer, Json, answer_in
from tests.system.stage import Stage
from tests.system.vocabulary import as_service, as_supervisor, new_id

NOBODY = "0192f0c1-2345-7abc-8def-0123456789ab"
REQUESTS: dict[str, type[Message]] = {
    "CreateTicket": ticket_service_pb2.CreateTicketRequest,
    "UpdateTicketStatus": ticket_service_pb2.UpdateTicketStatusRequest,
    "AssignTicket": ticket_service_pb2.AssignTicketRequest,
    "AddComment": comment_service_pb2.AddCommentRequest,
    "RevealTicket": ticket_service_pb2.RevealTicketRequest,
    "RevealComment": comment_service_pb2.RevealCommentRequest,
    "RateTicket": ticket_service_pb2.RateTicketRequest,
    "ErasePersonalData": privacy_service_pb2.ErasePersonalDataRequest,
    "ExportPersonalData": privacy_service_pb2.ExportPersonalDataRequest,
    "SetAgent": agent_service_pb2.SetAgentRequest,
    "SetAgentAvailability": agent_service_pb2.SetAgentAvailabilityRequest,
    "ReassignTickets": agent_service_pb2.ReassignTicketsRequest,
    "MarkNotificationsRead": notification_service_pb2.MarkNotificationsReadRequest,
    "UpdateNotificationPreferences": notification_service_pb2.UpdateNotificationPreferencesRequest,
}


def send(stage: Stage, call: str, body: bytes, **headers: str) -> httpx.Response:
    """The answer to a write with this body, as a service makes it, on a ticket that nobody has."""
    binding = EVERY_CALL[call]
    token = {"authorization": f"Bearer {stage.mint(as_service())}", "content-type": "application/json"}
    path = re.sub("{[a-z_]+}", NOBODY, binding.path)
    return stage.rest.http.request(binding.verb, path, content=body, headers={**token, **headers})


def refused_by_the_gateway(response: httpx.Response) -> Answer | None:
    """What the gateway says; None where the service was asked."""
    assert response.status_code < 500, response.text
    answer = answer_in(response)
    return answer if answer.reason == "MALFORMED_REQUEST" else None


def refusal(stage: Stage, body: bytes, call: str = "CreateTicket") -> Answer:
    answer = refused_by_the_gateway(send(stage, call, body))
    assert answer, body
    return answer


# --- bodies ---


def test_a_misspelt_field_does_not_look_like_success(stage: Stage) -> None:
    answer = refusal(stage, b'{"subject": "s", "description": "d", "priorty": "high"}')

    assert answer.bad_fields == ["priorty"]
    assert "allowed are: description, order_id, priority, subject, user_id" in answer.payload["message"]


def test_all_bad_fields_are_named_at_once(stage: Stage) -> None:
    body = b'{"subjct": "s", "priority": "asap", "order_id": null, "subject": 1, "userId": "x", "description": "d"}'
    answer = refusal(stage, body)

    assert answer.bad_fields == ["subjct", "priority", "order_id", "subject", "userId"]
    assert all(name in answer.payload["message"] for name in answer.bad_fields)


@pytest.mark.parametrize("name", [b"subject", b"s\\u0075bject", b"\\u0073\\u0075\\u0062\\u006a\\u0065\\u0063\\u0074"])
def test_a_repeated_field_is_refused_however_it_is_spelt(stage: Stage, name: bytes) -> None:
    assert refusal(stage, b'{"' + name + b'": "s", "subject": "t", "description": "d"}').bad_fields == ["subject"]


def test_a_field_may_be_spelt_with_escapes(stage: Stage) -> None:
    response = send(stage, "CreateTicket", b'{"s\\u0075bject": "s", "description": "d", "priority": "h\\u0069gh"}')
    assert (response.status_code, response.json()["priority"]) == (200, "high")


NO_JSON_OBJECT = {
    "nothing": b"",
    "blanks": b" \n",
    "an array": b'[{"subject": "s"}]',
    "a string": b'"subject"',
    "two objects": b'{"subject": "s"}{"subject": "s"}',
    "an object in an object's place": b'{{"subject": "s"}}',
    "single quotes": b"{'subject': 's'}",
    "names without quotes": b'{subject: "s"}',
    "a comma at the end": b'{"subject": "s",}',
    "a comma too many": b'{"subject": "s",, "description": "d"}',
    "no comma": b'{"subject": "s" "description": "d"}',
    "no colon": b'{"subject" "s"}',
    "a comment": b'{"subject": "s" /* s */}',
    "a byte order mark": b'\xef\xbb\xbf{"subject": "s"}',
    "UTF-16": '{"subject": "s"}'.encode("utf-16"),
    "bytes that are not UTF-8": b'{"subject": "\xff"}',
    "an overlong encoding": b'{"subject": "\xc0\xaf"}',
    "an encoded surrogate": b'{"subject": "\xed\xa0\x80"}',
    "a code point beyond Unicode": b'{"subject": "\xf4\x90\x80\x80"}',
    "half of a character": b'{"subject": "\xe2\x82"}',
    "half of a pair": b'{"subject": "\\ud83d"}',
    "the other half of a pair": b'{"subject": "\\ude00"}',
    "a pair the wrong way round": b'{"subject": "\\ude00\\ud83d"}',
    "an unknown escape": b'{"subject": "\\x41"}',
    "a short escape": b'{"subject": "\\u41"}',
    "a newline in a string": b'{"subject": "a\nb"}',
    "a zero byte in a string": b'{"subject": "a\0b"}',
    "a zero byte behind": b'{"subject": "s"}\0',
    "a string without end": b'{"subject": "s}',
    "no number": b'{"subject": NaN}',
    "infinity": b'{"subject": -Infinity}',
    "a leading zero": b'{"subject": 01}',
    "a plus": b'{"subject": +1}',
    "no digit before the point": b'{"subject": .5}',
    "no digit behind the point": b'{"subject": 1.}',
    "hexadecimal": b'{"subject": 0x1}',
    "half a word": b'{"subject": tru}',
    "a capital word": b'{"subject": True}',
    "deep nesting": b'{"subject": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "an unclosed array": b'{"subject": [1}',
}


@pytest.mark.parametrize("shape", NO_JSON_OBJECT)
def test_what_is_not_one_json_object_is_refused(stage: Stage, shape: str) -> None:
    answer = refusal(stage, NO_JSON_OBJECT[shape])
    assert answer.bad_fields == ["body"]
    assert "must be one JSON object" in answer.payload["message"]


@pytest.mark.parametrize(
    "text", ['"1"', "1.0", "1e2", "null", "true", "2147483648", "-2147483649", "9" * 5000, "[1]", "{}"]
)
def test_an_integer_is_written_in_digits_and_has_32_bits(stage: Stage, text: str) -> None:
    body = f'{{"status": "closed", "expected_version": {text}}}'.encode()
    assert refusal(stage, body, "UpdateTicketStatus").bad_fields == ["expected_version"]


@pytest.mark.parametrize("text", ["2147483647", "-2147483648", "0", "-0"])
def test_which_integers_make_sense_is_left_to_the_service(stage: Stage, text: str) -> None:
    body = f'{{"status": "closed", "expected_version": {text}}}'.encode()
    assert not refused_by_the_gateway(send(stage, "UpdateTicketStatus", body))


@pytest.mark.parametrize("text", ['"true"', "1", "0", "null", '""'])
def test_a_boolean_is_true_or_false(stage: Stage, text: str) -> None:
    assert refusal(stage, f'{{"comment": "c", "is_internal": {text}}}'.encode(), "AddComment").bad_fields == [
        "is_internal"
    ]


@pytest.mark.parametrize("text", ['"1"', "1", '"LOW"', '"priority_unspecified"', '""', "null", '["low"]', '"low "'])
def test_an_enum_is_one_of_its_names(stage: Stage, text: str) -> None:
    answer = refusal(stage, f'{{"subject": "s", "description": "d", "priority": {text}}}'.encode())
    assert answer.bad_fields == ["priority"]
    assert "low, medium, high, urgent" in answer.payload["message"]


NO_ARRAYS = ['"a"', "null", "{}", "1", "true", '[1, "a"]', '["a", null]', '[["a"]]', '[{"a": 1}]', '["a", true]']


@pytest.mark.parametrize("text", NO_ARRAYS)
def test_an_array_of_strings_holds_strings_alone(stage: Stage, text: str) -> None:
    answer = refusal(stage, f'{{"notification_ids": {text}}}'.encode(), "MarkNotificationsRead")
    assert answer.bad_fields == ["notification_ids"]
    assert "must be an array, and each value in it must be a string" in answer.payload["message"]


@pytest.mark.parametrize("text", [*NO_ARRAYS, '["inbox", "letter"]', '["INBOX"]', '["channel_unspecified"]', '[""]'])
def test_an_array_of_an_enum_holds_its_names_alone(stage: Stage, text: str) -> None:
    answer = refusal(stage, f'{{"muted_channels": {text}}}'.encode(), "UpdateNotificationPreferences")
    assert answer.bad_fields == ["muted_channels"]
    assert "must be one of inbox, email" in answer.payload["message"]


@pytest.mark.parametrize("text", ["[]", "[ ]", '["inbox"]', '["e\\u006dail" , "inbox"]', '["inbox", "inbox"]'])
def test_an_array_that_the_contract_allows_passes(stage: Stage, text: str) -> None:
    body = f'{{"muted_channels": {text}, "muted_types": []}}'.encode()
    assert not refused_by_the_gateway(send(stage, "UpdateNotificationPreferences", body))


@pytest.mark.parametrize("text", ["[", '["inbox"', '["inbox",]', '[,"inbox"]', '["inbox" "email"]', '["inbox"}', "[]]"])
def test_an_array_that_is_no_json_makes_the_body_none(stage: Stage, text: str) -> None:
    answer = refusal(stage, f'{{"muted_channels": {text}}}'.encode(), "UpdateNotificationPreferences")
    assert answer.bad_fields == ["body"]


@pytest.mark.parametrize(("count", "passes"), [(100, True), (199, True), (200, False), (50_000, False)])
def test_an_array_has_room_for_more_than_the_service_takes_and_not_for_very_many(
    stage: Stage, count: int, passes: bool
) -> None:
    body = json.dumps({"notification_ids": ["x"] * count}).encode()
    answer = refused_by_the_gateway(send(stage, "MarkNotificationsRead", body))
    assert (answer is None) is passes
    assert answer is None or answer.bad_fields == ["body"]


@pytest.mark.parametrize(
    "name",
    [
        b'\\"}, \\"code\\": 0, {\\"',
        b"\\u0000\\n\\r\\t\\u001b[31m",
        b"%REQ(authorization)%",
        b"\xf0\x9f\x98\x80",
        b"n" * 5000,
        b"",
    ],
)
def test_a_name_can_neither_break_out_of_the_answer_nor_swell_it(stage: Stage, name: bytes) -> None:
    answer = refusal(stage, b'{"' + name + b'": 1, "x": 2}')

    (named, other) = answer.bad_fields
    assert other == "x"
    assert 0 < len(named) <= 43
    assert set(named) <= {*string.ascii_letters, *string.digits, *" ._-?()"}
    assert len(answer.payload["message"]) < 300


def test_of_very_many_bad_fields_the_first_are_named_and_the_rest_counted(stage: Stage) -> None:
    body = json.dumps({f"field_{i}": i for i in range(100)}).encode()
    answer = refusal(stage, body)

    assert answer.bad_fields == [f"field_{i}" for i in range(10)]
    assert "and 90 more" in answer.payload["message"]


MEBIBYTE = (1 << 20) - 64
HEAVY = {
    "blanks": b"{" + b" " * MEBIBYTE + b'"x": 1}',
    "a name": b'{"' + b"n" * MEBIBYTE + b'": 1}',
    "a name of escapes": b'{"' + b"\\u0041" * (MEBIBYTE // 6) + b'": 1}',
    "a value of escapes": b'{"x": "' + b"\\n" * (MEBIBYTE // 2) + b'"}',
    "a value beyond ASCII": b'{"x": "' + "é".encode() * (MEBIBYTE // 2) + b'"}',
    "a number": b'{"x": ' + b"1" * MEBIBYTE + b"}",
    "the same name again and again": b"{" + b",".join([b'"x":1'] * (MEBIBYTE // 6)) + b"}",
    "a hundred thousand names": b"{" + b",".join(b'"%x":1' % i for i in range(MEBIBYTE // 11)) + b"}",
    "a long array": b'{"x": [' + b",".join([b"1"] * (MEBIBYTE // 2)) + b"]}",
    "nothing but brackets": b'{"x": ' + b"[" * MEBIBYTE,
    "quotes": b'{"x": "' + b'\\"' * (MEBIBYTE // 2),
}


@pytest.mark.parametrize("weight", HEAVY)
def test_a_body_of_the_largest_size_is_refused_without_holding_up_others(stage: Stage, weight: str) -> None:
    began = time.monotonic()
    answer = refusal(stage, HEAVY[weight])

    # Linear work takes some 10 ms, quadratic work minutes.
    assert time.monotonic() - began < 5
    assert len(answer.payload["message"]) < 2000


def test_a_body_in_pieces_is_looked_at_as_a_whole(stage: Stage) -> None:
    def pieces() -> Iterator[bytes]:
        yield from (b'{"subject": "s", "desc', b'ription": "d", "pri', b'orty": "high"}')

    with closing(http.client.HTTPConnection(LOOPBACK, stage.stack.ports.gateway, timeout=20)) as connection:
        headers = {"authorization": f"Bearer {stage.mint(as_service())}", "content-type": "application/json"}
        connection.request("POST", "/api/v1/tickets", pieces(), headers, encode_chunked=True)
        raw = connection.getresponse()
        assert (raw.status, b"priorty" in raw.read()) == (400, True)


# --- the same verdict as a reader that was written independently ---


ENUMS = {
    "status": ticket_pb2.Ticket.Status.keys()[1:],
    "priority": ticket_pb2.Ticket.Priority.keys()[1:],
    "role": actor_pb2.Actor.Role.keys()[1:],
    "availability": agent_pb2.Agent.Availability.keys()[1:],
    "muted_channels": notification_pb2.Channel.keys()[1:],
    "muted_types": notification_pb2.Notification.Type.keys()[1:],
}


# That there is such a day is looked at by ParseDict.
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
MOMENTS = st.sampled_from(
    ["2999-01-01T00:00:00Z", "2001-02-03T04:05:06.789+01:00", "2026-02-31T00:00:00Z", "2999-01-01T00:00:00", "tomorrow"]
)


class Repeated(ValueError):
    """A name comes twice."""


def once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    if len(dict(pairs)) < len(pairs):
        raise Repeated
    return dict(pairs)


def no_constant(name: str) -> Json:
    raise ValueError(name)


def is_of_type(field: Any, value: Json) -> bool:  # noqa: ANN401 - a field's descriptor
    if field.is_repeated:
        return isinstance(value, list) and all(is_one(field, it) for it in value)
    return is_one(field, value)


def is_one(field: Any, value: Json) -> bool:  # noqa: ANN401
    if field.name in ENUMS:
        return value in ENUMS[field.name] if isinstance(value, str) else False
    if field.cpp_type == field.CPPTYPE_MESSAGE:
        return isinstance(value, str) and MOMENT.fullmatch(value) is not None
    return (
        type(value) is {field.CPPTYPE_STRING: str, field.CPPTYPE_BOOL: bool, field.CPPTYPE_INT32: int}[field.cpp_type]
    )


def is_allowed(call: str, body: bytes) -> bool:
    """Whether the contract lets this body come to the service."""
    request = REQUESTS[call]
    try:
        values = json.loads(body.decode("utf-8"), object_pairs_hook=once, parse_constant=no_constant)
        json.dumps(values, ensure_ascii=False).encode("utf-8")
        ParseDict(values, request(), ignore_unknown_fields=False)
    except (ValueError, ParseError, RecursionError, AttributeError, TypeError):
        return False
    fields = {
        name: field
        for name, field in request.DESCRIPTOR.fields_by_name.items()
        if f"{{{name}}}" not in EVERY_CALL[call].path
    }
    return isinstance(values, dict) and all(n in fields and is_of_type(fields[n], v) for n, v in values.items())


class Sent(NamedTuple):
    """A write, and its body."""

    call: str
    body: bytes


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**33), 2**33),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["open", "closed", "high", "low", "1", "status_unspecified", NOBODY]),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


@st.composite
def names_of(draw: st.DrawFn, call: str) -> list[str]:
    """Names of the call's own fields, and now and then one that is foreign or comes twice."""
    known = [name for name in REQUESTS[call].DESCRIPTOR.fields_by_name if name != "ticket_id"]
    # What is revealed has no fields but those of the path.
    names = draw(st.lists(st.sampled_from(known), max_size=4, unique=True) if known else st.just([]))
    if draw(st.integers(0, 3)) == 0:
        camel = [field.json_name for field in REQUESTS[call].DESCRIPTOR.fields]
        names.append(draw(st.sampled_from(known + camel) | st.text(max_size=6)))
    return names


@st.composite
def fitting(draw: st.DrawFn, call: str, name: str) -> Json:
    """A value, mostly of the field's own type."""
    field = REQUESTS[call].DESCRIPTOR.fields_by_name.get(name)
    if field is None or draw(st.integers(0, 7)) == 0:
        return draw(VALUES)
    if field.is_repeated:
        return [draw(fitting_one(field)) for _ in range(draw(st.integers(0, 3)))]
    return draw(fitting_one(field))


@st.composite
def fitting_one(draw: st.DrawFn, field: Any) -> Json:  # noqa: ANN401
    if draw(st.integers(0, 15)) == 0:
        return draw(VALUES)
    name = field.name
    if name in ENUMS:
        return draw(st.sampled_from(ENUMS[name]))
    own = {
        field.CPPTYPE_STRING: st.text(max_size=8),
        field.CPPTYPE_BOOL: st.booleans(),
        field.CPPTYPE_MESSAGE: MOMENTS,
    }
    return draw(own.get(field.cpp_type, st.integers(-5, 5)))


@st.composite
def members(draw: st.DrawFn, call: str, name: str) -> str:
    ascii_only = draw(st.booleans())
    written = json.dumps(name)
    if ascii_only and name:
        written = f'"\\u{ord(name[0]) & 0xFFFF:04x}{json.dumps(name[1:])[1:]}'
    colon = draw(st.sampled_from([":", " : ", ": "]))
    return f"{written}{colon}{json.dumps(draw(fitting(call, name)), ensure_ascii=ascii_only)}"


@st.composite
def writes(draw: st.DrawFn) -> Sent:
    call = draw(st.sampled_from(sorted(REQUESTS)))
    parts = [draw(members(call, name)) for name in draw(names_of(call))]
    inside = draw(st.sampled_from([",", ", ", "\n,\t"])).join(parts)
    body = f"{{{inside}}}".encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(body)))
        junk = draw(
            st.binary(max_size=2)
            | st.sampled_from([b"\\", b'"', b",", b"{", b"}", b"\\u", b"\\ud83d", b"\xc3", b"'", b"1", b"."])
        )
        body = body[:at] + junk + body[at + draw(st.integers(0, 2)) :]
    return Sent(call, body)


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(sent=writes())
@example(sent=Sent("AssignTicket", b'{"assigned_to": "\\ud83d\\ude00", "expected_version": -0}'))
@example(sent=Sent("UpdateTicketStatus", b'{"status": "\\u006fpen", "expected_version": 1E0}'))
def test_the_gateway_and_an_independent_reader_give_the_same_verdict(stage: Stage, sent: Sent) -> None:
    refused = refused_by_the_gateway(send(stage, sent.call, sent.body))
    assert (refused is None) == is_allowed(sent.call, sent.body), (sent, refused)


# --- queries ---


def query(stage: Stage, query_string: str, path: str = "/api/v1/tickets") -> httpx.Response:
    headers = {"authorization": f"Bearer {stage.mint(as_supervisor())}"}
    return stage.rest.http.get(f"{path}?{query_string}", headers=headers)


@pytest.mark.parametrize(
    ("query_string", "named"),
    [
        ("colour=red&status=nope&page_size=a", ["colour", "status", "page_size"]),
        ("status=1", ["status"]),
        ("status=OPEN", ["status"]),
        ("status=", ["status"]),
        ("status=status_unspecified", ["status"]),
        ("status=open&priority=high&status=nope", ["status"]),
        ("unassigned=1", ["unassigned"]),
        ("unassigned=True", ["unassigned"]),
        ("unassigned", ["unassigned"]),
        ("page_size=1.0", ["page_size"]),
        ("page_size=1e1", ["page_size"]),
        ("page_size=007", ["page_size"]),
        ("page_size=%201", ["page_size"]),
        ("page_size=2147483648", ["page_size"]),
        ("page_size=1&page_size=2", ["page_size"]),
        ("pageSize=1", ["pageSize"]),
        ("%73tatus=open", ["?73tatus"]),
        ("user_id=a&user_id=b", ["user_id"]),
        ("created_after=2026-01-01", ["created_after"]),
        ("created_after=%222026-01-01T00:00:00Z%22", ["created_after"]),
        ("created_after=2026-02-31T00:00:00Z", ["created_after"]),
        ("ticket_id=x", ["ticket_id"]),
        ("=x", ["(empty name)"]),
        ("page_token=%ff%fe&user_id=%00", ["page_token", "user_id"]),
        ("page_token=\u00e9", ["page_token"]),
        ("page_token=%00", ["page_token"]),
        ("page_token=%0A", ["page_token"]),
        ("created_after=%ff&status=%ff", ["created_after", "status"]),
    ],
)
def test_a_query_parameter_that_the_contract_does_not_allow_is_named(
    stage: Stage, query_string: str, named: list[str]
) -> None:
    answer = refused_by_the_gateway(query(stage, query_string))
    assert answer
    assert all(name in answer.payload["message"] for name in named)
    # The transcoder's own refusals name the field in the message only.
    assert answer.bad_fields in (named, [])


@pytest.mark.parametrize(
    "query_string",
    [
        "status=open&status=closed&priority=high&",
        "page_size=%31",
        "unassigned=true",
        "created_after=2026-01-01T00:00:00.123456789%2B01:00",
        "created_before=2026-01-01T00:00:00Z&page_size=0",
    ],
)
def test_a_query_that_the_contract_allows_is_answered(stage: Stage, query_string: str) -> None:
    assert query(stage, query_string).status_code == 200


@pytest.mark.parametrize("path", ["", "/my", "/assigned", f"/{NOBODY}", f"/{NOBODY}/history", f"/{NOBODY}/comments"])
@pytest.mark.parametrize("content_type", ["application/json", "text/plain"])
@pytest.mark.parametrize("body", [b'{"page_size": 1}', b'{"colour": "red"}', b"{}", b" "])
def test_a_read_takes_nothing_from_a_body(stage: Stage, path: str, content_type: str, body: bytes) -> None:
    headers = {"authorization": f"Bearer {stage.mint(as_supervisor())}", "content-type": content_type}
    url = f"/api/v1/tickets{path}"

    for content in (body, iter([body[:1], body[1:]])):
        answer = refused_by_the_gateway(stage.rest.http.request("GET", url, content=content, headers=headers))
        assert answer
        assert answer.bad_fields == ["body"]


def test_a_read_may_have_a_body_that_is_empty(stage: Stage) -> None:
    headers = {"authorization": f"Bearer {stage.mint(as_supervisor())}", "content-type": "application/json"}
    for content in (b"", iter([b""])):
        assert stage.rest.http.request("GET", "/api/v1/tickets", content=content, headers=headers).status_code == 200


def test_every_list_knows_its_own_parameters_only(stage: Stage) -> None:
    for path, foreign in {"my": "priority=low", "assigned": "unassigned=true", new_id(): "page_size=1"}.items():
        answer = refused_by_the_gateway(query(stage, foreign, f"/api/v1/tickets/{path}"))
        assert answer
        assert answer.bad_fields == [foreign.partition("=")[0]]
