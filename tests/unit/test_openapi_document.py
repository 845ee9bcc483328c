"""What the OpenAPI document says beyond the protos: examples that hold, patterns that are the service's own rules."""

import json
import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import Any, TypeAlias

import pytest
import yaml
from jsonschema import Draft202012Validator, FormatChecker

from protos import generate
from server.domain import validation
from server.errors import InvalidFields

Json: TypeAlias = dict[str, Any]

ROOT = generate.ROOT
DOCUMENT: Json = yaml.safe_load((generate.GENERATED / "openapi.yaml").read_text(encoding="utf-8"))
OPERATIONS: dict[str, Json] = {it["operationId"]: it for item in DOCUMENT["paths"].values() for it in item.values()}
VIOLATIONS = '"%DYNAMIC_METADATA(nibble.strict_fields:violations)%"'
WITH_BODY = [name for name, it in OPERATIONS.items() if "requestBody" in it]


def resolved(node: Json) -> Json:
    """The node itself, or what it refers to."""
    found: Any = DOCUMENT
    for step in node.get("$ref", "#").split("/")[1:]:
        found = found[step]
    return found if "$ref" in node else node


def complaints(schema: Json, value: object) -> list[str]:
    """What a validator of the document says against a value; formats are checked too."""
    whole = Draft202012Validator({**DOCUMENT, **schema}, format_checker=FormatChecker())
    return [error.message for error in whole.iter_errors(value)]


def media(operation: str) -> Iterator[Json]:
    """The body of the request, if it has one, and of each answer."""
    described = OPERATIONS[operation]
    for holder in (described.get("requestBody"), *described["responses"].values()):
        if holder is not None:
            (content,) = resolved(holder)["content"].values()
            yield content


@cache
def body_schema(operation: str) -> Json:
    return resolved(OPERATIONS[operation]["requestBody"]["content"]["application/json"]["schema"])


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_body_of_an_operation_has_examples_and_all_of_them_hold(operation: str) -> None:
    for it in media(operation):
        assert it["examples"]
        for name, example in it["examples"].items():
            assert complaints(it["schema"], resolved(example)["value"]) == [], name


def test_what_an_event_of_a_stream_holds_is_described_and_its_examples_hold() -> None:
    content = OPERATIONS["StreamNotifications"]["responses"]["200"]["content"]["text/event-stream"]
    for example in content["examples"].values():
        field, _, data = example["value"].removesuffix("\n\n").partition(": ")
        assert field == "data"
        assert "\n" not in data
        assert complaints(content["x-event-data"], json.loads(data)) == []
        assert complaints(content["x-event-data"], {}) != []


def test_every_call_but_a_stream_is_answered_in_json() -> None:
    kinds = {name: list(it["responses"]["200"]["content"]) for name, it in OPERATIONS.items()}
    streams = {name for name, kind in kinds.items() if kind == ["text/event-stream"]}
    assert streams == {name for name in OPERATIONS if name.startswith("Stream")}
    assert all(kinds[name] == ["application/json"] for name in OPERATIONS.keys() - streams)


A_UUID = "0199f3a4-2701-7c55-b0d4-3f9e8a7c6b15"


@pytest.mark.parametrize(
    ("body", "allowed"),
    [
        ({"notification_ids": [A_UUID]}, True),
        ({"notification_ids": [A_UUID] * 100}, True),
        ({"notification_ids": [A_UUID] * 101}, False),
        ({"notification_ids": ["42"]}, False),
        ({"up_to_id": A_UUID}, True),
        ({"notification_ids": [], "up_to_id": A_UUID}, True),
        ({"notification_ids": [A_UUID], "up_to_id": A_UUID}, False),
        ({"notification_ids": []}, False),
        ({}, False),
    ],
)
def test_what_was_read_is_said_in_one_way_alone(body: Json, allowed: bool) -> None:
    assert (complaints(body_schema("MarkNotificationsRead"), body) == []) is allowed


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_example_and_default_of_a_parameter_holds(operation: str) -> None:
    for parameter in OPERATIONS[operation]["parameters"]:
        schema = parameter["schema"]
        values = [*schema.get("examples", ()), parameter.get("example", ...), schema.get("default", ...)]
        for value in values:
            assert value is ... or complaints(schema, value) == [], parameter["name"]


def test_every_example_and_default_of_a_field_holds() -> None:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        for field, of in schema.get("properties", {}).items():
            for value in (*of.get("examples", ()), *([of["default"]] if "default" in of else ())):
                assert complaints(of, value) == [], (name, field)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_reason_of_a_failure_is_shown_by_an_example_with_that_reason(operation: str) -> None:
    for status, it in OPERATIONS[operation]["responses"].items():
        if status == "200":
            continue
        response = resolved(it)
        examples = response["content"]["application/json"]["examples"]
        assert list(examples) == re.findall(r"`([A-Z_]+)`", response["description"])
        for reason, example in examples.items():
            assert resolved(example)["value"]["details"][0]["reason"] == reason


@pytest.mark.parametrize("operation", WITH_BODY)
def test_a_body_with_a_misspelt_field_is_against_the_document(operation: str) -> None:
    example = next(iter(OPERATIONS[operation]["requestBody"]["content"]["application/json"]["examples"].values()))
    assert complaints(body_schema(operation), {**example["value"], "subjct": "Soup"}) != []


def test_notes_go_with_the_status_resolved_and_with_no_other() -> None:
    schema = body_schema("UpdateTicketStatus")
    assert complaints(schema, {"status": "resolved", "resolution_notes": "Refunded."}) == []
    assert complaints(schema, {"status": "closed", "resolution_notes": "Refunded."}) != []
    assert complaints(schema, {"status": "closed"}) == []


def test_every_answer_names_its_request_and_says_when_to_try_again_where_that_helps() -> None:
    for it in OPERATIONS.values():
        responses = {status: resolved(response) for status, response in it["responses"].items()}
        assert all("x-request-id" in response["headers"] for response in responses.values())
        hinting = {status for status, response in responses.items() if "retry-after" in response["headers"]}
        assert hinting == {"429", "503"}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_request_that_is_too_large_or_too_slow_is_answered_with_what_http_has_for_it(operation: str) -> None:
    assert {"408", "413", "431"} <= OPERATIONS[operation]["responses"].keys()
    assert ("415" in OPERATIONS[operation]["responses"]) is (operation in WITH_BODY)


def test_every_link_leads_to_an_operation_and_fills_parameters_that_it_has() -> None:
    links = DOCUMENT["components"]["links"]
    assert len(links) > sum(name.startswith("List") for name in OPERATIONS)
    for link in links.values():
        known = {f"{it['in']}.{it['name']}" for it in OPERATIONS[link["operationId"]]["parameters"]}
        assert link["parameters"].keys() <= known


def test_a_text_is_blank_to_the_document_when_it_is_blank_to_the_service() -> None:
    pattern = re.compile(body_schema("CreateTicket")["properties"]["subject"]["pattern"])
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    # A character that this Python has not heard of yet may be a blank to a newer one.
    known = [it for it in characters if unicodedata.category(it) != "Cn"]
    differing = [
        hex(ord(it)) for it in known if bool(pattern.search(it)) is (validation.is_blank(it) or is_refused(it))
    ]
    assert differing == []


def is_refused(character: str) -> bool:
    """Whether the service refuses a text because of this character."""
    if unicodedata.category(character) != "Cc":
        return False
    fields = validation.Fields()
    fields.text("subject", f"a{character}a", longest=3)
    try:
        fields.check()
    except InvalidFields:
        return True
    return False


@pytest.mark.parametrize("text", ["  Soup\r\n", "\u200bSoup", "So\tup", "S" * 200])
def test_a_text_that_the_document_allows_is_allowed(text: str) -> None:
    assert complaints(body_schema("CreateTicket")["properties"]["subject"], text) == []
    fields = validation.Fields()
    fields.text("subject", text, validation.MAX_SUBJECT)
    fields.check()


def test_a_long_text_of_blanks_with_a_control_character_is_refused_in_an_instant() -> None:
    pattern = body_schema("CreateTicket")["properties"]["description"]["pattern"]
    assert not re.search(pattern, " a" * 500_000 + "\x00")


@pytest.mark.parametrize(
    "spelling",
    [
        "0192f0c1-2345-7abc-8def-0123456789ab",
        "0192F0C1-2345-7ABC-8DEF-0123456789AB",
        "00000000-0000-0000-0000-000000000000",
        "0192f0c123457abc8def0123456789ab",
        "{0192f0c1-2345-7abc-8def-0123456789ab}",
        "urn:uuid:0192f0c1-2345-7abc-8def-0123456789ab",
        "0192f0c1-2345-7abc-8def-0123456789a",
        "",
    ],
)
def test_a_uuid_is_one_to_the_document_when_it_is_one_to_the_service(spelling: str) -> None:
    schema = OPERATIONS["GetTicket"]["parameters"][0]["schema"]
    assert (complaints(schema, spelling) == []) is validation.is_uuid(spelling)


def test_an_error_that_the_gateway_makes_has_the_shape_of_the_document() -> None:
    text = (ROOT / "envoy.yaml").read_text(encoding="utf-8")
    # The one command operator that stands for more than a text.
    envoy = yaml.safe_load(text.replace(VIOLATIONS, '[{"field": "subjct", "description": "no such field"}]'))
    bodies = list(json_formats(envoy))
    assert len(bodies) > 10
    for body in bodies:
        assert complaints({"$ref": "#/components/schemas/Error"}, body) == [], body["message"]


def json_formats(node: object) -> Iterator[Json]:
    """The bodies of the gateway's own answers, wherever they are in its configuration."""
    if isinstance(node, dict):
        if "body_format_override" in node:
            yield node["body_format_override"]["json_format"]
        for value in node.values():
            yield from json_formats(value)
    if isinstance(node, list):
        for value in node:
            yield from json_formats(value)


def test_the_page_begins_with_the_service_that_the_others_refer_to() -> None:
    names = [tag["name"] for tag in DOCUMENT["tags"]]
    assert names[0] == "TicketService"
    assert names[-2:] == ["NotificationService", "AnalyticsService"]
