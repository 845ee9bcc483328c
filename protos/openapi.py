"""The OpenAPI document, made from the contract: its bindings, its comments, its field presence.

Written here, because the generators that were tried (protoc-gen-connect-openapi 0.21, gnostic's protoc-gen-openapi 0.7)
describe another API than Envoy serves: both offer the unspecified enum values, repeat path ids in bodies, call no
response field required and know no error of a call, whatever their options; the first also asks for times as seconds
and nanoseconds in a query. And they bring a Go toolchain, and a minute of compiling, into `make generate`.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from google.api import annotations_pb2, field_behavior_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, MethodDescriptorProto
from google.rpc import code_pb2

from protos.contract import Contract
from protos.examples import ANSWERS, REQUESTS
from protos.values import ARRAYS, SCALARS, TIMESTAMP, TOGETHER, VALUES, VISIBLE_ASCII, Node
from protos.yaml_text import dumped

TITLE = "Nibble support tickets"
PACKAGE = "nibble.support.v1"
REASONS = f"{PACKAGE}.ErrorReason"
EVERY_CALL = (
    "MALFORMED_REQUEST", "INVALID_TOKEN", "REQUEST_TOO_LARGE", "RATE_LIMITED", "OVERLOADED", "INTERNAL",
    "DEPENDENCY_UNAVAILABLE", "DEADLINE_EXCEEDED",
)  # fmt: skip
EVERY_BODY = ("UNSUPPORTED_MEDIA_TYPE",)
# HTTP has statuses of their own for headers that are too large, and for a request that takes too long to arrive.
MORE_STATUSES = {"REQUEST_TOO_LARGE": ["431"], "DEADLINE_EXCEEDED": ["408"]}

# The header that a call takes when its comment speaks of it.
IDEMPOTENCY_KEY = "idempotency-key"


@dataclass(frozen=True)
class Reason:
    """One reason of an error, as the comment of its enum value tells it."""

    name: str
    comment: str

    @cached_property
    def code(self) -> str:
        """The name of the gRPC code."""
        return self._named[1]

    @cached_property
    def http(self) -> str:
        """The HTTP status."""
        return self._named[2]

    @cached_property
    def error_info(self) -> Node:
        """The worked example; raises ValueError where the comment has none."""
        example: Node = json.loads("".join(re.findall(r"^ {4}.*$", self.comment, re.MULTILINE)))
        return example

    @cached_property
    def _named(self) -> re.Match[str]:
        named = re.search(r"Code\s`(\w+)`\s\(HTTP\s(\d+)\)", self.comment)
        if not named:
            raise ValueError(f"the comment of {self.name} names no code and HTTP status")
        return named


def reasons(contract: Contract) -> dict[str, Reason]:
    """All reasons that are ever sent, by name."""
    names = [value.name for value in contract.enums()[REASONS].value[1:]]
    return {name: Reason(name, contract.comments[f"{REASONS}.{name}"]) for name in names}


def reasons_of(contract: Contract, call: str) -> list[str]:
    """The reasons that a call may fail with: those that its comment names, and those of every call like it."""
    named = re.findall(r"`([A-Z_]+)`", contract.comments[call].partition("Fails with")[2])
    _, _, has_body = binding(contract.methods()[call])
    own = [name for name in named if name in reasons(contract)]
    return list(dict.fromkeys([*EVERY_CALL, *(EVERY_BODY if has_body else ()), *own]))


def calls(contract: Contract) -> dict[str, MethodDescriptorProto]:
    """The calls that have a REST side, by full name."""
    return {name: it for name, it in contract.methods().items() if it.options.HasExtension(annotations_pb2.http)}


def binding(method: MethodDescriptorProto) -> tuple[str, str, bool]:
    """The HTTP method in lower case, the path, and whether the request has a body."""
    rule = method.options.Extensions[annotations_pb2.http]
    verb = rule.WhichOneof("pattern") or ""
    return verb, getattr(rule, verb), bool(rule.body)


def document(contract: Contract) -> Node:
    """The whole document. The same contract gives the same document, key order included."""
    return {
        "openapi": "3.1.0",
        "info": _info(),
        "servers": [{"url": "/", "description": "The gateway that serves this document"}],
        "security": [{"bearer": []}],
        "tags": [_tag(contract, service) for service in _services(contract)],
        "paths": _paths(contract),
        "components": {
            "securitySchemes": {"bearer": BEARER},
            "schemas": {**_schemas(contract), **ERROR_SCHEMAS},
            "headers": HEADERS,
            "responses": _failures(contract),
            "links": _links(contract),
            "examples": {name: _error_example(reasons(contract)[name]) for name in _used_reasons(contract)},
        },
    }


def text(contract: Contract) -> str:
    """The document as YAML."""
    head = "# Written by protos/generate.py from the protos; not to be edited.\n"
    return head + dumped(document(contract))


def _info() -> Node:
    return {
        "title": TITLE,
        "version": PACKAGE.rpartition(".")[2],
        "description": DESCRIPTION,
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    }


DESCRIPTION = """\
Support tickets, who works on them, who is told, and how support does: the REST side of the gRPC packages
`nibble.support.v1`, `nibble.notification.v1` and `nibble.analytics.v1`.

**Who calls** is told by a JSON Web Token and by nothing else. **Bodies** are JSON objects with exactly the fields shown
here, and `application/json` is their content type. **Ids** are UUIDs, **times** RFC 3339 in UTC, **integers** are
written in digits alone (`1`, not `1.0`). An optional field without a value is absent.

**Errors** all have one shape: a `code` (gRPC's), a `message` for people, and `details`, of which the
`google.rpc.ErrorInfo` is always there. Decide by its `reason`. A `google.rpc.BadRequest` beside it names every bad
field, a `google.rpc.RetryInfo` says when to try again.

**Lists** are paged: send the `next_page_token` of a page as `page_token` to get the next one, with the same filters.

**Streams** are answers that go on: server-sent events, each with one JSON object as its data. They end after a quarter
of an hour at most, without an error; a caller comes again and says where it was. A browser reads them by `fetch`, as
`EventSource` can't send a token; what goes wrong before the first event is an error like any other.

**Retries** are safe with an `Idempotency-Key` where a call takes one; an `expected_version` refuses a change of a
ticket that somebody else has changed meanwhile.
"""

BEARER: Node = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": "A JSON Web Token of Nibble's identity provider, signed with ES256, RS256 or EdDSA, with the claims"
    " `iss`, `aud`, `sub` (the caller's UUID), `exp`, `iat` and `role` (`customer`, `restaurant`, `driver`,"
    " `support_agent`, `support_supervisor` or `service`). For a stack on your own machine,"
    " `make -s token ROLE=support_agent` prints one.",
}


def _services(contract: Contract) -> list[str]:
    """The services with calls over REST: tickets, which the others refer to, what else is support's, and the rest."""
    paths: dict[str, str] = {}
    for call, method in calls(contract).items():
        service, path = call.rpartition(".")[0], binding(method)[1]
        paths[service] = min(path, paths.get(service, path))
    first = f"{PACKAGE}.TicketService"
    return sorted(paths, key=lambda service: (service != first, not service.startswith(PACKAGE), paths[service]))


def _tag(contract: Contract, service: str) -> Node:
    return {"name": _short(service), "description": contract.comments[service]}


def _short(name: str) -> str:
    """A full name without its package; nested names keep their parent's."""
    return ".".join(part for part in name.strip(".").split(".") if part[0].isupper())


def _paths(contract: Contract) -> Node:
    paths: dict[str, Node] = {}
    for call, method in calls(contract).items():
        verb, path, _ = binding(method)
        paths.setdefault(path, {})[verb] = _operation(contract, call, method)
    return {path: paths[path] for path in sorted(paths)}


def _operation(contract: Contract, call: str, method: MethodDescriptorProto) -> Node:
    _, _, has_body = binding(method)
    comment = contract.comments[call]
    operation: Node = {
        "operationId": method.name,
        "tags": [_short(call.rpartition(".")[0])],
        # Unlike a description, a summary is plain text.
        "summary": _first_sentence(comment).replace("`", ""),
        "description": comment,
        "parameters": [*_parameters(contract, method), *([_KEY] if IDEMPOTENCY_KEY in comment else [])],
    }
    if has_body:
        content = _json({"$ref": _ref(method.input_type)}, REQUESTS[method.name])
        operation["requestBody"] = {"required": True, "content": content}
    return {**operation, "responses": _responses(contract, call, method)}


def _parameters(contract: Contract, method: MethodDescriptorProto) -> Iterator[Node]:
    _, path, has_body = binding(method)
    for name, field in _fields(contract, method.input_type):
        if f"{{{field.name}}}" in path:
            yield _parameter(contract, name, field, "path")
        elif not has_body:
            yield _parameter(contract, name, field, "query")


def _parameter(contract: Contract, name: str, field: FieldDescriptorProto, where: str) -> Node:
    return {
        "name": field.name,
        "in": where,
        "required": _is_required(field),
        "description": contract.comments[name],
        "schema": _schema_of(field),
    }


_KEY: Node = {
    "name": "Idempotency-Key",
    "in": "header",
    # Without an example: whoever tries the call in a browser would send that same key again and again.
    "description": "Makes a retry safe: the same key and request are answered as at first, and nothing more is done. "
    "A new one, a UUID for instance, for each thing to be done.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": VISIBLE_ASCII},
}


def _responses(contract: Contract, call: str, method: MethodDescriptorProto) -> Node:
    success: Node = {
        "description": _first_sentence(contract.comments[method.output_type.removeprefix(".")]),
        "headers": {"x-request-id": {"$ref": "#/components/headers/x-request-id"}},
        "content": (_events if method.server_streaming else _json)(
            {"$ref": _ref(method.output_type)}, ANSWERS[method.name]
        ),
    }
    if links := _links_after(contract, method):
        success["links"] = {name: {"$ref": f"#/components/links/{name}"} for name in links}
    groups = _by_status(contract, call)
    return {"200": success, **{status: {"$ref": _failure_ref(groups[status])} for status in sorted(groups)}}


def _by_status(contract: Contract, call: str) -> dict[str, list[str]]:
    """The reasons that a call may fail with, by HTTP status."""
    known = reasons(contract)
    groups: dict[str, list[str]] = {}
    for name in reasons_of(contract, call):
        for status in (known[name].http, *MORE_STATUSES.get(name, ())):
            groups.setdefault(status, []).append(name)
    return groups


def _links(contract: Contract) -> Node:
    """Where an answer leads: from a new ticket to the calls on it, from a page to the next one."""
    named: Node = {}
    for _, method in calls(contract).items():
        for name, target in _links_after(contract, method).items():
            named[name] = target
    return named


def _links_after(contract: Contract, method: MethodDescriptorProto) -> Node:
    if method.name == "CreateTicket":
        return {it.name: _link_to_ticket(it) for it in calls(contract).values() if "{ticket_id}" in binding(it)[1]}
    if method.name.startswith("List"):
        return {f"NextPageOf{method.name}": _link_to_next_page(method)}
    return {}


def _link_to_ticket(method: MethodDescriptorProto) -> Node:
    return {
        "operationId": method.name,
        "parameters": {"path.ticket_id": "$response.body#/id"},
        "description": "The id of the ticket is the `ticket_id` of this call.",
    }


def _link_to_next_page(method: MethodDescriptorProto) -> Node:
    ticket = {"path.ticket_id": "$request.path.ticket_id"} if "{ticket_id}" in binding(method)[1] else {}
    return {
        "operationId": method.name,
        "parameters": {**ticket, "query.page_token": "$response.body#/next_page_token"},
        "description": "The token of a page is the `page_token` of the next one, with the same filters.",
    }


def _used_reasons(contract: Contract) -> list[str]:
    return sorted({name for call in calls(contract) for name in reasons_of(contract, call)})


def _failure_ref(names: Sequence[str]) -> str:
    return f"#/components/responses/{'.'.join(names)}"


def _failures(contract: Contract) -> Node:
    """One response for each group of reasons that share a status in some call, named by them."""
    groups = {tuple(names) for call in calls(contract) for names in _by_status(contract, call).values()}
    return {".".join(names): _failure(names) for names in sorted(groups)}


def _failure(names: Sequence[str]) -> Node:
    examples: Node = {name: {"$ref": f"#/components/examples/{name}"} for name in names}
    headers = ["x-request-id", *(header for header, whose in HEADERS_OF_REASONS.items() if whose & set(names))]
    return {
        "description": ", ".join(f"`{name}`" for name in names),
        "headers": {header: {"$ref": f"#/components/headers/{header}"} for header in headers},
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}, "examples": examples}},
    }


def _json(schema: Node, examples: dict[str, Node]) -> Node:
    return {"application/json": {"schema": schema, "examples": {name: {"value": it} for name, it in examples.items()}}}


def _events(schema: Node, examples: dict[str, Node]) -> Node:
    """A stream, which is one text to OpenAPI before 3.2; what an event's data holds is said beside it."""
    text: Node = {
        "type": "string",
        "description": "Server-sent events: a line `data: ` with a JSON object, and an empty line, again and again.",
    }
    shown: Node = {name: {"value": f"data: {json.dumps(it)}\n\n"} for name, it in examples.items()}
    return {"text/event-stream": {"schema": text, "x-event-data": schema, "examples": shown}}


def _ref(type_name: str) -> str:
    return f"#/components/schemas/{_short(type_name)}"


def _fields(contract: Contract, type_name: str) -> Iterator[tuple[str, FieldDescriptorProto]]:
    name = type_name.removeprefix(".")
    for field in contract.messages()[name].field:
        yield f"{name}.{field.name}", field


def _is_required(field: FieldDescriptorProto) -> bool:
    """Whether a request must have the field, or, of a resource, whether it is always there."""
    behavior = field.options.Extensions[field_behavior_pb2.field_behavior]
    return field_behavior_pb2.REQUIRED in behavior if behavior else not field.proto3_optional


def _schema_of(field: FieldDescriptorProto) -> Node:
    one = _one_of(field)
    if field.label != FieldDescriptorProto.LABEL_REPEATED:
        return one
    return {"type": "array", "items": one, **ARRAYS.get(field.name, {})}


def _one_of(field: FieldDescriptorProto) -> Node:
    if field.type_name == ".google.protobuf.Timestamp":
        return {**TIMESTAMP, **VALUES.get(field.name, {})}
    if field.type_name:
        return {"$ref": _ref(field.type_name)}
    return {**SCALARS[field.type], **VALUES.get(field.name, {})}


def _property(contract: Contract, name: str, field: FieldDescriptorProto) -> Node:
    default = VALUES.get(field.name, {}).get("default") if _is_request(name) and not _is_required(field) else None
    schema = {key: value for key, value in _schema_of(field).items() if key != "default"}
    return {**schema, **({} if default is None else {"default": default}), "description": contract.comments[name]}


def _is_request(name: str) -> bool:
    return "Request." in name


def _schemas(contract: Contract) -> Node:
    paths = {method.input_type: binding(method)[1] for method in calls(contract).values()}
    roots = [root for method in calls(contract).values() for root in _roots(contract, method)]
    used = sorted(_reachable(contract, roots), key=_short)
    return {_short(name): _component(contract, name, paths.get(f".{name}", "")) for name in used}


def _roots(contract: Contract, method: MethodDescriptorProto) -> Iterator[str]:
    yield method.output_type
    if binding(method)[2]:
        yield method.input_type
    else:
        yield from (field.type_name for _, field in _fields(contract, method.input_type))


def _reachable(contract: Contract, roots: Iterable[str]) -> set[str]:
    found: set[str] = {REASONS}
    todo = list(roots)
    while todo:
        name = todo.pop().removeprefix(".")
        if name not in found and name in contract.elements:
            found.add(name)
            todo += [it.type_name for it in getattr(contract.elements[name], "field", [])]
    return found


def _component(contract: Contract, name: str, path: str) -> Node:
    element = contract.elements[name]
    if isinstance(element, DescriptorProto):
        return _object(contract, name, path)
    return _enumeration(contract, name)


def _object(contract: Contract, name: str, path: str) -> Node:
    fields = {it.name: (full, it) for full, it in _fields(contract, name) if f"{{{it.name}}}" not in path}
    schema: Node = {
        "type": "object",
        "description": contract.comments[name],
        "required": [key for key, (_, it) in fields.items() if _is_required(it)],
        "properties": {key: _property(contract, full, it) for key, (full, it) in fields.items()},
        **TOGETHER.get(_short(name), {}),
    }
    # An answer may have more one day; a request with more is a misspelt one.
    return {**schema, "additionalProperties": False} if path else schema


def _enumeration(contract: Contract, name: str) -> Node:
    # The unspecified value is neither accepted nor sent.
    values = [value.name for value in contract.enums()[name].value[1:]]
    lines = [f"- `{value}`: {_summary(contract.comments[f'{name}.{value}'])}" for value in values]
    return {"type": "string", "description": "\n".join([contract.comments[name], "", *lines]), "enum": values}


def _first_sentence(comment: str) -> str:
    return re.split(r"(?<=\.)\s", comment, maxsplit=1)[0].replace("\n", " ")


def _summary(comment: str) -> str:
    """A comment in one line, without its worked example."""
    return " ".join(line for line in comment.splitlines() if line and not line.startswith("    "))


def _error_example(reason: Reason) -> Node:
    info: Node = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", **reason.error_info}
    message = _summary(reason.comment).partition(". Code ")[0] + "."
    value: Node = {
        "code": code_pb2.Code.Value(reason.code),
        "message": message,
        "details": [info, *_MORE_DETAILS.get(reason.name, [])],
    }
    return {"summary": f"{reason.name} ({reason.code})", "value": value}


_RETRY: Node = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retry_delay": "1s"}
_BAD_REQUEST: Node = {
    "@type": "type.googleapis.com/google.rpc.BadRequest",
    "field_violations": [{"field": "subject", "description": "must have 1 to 200 characters"}],
}
_RETRIABLE = ("RATE_LIMITED", "OVERLOADED", "DEPENDENCY_UNAVAILABLE")
_MORE_DETAILS: dict[str, list[Node]] = {"INVALID_FIELDS": [_BAD_REQUEST], **{name: [_RETRY] for name in _RETRIABLE}}


def _detail(name: str, description: str, properties: Node) -> Node:
    kind: Node = {"type": "string", "const": f"type.googleapis.com/google.rpc.{name}"}
    return {
        "type": "object",
        "description": description,
        "required": ["@type", *properties],
        "properties": {"@type": kind, **properties},
    }


HEADERS: Node = {
    "x-request-id": {
        "description": "The request's id in the logs of the gateway and the service, made by the gateway. Missing only"
        " where the gateway could not read the request as HTTP.",
        "schema": {"type": "string", "format": "uuid", "examples": ["5f0c6f0e-3d1b-4c55-8a0e-3b1f0a6c9d21"]},
    },
    "retry-after": {
        "description": "How many seconds to wait, rounded up; the `google.rpc.RetryInfo` says it exactly.",
        "required": True,
        "schema": {"type": "integer", "minimum": 0, "examples": [1]},
    },
    "www-authenticate": {
        "description": "The scheme to use.",
        "schema": {"type": "string", "examples": ['Bearer realm="https://api.nibble.example/api/v1/tickets"']},
    },
}
HEADERS_OF_REASONS = {"retry-after": set(_RETRIABLE), "www-authenticate": {"INVALID_TOKEN"}}

_DETAILS = ("ErrorInfo", "BadRequest", "RetryInfo")
_VIOLATION: Node = {
    "type": "object",
    "required": ["field", "description"],
    "properties": {
        "field": {"type": "string", "description": "The name of the field, filter or header."},
        "description": {"type": "string", "description": "What its value should have been."},
    },
}

ERROR_SCHEMAS: dict[str, Node] = {
    "Error": {
        "type": "object",
        "description": "Why a request failed, as a `google.rpc.Status`.",
        "required": ["code", "message", "details"],
        "properties": {
            "code": {"type": "integer", "minimum": 1, "maximum": 16, "description": "The gRPC code."},
            "message": {"type": "string", "description": "For people; it may change."},
            "details": {
                "type": "array",
                "description": "One `ErrorInfo`, and what more there is to say.",
                "items": {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in _DETAILS]},
                "contains": {"$ref": "#/components/schemas/ErrorInfo"},
            },
        },
    },
    "ErrorInfo": _detail(
        "ErrorInfo",
        "The cause, for programs.",
        {
            "reason": {"$ref": "#/components/schemas/ErrorReason"},
            "domain": {"type": "string", "const": "support.nibble"},
            "metadata": {
                "type": "object",
                "description": "The facts: ids, versions, states, as the reason has them.",
                "additionalProperties": {"type": "string"},
            },
        },
    ),
    "BadRequest": _detail(
        "BadRequest",
        "Every field with a value that is not allowed.",
        {"field_violations": {"type": "array", "minItems": 1, "items": _VIOLATION}},
    ),
    "RetryInfo": _detail(
        "RetryInfo",
        "When to try again.",
        {"retry_delay": {"type": "string", "description": "How long to wait, in seconds.", "examples": ["1s"]}},
    ),
}
