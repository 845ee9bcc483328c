"""Errors as the status that callers see, held against section 6 of the contract."""

import inspect
from functools import cache
from typing import TypeVar
from uuid import uuid4

import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2
from nibble.support.v1 import error_reason_pb2

from protos import generate, openapi
from protos.contract import read
from server import errors
from server.api.status import CODES, details_of, trailing_metadata
from server.errors import Code, FieldViolation, ServiceError

D = TypeVar("D", error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo)

ID = uuid4()
EXAMPLES: list[ServiceError] = [
    errors.InvalidFields([FieldViolation("subject", "must not be blank"), FieldViolation("order_id", "is no UUID")]),
    errors.MalformedRequest(message_type="CreateTicketRequest"),
    errors.NoRequest(),
    errors.RequestTooLarge(limit=1024),
    errors.UnknownMethod(),
    errors.InvalidToken("the token has expired"),
    errors.RoleNotAllowed(role="customer", call="TicketService.ListTickets"),
    errors.ActionNotAllowed("the owner of a ticket may only close it", "customer"),
    errors.TicketNotFound(ticket_id=ID),
    errors.IllegalTransition("closed", "open", ID),
    errors.TicketNotAssignable(ticket_id=ID, status="closed"),
    errors.CommentNotFound(comment_id=ID),
    errors.FeedbackNotFound(ticket_id=ID),
    errors.TicketNotRatable(ticket_id=ID, status="open"),
    errors.FeedbackFinal(ticket_id=ID, changeable_until="2026-12-01T17:40:00Z"),
    errors.AgentNotFound(agent_id=ID),
    errors.AgentAtCapacity(assigned_to=ID),
    errors.AgentNotActive(assigned_to=ID),
    errors.NoAgentAvailable(ticket_id=ID),
    errors.TicketClosed(ticket_id=ID),
    errors.VersionMismatch(ticket_id=ID, version=2, expected_version=1),
    errors.Contention(),
    errors.IdempotencyKeyReused(),
    errors.Overloaded(),
    errors.TooManyStreams(limit=20),
    errors.DependencyUnavailable(),
    errors.NoSigningKeys(),
    errors.UserServiceUnavailable(),
    errors.OrderServiceUnavailable(),
    errors.DeadlineExceeded(),
    errors.UnexpectedFailure(request_id="r-1"),
]
# The codes as the contract, or the comment of the reason in the protos, states them.
CODE_OF = {
    "INVALID_FIELDS": "INVALID_ARGUMENT",
    "MALFORMED_REQUEST": "INVALID_ARGUMENT",
    "REQUEST_TOO_LARGE": "RESOURCE_EXHAUSTED",
    "UNIMPLEMENTED": "UNIMPLEMENTED",
    "INVALID_TOKEN": "UNAUTHENTICATED",
    "ROLE_NOT_ALLOWED": "PERMISSION_DENIED",
    "ACTION_NOT_ALLOWED": "PERMISSION_DENIED",
    "TICKET_NOT_FOUND": "NOT_FOUND",
    "ILLEGAL_TRANSITION": "FAILED_PRECONDITION",
    "TICKET_NOT_ASSIGNABLE": "FAILED_PRECONDITION",
    "COMMENT_NOT_FOUND": "NOT_FOUND",
    "FEEDBACK_NOT_FOUND": "NOT_FOUND",
    "TICKET_NOT_RATABLE": "FAILED_PRECONDITION",
    "FEEDBACK_FINAL": "FAILED_PRECONDITION",
    "AGENT_NOT_FOUND": "NOT_FOUND",
    "AGENT_AT_CAPACITY": "FAILED_PRECONDITION",
    "AGENT_NOT_ACTIVE": "FAILED_PRECONDITION",
    "NO_AGENT_AVAILABLE": "FAILED_PRECONDITION",
    "TICKET_CLOSED": "FAILED_PRECONDITION",
    "VERSION_MISMATCH": "ABORTED",
    "CONTENTION": "ABORTED",
    "IDEMPOTENCY_KEY_REUSED": "ALREADY_EXISTS",
    "OVERLOADED": "RESOURCE_EXHAUSTED",
    "RATE_LIMITED": "RESOURCE_EXHAUSTED",
    "DEPENDENCY_UNAVAILABLE": "UNAVAILABLE",
    "DEADLINE_EXCEEDED": "DEADLINE_EXCEEDED",
    "INTERNAL": "INTERNAL",
}
every_error = pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)


@cache
def reasons() -> dict[str, openapi.Reason]:
    """The reasons as the comments in the protos show them, each with an example."""
    return openapi.reasons(read(generate.image()))


def status_of(error: ServiceError) -> status_pb2.Status:
    details = dict(trailing_metadata(error))["grpc-status-details-bin"]
    assert isinstance(details, bytes)
    return status_pb2.Status.FromString(details)


def detail(error: ServiceError, kind: type[D]) -> D | None:
    """The detail of this kind, None where the status has none."""
    for packed in status_of(error).details:
        found = kind()
        if packed.Unpack(found):
            return found
    return None


def test_there_is_an_example_of_every_error() -> None:
    kinds = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, ServiceError)}
    assert {type(error) for error in EXAMPLES} == kinds - {ServiceError}


@every_error
def test_an_error_has_the_code_that_the_contract_gives_its_reason(error: ServiceError) -> None:
    assert error.code.name == CODE_OF[error.reason]
    assert status_of(error).code == code_pb2.Code.Value(error.code.name)


@every_error
def test_the_status_says_the_errors_message(error: ServiceError) -> None:
    assert status_of(error).message == error.message != ""


@every_error
def test_an_error_info_carries_a_reason_of_the_protos_and_the_facts(error: ServiceError) -> None:
    info = detail(error, error_details_pb2.ErrorInfo)
    assert info is not None
    assert info.reason in error_reason_pb2.ErrorReason.keys()  # noqa: SIM118 - an enum wrapper is no dict
    assert info.domain == "support.nibble"
    assert dict(info.metadata) == error.facts


@every_error
def test_a_bad_request_names_the_fields_of_bad_fields_only(error: ServiceError) -> None:
    bad = detail(error, error_details_pb2.BadRequest)
    named = [(v.field, v.description) for v in bad.field_violations] if bad else []
    assert named == [tuple(violation) for violation in error.violations]


@every_error
def test_a_retry_info_comes_where_waiting_helps(error: ServiceError) -> None:
    retry = detail(error, error_details_pb2.RetryInfo)
    assert (retry is not None) == (
        error.reason in {"OVERLOADED", "RATE_LIMITED", "DEPENDENCY_UNAVAILABLE", "CONTENTION"}
    )
    assert retry is None or retry.retry_delay.ToTimedelta().total_seconds() == error.retry_after


@every_error
def test_http_is_told_to_wait_as_many_whole_seconds(error: ServiceError) -> None:
    header = dict(trailing_metadata(error)).get("retry-after")
    assert header == (None if error.retry_after is None else "1")


@every_error
def test_every_error_info_comes_first(error: ServiceError) -> None:
    assert isinstance(details_of(error)[0], error_details_pb2.ErrorInfo)


def test_every_code_is_one_of_grpcs_by_number_and_name() -> None:
    assert {code.name: CODES[code].name for code in Code} == {code.name: code.name for code in Code}


def test_the_message_of_bad_fields_names_each() -> None:
    assert EXAMPLES[0].message == "invalid request: subject: must not be blank; order_id: is no UUID"


@every_error
def test_an_error_has_the_facts_of_the_documented_example(error: ServiceError) -> None:
    documented = reasons()[error.reason].error_info["metadata"]
    assert isinstance(documented, dict)
    assert error.facts.keys() == documented.keys()
