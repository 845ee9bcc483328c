"""What can go wrong, as types: each knows its code, its reason and its facts.

The codes are gRPC's canonical numbers; the reasons are the values of `nibble.support.v1.ErrorReason`. This module
imports no gRPC: `server.api.status` turns an error into the status that a caller sees.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import ClassVar, NamedTuple


class Code(IntEnum):
    """Canonical codes (google.rpc.Code), by their numbers on the wire."""

    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class FieldViolation(NamedTuple):
    """One bad field, by the name the caller used, and what is allowed there."""

    field: str
    description: str


class ServiceError(Exception):
    """Anything a caller is told about.

    `message` is for people and names no secret; `facts` become the metadata of the ErrorInfo, but for those in
    `message_only`; `retry_after`, in seconds, becomes a RetryInfo where waiting helps.
    """

    code: ClassVar[Code]
    reason: ClassVar[str]
    template: ClassVar[str]
    message_only: ClassVar[frozenset[str]] = frozenset()
    retry_after: ClassVar[float | None] = None
    violations: Sequence[FieldViolation] = ()

    def __init__(self, **facts: object) -> None:
        texts = {name: str(value) for name, value in facts.items()}
        self.message = self.template.format(**texts)
        self.facts = {name: text for name, text in texts.items() if name not in self.message_only}
        super().__init__(self.message)


class InvalidFields(ServiceError):
    """One or more fields break a rule; all of them are named at once."""

    code, reason = Code.INVALID_ARGUMENT, "INVALID_FIELDS"
    template = "invalid request: {summary}"
    message_only = frozenset({"summary"})

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        super().__init__(summary="; ".join(f"{v.field}: {v.description}" for v in violations))
        self.violations = tuple(violations)


class MalformedRequest(ServiceError):
    """The bytes of the request are not the message that this call takes."""

    code, reason = Code.INVALID_ARGUMENT, "MALFORMED_REQUEST"
    template = "the request is not a valid {message_type} (texts must be UTF-8)"
    message_only = frozenset({"message_type"})


class NoRequest(ServiceError):
    """The caller ended the call without having sent a request."""

    code, reason = Code.INVALID_ARGUMENT, "MALFORMED_REQUEST"
    template = "the call came without a request"


class RequestTooLarge(ServiceError):
    """The request has more bytes than the service takes."""

    code, reason = Code.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE"
    template = "the request is larger than {limit} bytes"
    message_only = frozenset({"limit"})


class UnknownMethod(ServiceError):
    """There is no such call."""

    code, reason = Code.UNIMPLEMENTED, "UNIMPLEMENTED"
    template = "there is no such call"


class InvalidToken(ServiceError):
    """No token, or one that this service does not believe."""

    code, reason = Code.UNAUTHENTICATED, "INVALID_TOKEN"
    template = "{problem}"
    message_only = frozenset({"problem"})

    def __init__(self, problem: str) -> None:
        super().__init__(problem=problem)


class RoleNotAllowed(ServiceError):
    """The caller's role may never make this call."""

    code, reason = Code.PERMISSION_DENIED, "ROLE_NOT_ALLOWED"
    template = "the role {role} may not call {call}"


class ActionNotAllowed(ServiceError):
    """The role may make the call, but not for what was asked."""

    code, reason = Code.PERMISSION_DENIED, "ACTION_NOT_ALLOWED"
    template = "{rule}"
    message_only = frozenset({"rule"})

    def __init__(self, rule: str, role: str) -> None:
        super().__init__(rule=rule, role=role)


class TicketNotFound(ServiceError):
    """No such ticket, or one that the caller may not see: the two are not told apart."""

    code, reason = Code.NOT_FOUND, "TICKET_NOT_FOUND"
    template = "there is no ticket {ticket_id}"


class CommentNotFound(ServiceError):
    """No such comment on the ticket."""

    code, reason = Code.NOT_FOUND, "COMMENT_NOT_FOUND"
    template = "there is no comment {comment_id} on the ticket"


class FeedbackNotFound(ServiceError):
    """The ticket was not rated."""

    code, reason = Code.NOT_FOUND, "FEEDBACK_NOT_FOUND"
    template = "the ticket {ticket_id} was not rated"


class TicketNotRatable(ServiceError):
    """Only a resolved or closed ticket can be rated."""

    code, reason = Code.FAILED_PRECONDITION, "TICKET_NOT_RATABLE"
    template = "a ticket that is {status} can't be rated"


class FeedbackFinal(ServiceError):
    """The rating was given too long ago to be changed."""

    code, reason = Code.FAILED_PRECONDITION, "FEEDBACK_FINAL"
    template = "the rating could be changed until {changeable_until}"


class AgentNotFound(ServiceError):
    """Nobody with this id is on the roster."""

    code, reason = Code.NOT_FOUND, "AGENT_NOT_FOUND"
    template = "there is nobody with the id {agent_id} on the roster"


class AgentAtCapacity(ServiceError):
    """The assignee has as many open and in-progress tickets as they can bear."""

    code, reason = Code.FAILED_PRECONDITION, "AGENT_AT_CAPACITY"
    template = "{assigned_to} has as many tickets as the roster says that they can bear"


class AgentNotActive(ServiceError):
    """The assignee does not work here any more."""

    code, reason = Code.FAILED_PRECONDITION, "AGENT_NOT_ACTIVE"
    template = "{assigned_to} does not work here any more, as the roster says"


class NoAgentAvailable(ServiceError):
    """Nobody on the roster is available and has capacity to spare."""

    code, reason = Code.FAILED_PRECONDITION, "NO_AGENT_AVAILABLE"
    template = "nobody who is available has capacity to spare"


class IllegalTransition(ServiceError):
    """The state machine has no way from the present status to the one asked for."""

    code, reason = Code.FAILED_PRECONDITION, "ILLEGAL_TRANSITION"
    template = "a ticket can't go from {from_} to {to}"

    def __init__(self, current: str, wanted: str, ticket_id: object) -> None:
        super().__init__(from_=current, to=wanted, ticket_id=ticket_id)
        self.facts["from"] = self.facts.pop("from_")


class TicketNotAssignable(ServiceError):
    """A resolved or closed ticket takes no assignee."""

    code, reason = Code.FAILED_PRECONDITION, "TICKET_NOT_ASSIGNABLE"
    template = "a {status} ticket can't be assigned"


class TicketClosed(ServiceError):
    """A closed ticket takes internal notes only."""

    code, reason = Code.FAILED_PRECONDITION, "TICKET_CLOSED"
    template = "the ticket is closed: it takes internal notes only"


class VersionMismatch(ServiceError):
    """The ticket is not at the version that the caller expected."""

    code, reason = Code.ABORTED, "VERSION_MISMATCH"
    template = "the ticket is at version {version}, not at the expected {expected_version}"


class Contention(ServiceError):
    """Others changed the ticket at every attempt."""

    code, reason = Code.ABORTED, "CONTENTION"
    template = "the ticket is being changed by others; try again"
    retry_after = 0.5


class IdempotencyKeyReused(ServiceError):
    """The key came before, with another payload."""

    code, reason = Code.ALREADY_EXISTS, "IDEMPOTENCY_KEY_REUSED"
    template = "this Idempotency-Key was used with another request"


class Overloaded(ServiceError):
    """The server takes no more work just now."""

    code, reason = Code.RESOURCE_EXHAUSTED, "OVERLOADED"
    template = "the service is at its limit; try again shortly"
    retry_after = 1.0


class TooManyStreams(ServiceError):
    """The caller has as many streams open as one caller may; others are served as before."""

    code, reason = Code.RESOURCE_EXHAUSTED, "RATE_LIMITED"
    template = "this caller has {limit} streams open already, as many as one caller may"
    message_only = frozenset({"limit"})
    retry_after = 1.0


class DependencyUnavailable(ServiceError):
    """The database, or another part that the call needs, does not answer."""

    code, reason = Code.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE"
    template = "the service can't reach its database; try again shortly"
    retry_after = 1.0


class NoSigningKeys(DependencyUnavailable):
    """The keys that sign tokens were never read so far, so no token is known to be bad, and none to be good."""

    template = "the service can't check tokens yet; try again shortly"


class UserServiceUnavailable(DependencyUnavailable):
    """The User Service does not answer, or not as it should; nothing is known about the users who were asked for."""

    template = "the service can't reach the User Service; try again shortly"


class OrderServiceUnavailable(DependencyUnavailable):
    """The Order Service does not answer, or not as it should; nothing is known about the order that was asked for."""

    template = "the service can't reach the Order Service; try again shortly"


class DeadlineExceeded(ServiceError):
    """The call did not end within its deadline; whether a write took place is unknown."""

    code, reason = Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"
    template = "the call did not end within its deadline"


class UnexpectedFailure(ServiceError):
    """A defect of the service; the log has more under the same request id."""

    code, reason = Code.INTERNAL, "INTERNAL"
    template = "an unexpected failure; the request id is {request_id}"
