"""The contract as the protos state it, and what is generated from it."""

import re
from functools import cache
from pathlib import Path
from typing import TypedDict

import pytest
import yaml
from google.api import annotations_pb2, field_behavior_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from google.rpc import code_pb2
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from protos import generate, lint, openapi, values
from protos.contract import CALLED, Contract, read

PACKAGE = "nibble.support.v1"

# Each call of the contract: its HTTP method and path, its request and its answer.
CALLS = {
    "TicketService.CreateTicket": ("post", "/api/v1/tickets", "CreateTicketRequest", "Ticket"),
    "TicketService.ListTickets": ("get", "/api/v1/tickets", "ListTicketsRequest", "ListTicketsResponse"),
    "TicketService.ListMyTickets": ("get", "/api/v1/tickets/my", "ListMyTicketsRequest", "ListTicketsResponse"),
    "TicketService.ListAssignedTickets": (
        "get", "/api/v1/tickets/assigned", "ListAssignedTicketsRequest", "ListTicketsResponse",
    ),
    "TicketService.GetTicket": ("get", "/api/v1/tickets/{ticket_id}", "GetTicketRequest", "Ticket"),
    "TicketService.UpdateTicketStatus": (
        "put", "/api/v1/tickets/{ticket_id}/status", "UpdateTicketStatusRequest", "Ticket",
    ),
    "TicketService.AssignTicket": ("put", "/api/v1/tickets/{ticket_id}/assign", "AssignTicketRequest", "Ticket"),
    "TicketService.ListTicketHistory": (
        "get", "/api/v1/tickets/{ticket_id}/history", "ListTicketHistoryRequest", "ListTicketHistoryResponse",
    ),
    "CommentService.AddComment": (
        "post", "/api/v1/tickets/{ticket_id}/comments", "AddCommentRequest", "TicketComment",
    ),
    "CommentService.ListComments": (
        "get", "/api/v1/tickets/{ticket_id}/comments", "ListCommentsRequest", "ListCommentsResponse",
    ),
    "TicketService.GetTicketOrder": (
        "get", "/api/v1/tickets/{ticket_id}/order", "GetTicketOrderRequest", "TicketOrder",
    ),
    "TicketService.GetTicketRequester": (
        "get", "/api/v1/tickets/{ticket_id}/requester", "GetTicketRequesterRequest", "TicketRequester",
    ),
    "TicketService.RevealTicket": ("post", "/api/v1/tickets/{ticket_id}/reveal", "RevealTicketRequest", "Ticket"),
    "TicketService.RateTicket": ("put", "/api/v1/tickets/{ticket_id}/feedback", "RateTicketRequest", "TicketFeedback"),
    "TicketService.GetTicketFeedback": (
        "get", "/api/v1/tickets/{ticket_id}/feedback", "GetTicketFeedbackRequest", "TicketFeedback",
    ),
    "TicketService.ListUnattendedTickets": (
        "get", "/api/v1/tickets/unattended", "ListUnattendedTicketsRequest", "ListTicketsResponse",
    ),
    "CommentService.RevealComment": (
        "post", "/api/v1/tickets/{ticket_id}/comments/{comment_id}/reveal", "RevealCommentRequest", "TicketComment",
    ),
    "AgentService.SetAgent": ("put", "/api/v1/agents/{agent_id}", "SetAgentRequest", "Agent"),
    "AgentService.GetAgent": ("get", "/api/v1/agents/{agent_id}", "GetAgentRequest", "Agent"),
    "AgentService.ListAgents": ("get", "/api/v1/agents", "ListAgentsRequest", "ListAgentsResponse"),
    "AgentService.SetAgentAvailability": (
        "put", "/api/v1/agents/{agent_id}/availability", "SetAgentAvailabilityRequest", "Agent",
    ),
    "AgentService.ReassignTickets": (
        "post", "/api/v1/tickets/reassign", "ReassignTicketsRequest", "ReassignTicketsResponse",
    ),
    "PrivacyService.ErasePersonalData": (
        "post", "/api/v1/users/{user_id}/erase", "ErasePersonalDataRequest", "ErasePersonalDataResponse",
    ),
    "PrivacyService.ExportPersonalData": (
        "post", "/api/v1/users/{user_id}/export", "ExportPersonalDataRequest", "ExportPersonalDataResponse",
    ),
}  # fmt: skip

VOCABULARY = {
    "Ticket.Status": ["open", "in_progress", "resolved", "closed"],
    "Ticket.Priority": ["low", "medium", "high", "urgent"],
    "TicketEvent.Type": [
        "ticket_created", "ticket_assigned", "ticket_status_changed", "ticket_commented", "ticket_resolved",
        "ticket_closed", "ticket_flagged", "ticket_rated", "ticket_erased", "ticket_revealed", "ticket_exported",
    ],
    "Actor.Role": ["customer", "restaurant", "driver", "support_agent", "support_supervisor", "service"],
}  # fmt: skip

OPTIONAL = {
    "Ticket": {"order_id", "assigned_to", "resolved_at", "resolution_notes", "flagged_at"},
    "TicketComment": set(),
    "TicketSnapshot": {"order_id", "assigned_to", "resolved_at", "flagged_at"},
    "TicketEvent": {
        "from", "to", "assigned_to", "previous_assignee", "reason", "comment_id", "author_role", "has_resolution_notes",
        "rating", "erased_user_id",
    },
}  # fmt: skip

# The texts that are in no event, and what was found in texts.
PRIVATE = {"description", "resolution_notes", "sensitive_findings"}

# What the tests look at in the OpenAPI document.
Reference = TypedDict("Reference", {"$ref": str})
Parameter = TypedDict("Parameter", {"name": str, "in": str, "description": str})


class Media(TypedDict):
    schema: Reference


class Response(TypedDict):
    content: dict[str, Media]


class Example(TypedDict):
    value: dict[str, object]


class Operation(TypedDict):
    operationId: str
    description: str
    parameters: list[Parameter]
    responses: dict[str, dict[str, object]]


class Schema(TypedDict, total=False):
    required: list[str]
    properties: dict[str, "Schema"]
    enum: list[str]
    pattern: str


class Components(TypedDict):
    schemas: dict[str, Schema]
    responses: dict[str, Response]
    examples: dict[str, Example]
    securitySchemes: dict[str, dict[str, str]]


class Document(TypedDict):
    paths: dict[str, dict[str, Operation]]
    components: Components
    security: list[dict[str, list[str]]]


@cache
def contract() -> Contract:
    return read(generate.image())


@cache
def openapi_document() -> Document:
    document: Document = yaml.safe_load((generate.GENERATED / "openapi.yaml").read_text(encoding="utf-8"))
    return document


def message(name: str) -> DescriptorProto:
    return contract().messages()[f"{PACKAGE}.{name}"]


def operations() -> dict[str, Operation]:
    """The operations of the OpenAPI document by `<method> <path>`."""
    paths = openapi_document()["paths"]
    return {f"{verb} {path}": operation for path, item in paths.items() for verb, operation in item.items()}


def operation(call: str) -> Operation:
    verb, path, _, _ = CALLS[call]
    return operations()[f"{verb} {path}"]


def component(name: str) -> Schema:
    return openapi_document()["components"]["schemas"][name]


def own_file(image: FileDescriptorSet, name: str) -> FileDescriptorProto:
    return next(file for file in image.file if file.name == f"nibble/support/v1/{name}")


def test_the_calls_are_those_of_the_contract_and_no_others() -> None:
    methods = {name for name in contract().methods() if name.startswith(f"{PACKAGE}.")}
    assert methods == {f"{PACKAGE}.{call}" for call in CALLS}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_has_exactly_the_http_binding_of_the_contract(call: str) -> None:
    verb, path, request, response = CALLS[call]
    method = contract().methods()[f"{PACKAGE}.{call}"]
    assert openapi.binding(method) == (verb, path, verb != "get")
    assert not method.options.Extensions[annotations_pb2.http].additional_bindings
    assert (method.input_type, method.output_type) == (f".{PACKAGE}.{request}", f".{PACKAGE}.{response}")


def test_a_body_is_the_whole_request_but_the_path() -> None:
    rules = [method.options.Extensions[annotations_pb2.http] for method in contract().offered().values()]
    assert {rule.body for rule in rules} == {"", "*"}


def test_everything_has_a_comment() -> None:
    assert [name for name, comment in contract().comments.items() if not comment] == []


def test_a_comment_begins_with_a_capital_and_ends_as_a_sentence_or_an_example() -> None:
    odd = [name for name, text in contract().comments.items() if not (text[0].isupper() and text[-1] in ".}")]
    assert odd == []


def test_a_comment_on_a_call_says_which_reasons_it_fails_with() -> None:
    for call in contract().offered():
        assert set(openapi.reasons_of(contract(), call)) - set(openapi.EVERY_CALL + openapi.EVERY_BODY), call


def test_the_codes_and_reasons_that_comments_name_exist() -> None:
    known = {*openapi.reasons(contract()), *code_pb2.Code.keys()}
    named = {word for text in contract().comments.values() for word in re.findall(r"`([A-Z][A-Z_]+)`", text)}
    assert named <= known


def test_the_code_that_a_comment_names_before_a_reason_is_the_code_of_that_reason() -> None:
    known = openapi.reasons(contract())
    pairs = [
        pair
        for call in contract().offered()
        for pair in re.findall(r"`([A-Z_]+)`\s\(`([A-Z_]+)`\)", contract().comments[call])
    ]
    assert len(pairs) > 20
    assert [pair for pair in pairs if known[pair[1]].code != pair[0]] == []


@pytest.mark.parametrize("call", CALLS)
def test_every_request_field_is_said_to_be_required_or_optional(call: str) -> None:
    for field in message(CALLS[call][2]).field:
        behavior = field.options.Extensions[field_behavior_pb2.field_behavior]
        assert list(behavior) in ([field_behavior_pb2.REQUIRED], [field_behavior_pb2.OPTIONAL]), field.name


@pytest.mark.parametrize("call", CALLS)
def test_a_required_field_has_no_presence(call: str) -> None:
    for field in message(CALLS[call][2]).field:
        if field_behavior_pb2.REQUIRED in field.options.Extensions[field_behavior_pb2.field_behavior]:
            assert not field.proto3_optional, field.name


def test_the_first_value_of_every_enum_is_the_unspecified_one() -> None:
    for name, enum in contract().enums().items():
        own_name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.rpartition(".")[2])
        assert enum.value[0].number == 0
        assert enum.value[0].name.lower() == f"{own_name.lower()}_unspecified"


def test_enum_values_are_numbered_without_a_gap() -> None:
    for enum in contract().enums().values():
        assert [value.number for value in enum.value] == list(range(len(enum.value)))


@pytest.mark.parametrize("enum", VOCABULARY)
def test_the_words_are_those_of_the_contract(enum: str) -> None:
    assert [value.name for value in contract().enums()[f"{PACKAGE}.{enum}"].value[1:]] == VOCABULARY[enum]


@pytest.mark.parametrize("name", OPTIONAL)
def test_exactly_the_optional_fields_of_a_resource_may_be_absent(name: str) -> None:
    assert {field.name for field in message(name).field if field.proto3_optional} == OPTIONAL[name]


def test_a_ticket_has_the_fields_of_the_contract_in_its_order() -> None:
    assert [field.name for field in message("Ticket").field] == [
        "id", "user_id", "order_id", "subject", "description", "status", "priority", "assigned_to", "resolved_at",
        "resolution_notes", "created_at", "updated_at", "version", "flagged_at", "sensitive_findings",
    ]  # fmt: skip


def test_a_snapshot_is_a_ticket_without_its_private_texts() -> None:
    whole = {field.name: (field.number, field.type, field.type_name) for field in message("Ticket").field}
    shown = {field.name: (field.number, field.type, field.type_name) for field in message("TicketSnapshot").field}
    assert shown == {name: kind for name, kind in whole.items() if name not in PRIVATE}
    assert set(message("TicketSnapshot").reserved_name) == PRIVATE


def test_a_history_entry_is_an_event_without_its_snapshot_and_with_its_visibility() -> None:
    event = {field.name: field.type_name for field in message("TicketEvent").field}
    entry = {field.name: field.type_name for field in message("HistoryEntry").field}
    assert entry.keys() ^ event.keys() == {"ticket", "is_internal", "erased_user_id"}
    assert entry.items() - event.items() == {("is_internal", "")}


def test_no_number_of_the_contract_becomes_a_string_in_json() -> None:
    wide = {
        FieldDescriptorProto.TYPE_INT64, FieldDescriptorProto.TYPE_UINT64, FieldDescriptorProto.TYPE_SINT64,
        FieldDescriptorProto.TYPE_FIXED64, FieldDescriptorProto.TYPE_SFIXED64,
    }  # fmt: skip
    assert [name for name, field in contract().fields().items() if field.type in wide] == []


@pytest.mark.parametrize("name", openapi.reasons(contract()))
def test_the_comment_on_a_reason_names_its_code_and_has_an_example_of_it(name: str) -> None:
    reason = openapi.reasons(contract())[name]
    assert reason.error_info.keys() == {"reason", "domain", "metadata"}
    assert (reason.error_info["reason"], reason.error_info["domain"]) == (name, "support.nibble")
    assert reason.code in code_pb2.Code.keys()  # noqa: SIM118, an enum wrapper is no mapping
    assert 400 <= int(reason.http) < 600
    assert "raised by the" in " ".join(reason.comment.split())


def test_the_example_of_a_reason_holds_text_as_error_info_demands() -> None:
    for reason in openapi.reasons(contract()).values():
        metadata = reason.error_info["metadata"]
        assert isinstance(metadata, dict)
        assert all(isinstance(value, str) for value in metadata.values())


def test_the_descriptor_set_knows_the_error_details_and_no_comments() -> None:
    served = FileDescriptorSet.FromString((generate.GENERATED / "nibble.binpb").read_bytes())
    names = {f"{file.package}.{message.name}" for file in served.file for message in file.message_type}
    assert {"google.rpc.Status", "google.rpc.BadRequest", "google.rpc.ErrorInfo", "google.rpc.RetryInfo"} <= names
    assert not any(file.HasField("source_code_info") for file in served.file)


def test_the_descriptor_set_is_complete() -> None:
    served = FileDescriptorSet.FromString((generate.GENERATED / "nibble.binpb").read_bytes())
    present = {file.name for file in served.file}
    assert {name for file in served.file for name in file.dependency} <= present
    assert set(generate.own_protos()) <= present


def test_every_service_is_in_a_file_that_gets_grpc_stubs() -> None:
    with_services = {file.name for file in generate.image().file if file.service}
    assert all(name.endswith("_service.proto") for name in with_services)


def test_what_is_generated_is_not_stale() -> None:
    assert generate.stale_files() == []


def test_a_stale_a_missing_and_a_superfluous_file_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate.write(tmp_path)
    monkeypatch.setattr(generate, "GENERATED", tmp_path)
    (tmp_path / "nibble.binpb").unlink()
    (tmp_path / "openapi.yaml").write_text("openapi: 3.1.0\n")
    (tmp_path / "old_pb2.py").touch()
    assert generate.stale_files() == ["nibble.binpb", "old_pb2.py", "openapi.yaml"]


def test_style_is_kept_and_nothing_breaks_the_released_contract() -> None:
    assert lint.complaints(generate.image()) == ""


def test_a_field_without_a_comment_is_a_complaint() -> None:
    image = generate.image()
    for location in own_file(image, "ticket.proto").source_code_info.location:
        location.ClearField("leading_comments")
    assert "should have a non-empty comment" in lint.complaints(image)


def test_a_field_that_is_gone_is_a_complaint() -> None:
    image = generate.image()
    del own_file(image, "ticket.proto").message_type[0].field[3]
    assert 'Previously present field "4" with name "subject"' in lint.complaints(image)


def test_the_openapi_document_is_valid() -> None:
    validate(openapi_document())


def test_the_openapi_document_has_exactly_the_calls_of_the_contract() -> None:
    ids = {name: it["operationId"] for name, it in operations().items()}
    rules = {it.name: it.options.Extensions[annotations_pb2.http] for it in contract().offered().values()}
    bindings = {
        name: (verb, getattr(rule, verb)) for name, rule in rules.items() for verb in [rule.WhichOneof("pattern")]
    }
    assert ids == {f"{verb} {path}": name for name, (verb, path) in bindings.items()}


@pytest.mark.parametrize("call", CALLS)
def test_an_operation_is_described_by_the_comment_on_its_call(call: str) -> None:
    assert operation(call)["description"] == contract().comments[f"{PACKAGE}.{call}"]
    assert all(parameter["description"] for parameter in operation(call)["parameters"])


@pytest.mark.parametrize("call", CALLS)
def test_a_request_field_is_in_the_path_or_in_the_query_or_in_the_body(call: str) -> None:
    parameters = {(it["in"], it["name"]) for it in operation(call)["parameters"] if it["in"] != "header"}
    in_path = {("path", name) for name in re.findall(r"{(\w+)}", CALLS[call][1])}
    request = {field.name for field in message(CALLS[call][2]).field}
    rest = request - {name for _, name in in_path}
    if "requestBody" in operation(call):
        assert parameters == in_path
        assert component(CALLS[call][2])["properties"].keys() == rest
    else:
        assert parameters == in_path | {("query", name) for name in rest}


def test_exactly_the_two_creating_calls_take_an_idempotency_key() -> None:
    takers = {
        call
        for call in CALLS
        if any(it["name"] == "Idempotency-Key" and it["in"] == "header" for it in operation(call)["parameters"])
    }
    assert takers == {"TicketService.CreateTicket", "CommentService.AddComment"}


def test_an_unspecified_value_is_offered_nowhere() -> None:
    schemas = openapi_document()["components"]["schemas"]
    offered = [value for schema in schemas.values() for value in schema.get("enum", [])]
    assert "open" in offered
    assert [value for value in offered if "unspecified" in value.lower()] == []


@pytest.mark.parametrize("name", ["Ticket", "TicketComment"])
def test_every_field_of_a_resource_that_is_not_optional_is_always_there(name: str) -> None:
    fields = {field.name for field in message(name).field}
    assert set(component(name)["required"]) == fields - OPTIONAL[name]


def test_the_limits_in_the_openapi_document_are_those_in_the_comments() -> None:
    for name, field in contract().fields().items():
        longest = values.VALUES.get(field.name, {}).get("maxLength")
        if longest and field.type == FieldDescriptorProto.TYPE_STRING:
            assert f"1 to {longest:,} characters" in contract().comments[name], name


def test_every_id_in_the_openapi_document_is_a_uuid() -> None:
    for name, field in contract().fields().items():
        if "UUID" in contract().comments[name] and not name.startswith(CALLED):
            assert values.VALUES[field.name]["format"] == "uuid", name


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("Soup", True),
        ("  Soup\r\n\ttoo ", True),
        ("ü", True),
        ("", False),
        (" \t\n", False),
        ("\u2003\u3000", False),
        ("So\x00up", False),
        ("So\x85up", False),
        ("So\x7fup", False),
    ],
)
def test_the_pattern_of_a_text_refuses_blanks_and_control_characters(text: str, fits: bool) -> None:
    pattern = component("CreateTicketRequest")["properties"]["subject"]["pattern"]
    assert bool(re.search(pattern, text)) is fits


def test_every_operation_answers_errors_with_the_one_shape() -> None:
    responses = openapi_document()["components"]["responses"]
    shapes = {it["content"]["application/json"]["schema"]["$ref"] for it in responses.values()}
    assert shapes == {"#/components/schemas/Error"}
    for name, it in operations().items():
        failures = {status: response for status, response in it["responses"].items() if status != "200"}
        assert {"400", "401", "429", "500", "503", "504"} <= failures.keys(), name
        assert all("$ref" in response for response in failures.values())


def test_every_example_of_an_error_has_the_one_shape() -> None:
    shape = Draft202012Validator({**openapi_document(), "$ref": "#/components/schemas/Error"})
    examples = openapi_document()["components"]["examples"]
    assert {"INVALID_FIELDS", "OVERLOADED", "INTERNAL"} <= examples.keys()
    for name, example in examples.items():
        assert [error.message for error in shape.iter_errors(example["value"])] == [], name


def test_an_error_without_its_cause_has_not_that_shape() -> None:
    shape = Draft202012Validator({**openapi_document(), "$ref": "#/components/schemas/Error"})
    assert not shape.is_valid({"code": 5, "message": "Not found.", "details": []})


def test_a_token_is_needed_everywhere() -> None:
    assert openapi_document()["security"] == [{"bearer": []}]
    assert openapi_document()["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert not any("security" in it for it in operations().values())
