"""What stands around every call: every failure has a status, and nothing is let in that should stay out."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NoReturn

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from nibble.support.v1 import ticket_pb2, ticket_service_pb2
from structlog.testing import capture_logs

from server.api.boundary import Boundary, Call, Limits, Unreadable, decoder, refuse_unknown
from server.auth.keys import KeySet
from server.auth.tokens import TokenVerifier
from server.domain.callers import Caller, Role
from server.domain.permissions import MAY_CALL
from server.domain.validation import Fields
from server.errors import DependencyUnavailable, InvalidFields, MalformedRequest, TicketNotFound
from tests.unit.signing import AUDIENCE, ISSUER, LEEWAY, bearer, key_set, signer, token, verifier
from tests.unit.vocabulary import OWNER

KEY = signer("ES256")
VERIFIER = verifier(KEY)
REQUEST = ticket_service_pb2.GetTicketRequest(ticket_id="01990000-0000-7000-8000-000000000001")
UNREADABLE = Unreadable(MalformedRequest(message_type="GetTicketRequest"))
PRIVATE = "the soup came cold"
Method = Callable[[Any, Call], Coroutine[Any, Any, Message]]
Metadata = Sequence[tuple[str, str | bytes]]


class Aborted(Exception):
    """The call ended with a status other than OK."""


class Context:
    """As much of a call's context as the boundary uses."""

    request: object = REQUEST

    def __init__(self, metadata: Metadata | None = None, remaining: float | None = None) -> None:
        self._metadata = [("authorization", bearer(KEY))] if metadata is None else metadata
        self._remaining = remaining
        self.trailers: tuple[tuple[str, str | bytes], ...] = ()
        self.code: grpc.StatusCode | None = None
        self.message = ""

    def invocation_metadata(self) -> Metadata:
        return self._metadata

    def time_remaining(self) -> float | None:
        return self._remaining

    async def read(self) -> object:
        return self.request

    def set_trailing_metadata(self, trailers: tuple[tuple[str, str | bytes], ...]) -> None:
        self.trailers = trailers

    async def abort(self, code: grpc.StatusCode, message: str) -> NoReturn:
        self.code, self.message = code, message
        raise Aborted

    @property
    def info(self) -> error_details_pb2.ErrorInfo:
        """The ErrorInfo of the status in the trailers."""
        details = dict(self.trailers)["grpc-status-details-bin"]
        assert isinstance(details, bytes)
        status = status_pb2.Status.FromString(details)
        info = error_details_pb2.ErrorInfo()
        assert status.details[0].Unpack(info)
        return info


async def answer(request: Any, call: Call) -> Message:  # noqa: ANN401
    """A method that answers at once with its caller."""
    del request
    return ticket_pb2.Ticket(id=REQUEST.ticket_id, user_id=str(call.caller.id))


def failing(failure: BaseException) -> Method:
    """A method that fails so."""

    async def method(request: Any, call: Call) -> Message:  # noqa: ANN401
        del request, call
        raise failure

    return method


class Gate:
    """A method that waits until it is opened."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()

    async def method(self, request: Any, call: Call) -> Message:  # noqa: ANN401
        self.entered.set()
        await self.opened.wait()
        return await answer(request, call)


def boundary(limit: int = 10, deadline: float = 5.0) -> Boundary:
    return Boundary(VERIFIER, MAY_CALL, Limits(limit, deadline))


async def called(
    method: Method = answer,
    context: Context | None = None,
    *,
    call: str = "TicketService.GetTicket",
    request: object = REQUEST,
    around: Boundary | None = None,
) -> Message:
    """The answer to one call through the boundary; Aborted where it has a status other than OK."""
    handle = (around or boundary()).wrap(call, method)
    context = context or Context()
    context.request = request
    return await handle(None, context)  # type: ignore[arg-type]


async def refused(
    method: Method = answer,
    context: Context | None = None,
    *,
    call: str = "TicketService.GetTicket",
    request: object = REQUEST,
    around: Boundary | None = None,
) -> Context:
    """The context of a call that ends with a status other than OK."""
    context = context or Context()
    with pytest.raises(Aborted):
        await called(method, context, call=call, request=request, around=around)
    return context


async def test_a_good_call_reaches_its_method_as_the_tokens_caller() -> None:
    assert await called() == ticket_pb2.Ticket(id=REQUEST.ticket_id, user_id=str(OWNER))


async def test_a_method_gets_caller_and_key_and_nothing_else_of_the_metadata() -> None:
    seen: list[Call] = []

    async def method(request: Any, call: Call) -> Message:  # noqa: ANN401
        seen.append(call)
        return await answer(request, call)

    metadata = [
        ("authorization", bearer(KEY)),
        ("idempotency-key", "k-1"),
        ("x-user-id", "somebody"),
        ("x-role", "support_supervisor"),
    ]
    await called(method, Context(metadata))
    assert seen == [Call(Caller(OWNER, Role.CUSTOMER), "k-1")]


async def test_an_unexpected_failure_is_generic_and_its_request_id_is_in_the_log_too() -> None:
    with capture_logs() as lines:
        context = await refused(failing(RuntimeError(PRIVATE)))
    assert context.code is grpc.StatusCode.INTERNAL
    request_id = context.info.metadata["request_id"]
    assert request_id in context.message
    assert {line["request_id"] for line in lines} == {request_id}
    assert PRIVATE not in context.message + repr(context.trailers)
    assert any(isinstance(line.get("exc_info"), RuntimeError) for line in lines)


@pytest.mark.parametrize("failure", [KeyError("x"), AssertionError(), ExceptionGroup("many", [ValueError()])])
async def test_no_failure_gets_past_the_catch_all(failure: Exception) -> None:
    assert (await refused(failing(failure))).code is grpc.StatusCode.INTERNAL


async def test_a_service_error_keeps_its_code_message_and_facts() -> None:
    context = await refused(failing(TicketNotFound(ticket_id="t")))
    assert context.code is grpc.StatusCode.NOT_FOUND
    assert context.message == "there is no ticket t"
    assert (context.info.reason, dict(context.info.metadata)) == ("TICKET_NOT_FOUND", {"ticket_id": "t"})


async def test_what_a_dependency_said_is_for_the_log_only() -> None:
    failure = DependencyUnavailable()
    failure.__cause__ = OSError("connection to 10.1.2.3 refused")
    with capture_logs() as lines:
        context = await refused(failing(failure))
    assert "10.1.2.3" not in context.message + repr(context.trailers)
    assert any("10.1.2.3" in line.get("cause", "") and line["log_level"] == "warning" for line in lines)


async def test_a_request_id_that_was_sent_is_kept() -> None:
    context = Context([("authorization", bearer(KEY)), ("x-request-id", "r-42")])
    assert (await refused(failing(RuntimeError()), context)).info.metadata["request_id"] == "r-42"


@pytest.mark.parametrize("sent", ["", "a b", "x" * 129, "ü", b"bytes", "a\nb"])
async def test_a_request_id_that_could_forge_a_log_line_is_replaced(sent: str | bytes) -> None:
    context = Context([("authorization", bearer(KEY)), ("x-request-id", sent)])
    assert (await refused(failing(RuntimeError()), context)).info.metadata["request_id"] not in {sent, ""}


async def test_a_call_without_a_token_is_unauthenticated_before_anything_is_looked_at() -> None:
    context = await refused(context=Context([]), request=UNREADABLE)
    assert context.code is grpc.StatusCode.UNAUTHENTICATED


async def test_a_role_that_may_never_call_is_denied_before_the_request_is_looked_at() -> None:
    context = await refused(call="TicketService.ListTickets", request=UNREADABLE)
    assert (context.code, context.info.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_NOT_ALLOWED")


async def test_bytes_that_are_no_request_are_the_callers_mistake() -> None:
    context = await refused(request=UNREADABLE)
    assert (context.code, context.info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")


async def test_a_call_without_a_request_is_the_callers_mistake() -> None:
    context = await refused(request=grpc.aio.EOF)
    assert (context.code, context.info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")


async def test_a_request_that_does_not_come_is_waited_for_until_the_deadline() -> None:
    class Silent(Context):
        async def read(self) -> object:
            return await asyncio.Event().wait()

    context = await refused(context=Silent(), around=boundary(deadline=0.01))
    assert context.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_call_holds_its_place_for_a_minute_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.api.boundary.LONGEST_DEADLINE_SECONDS", 0.01)
    context = await refused(Gate().method, Context(remaining=3600))
    assert context.code is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x02\xff\xfe", b"\x0a\x7f"])
async def test_a_decoder_never_raises(data: bytes) -> None:
    unreadable = decoder(ticket_service_pb2.GetTicketRequest, 1000)(data)
    assert isinstance(unreadable, Unreadable)
    assert isinstance(unreadable.error, MalformedRequest)


async def test_a_request_is_read_up_to_the_limit_in_bytes_and_refused_beyond() -> None:
    data = REQUEST.SerializeToString()
    assert decoder(ticket_service_pb2.GetTicketRequest, len(data))(data) == REQUEST
    context = await refused(request=decoder(ticket_service_pb2.GetTicketRequest, len(data) - 1)(data))
    assert (context.code, context.info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE")


async def test_a_call_that_there_is_not_has_details_too() -> None:
    context = Context()
    with pytest.raises(Aborted):
        await refuse_unknown(b"", context)  # type: ignore[arg-type]
    assert (context.code, context.info.reason) == (grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED")


@pytest.mark.parametrize("second", [bearer(KEY), "Bearer x", "Basic x", " ", b"x"])
@pytest.mark.parametrize("first", ["good", "bad"])
async def test_two_tokens_are_none(first: str, second: str) -> None:
    pair = [("authorization", bearer(KEY)), ("authorization", second)]
    context = await refused(context=Context(pair if first == "good" else pair[::-1]))
    assert context.code is grpc.StatusCode.UNAUTHENTICATED


async def test_a_call_waits_for_a_new_key_no_longer_than_its_deadline() -> None:
    answering = threading.Event()

    def hanging() -> bytes:
        answering.wait(10)
        return key_set(KEY)

    keys = KeySet(hanging)
    around = Boundary(TokenVerifier(keys, ISSUER, AUDIENCE, LEEWAY), MAY_CALL, Limits(10, 5.0))
    metadata = [("authorization", bearer(KEY))]
    context = await refused(context=Context(metadata, remaining=0.05), around=around)
    assert context.code is grpc.StatusCode.DEADLINE_EXCEEDED
    waiting = asyncio.create_task(called(context=Context(metadata), around=around))
    answering.set()
    assert (await waiting).user_id == str(OWNER)  # type: ignore[attr-defined]


async def test_an_empty_entry_is_no_token_and_takes_none_away() -> None:
    assert await called(context=Context([("authorization", ""), ("authorization", bearer(KEY))]))
    context = await refused(context=Context([("authorization", ""), ("authorization", "")]))
    assert context.code is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("second", ["b", "a", ""])
async def test_two_idempotency_keys_are_none_that_is_valid(second: str) -> None:
    seen: list[str | None] = []

    async def method(request: Any, call: Call) -> Message:  # noqa: ANN401
        seen.append(call.idempotency_key)
        return await answer(request, call)

    metadata = [("authorization", bearer(KEY)), ("idempotency-key", "a"), ("idempotency-key", second)]
    await called(method, Context(metadata))
    fields = Fields()
    fields.idempotency_key(seen[0])
    with pytest.raises(InvalidFields, match="idempotency-key"):
        fields.check()


async def test_a_call_ends_at_the_deadline_that_the_caller_set() -> None:
    context = await refused(Gate().method, Context(remaining=0.01), around=boundary(deadline=30))
    assert (context.code, context.info.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


async def test_a_call_without_a_deadline_has_the_services_own() -> None:
    context = await refused(Gate().method, around=boundary(deadline=0.01))
    assert context.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_call_above_the_limit_is_refused_at_once_and_the_place_is_free_afterwards() -> None:
    around, gate = boundary(limit=1), Gate()
    first = asyncio.create_task(called(gate.method, around=around))
    await gate.entered.wait()
    context = await refused(around=around)
    assert (context.code, context.info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    gate.opened.set()
    await first
    await called(around=around)


async def test_calls_that_are_turned_away_share_a_line_of_the_log_and_tell_how_many_they_are() -> None:
    around, gate = boundary(limit=1), Gate()
    first = asyncio.create_task(called(gate.method, around=around))
    await gate.entered.wait()
    with capture_logs() as lines:
        for _ in range(30):
            await refused(around=around)
    gate.opened.set()
    await first
    assert [line["event"] for line in lines] == ["calls turned away"] * len(lines)
    assert 1 <= len(lines) < 30
    assert (lines[0]["calls"], lines[0]["log_level"], lines[0]["reason"]) == (1, "warning", "OVERLOADED")


@pytest.mark.parametrize("failure", [RuntimeError(), TicketNotFound(ticket_id="t")])
async def test_a_failed_call_gives_its_place_back(failure: Exception) -> None:
    around = boundary(limit=1)
    await refused(failing(failure), around=around)
    await called(around=around)


async def test_a_cancelled_call_is_logged_raised_again_and_gives_its_place_back() -> None:
    around, gate = boundary(limit=1), Gate()
    with capture_logs() as lines:
        task = asyncio.create_task(called(gate.method, around=around))
        await gate.entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [line["code"] for line in lines] == ["CANCELLED"]
    await called(around=around)


async def test_a_call_leaves_one_line_that_holds_neither_token_nor_text() -> None:
    with capture_logs() as lines:
        await called()
    (line,) = lines
    assert {name: line[name] for name in ("method", "code", "role", "ticket_id")} == {
        "method": "TicketService.GetTicket",
        "code": "OK",
        "role": "customer",
        "ticket_id": REQUEST.ticket_id,
    }
    assert token(KEY)[:20] not in repr(line)


async def test_a_ticket_id_that_is_none_does_not_reach_the_log() -> None:
    with capture_logs() as lines:
        await refused(
            failing(TicketNotFound(ticket_id="t")), request=ticket_service_pb2.GetTicketRequest(ticket_id=PRIVATE)
        )
    assert PRIVATE not in repr(lines)


async def test_draining_waits_for_the_calls_in_flight() -> None:
    around, gate = boundary(), Gate()
    call = asyncio.create_task(called(gate.method, around=around))
    await gate.entered.wait()
    draining = asyncio.create_task(around.drain(30))
    await asyncio.sleep(0)
    assert not draining.done()
    gate.opened.set()
    await draining
    assert (await call) is not None


async def test_draining_ends_the_calls_that_take_longer_with_a_status() -> None:
    around, gate, context = boundary(deadline=30), Gate(), Context()
    call = asyncio.create_task(refused(gate.method, context, around=around))
    await gate.entered.wait()
    await around.drain(0.01)
    await call
    assert context.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_draining_without_calls_is_over_at_once() -> None:
    await asyncio.wait_for(boundary().drain(30), 1)


async def test_a_call_that_is_just_being_ended_does_not_stop_the_draining() -> None:
    ending, gate = asyncio.Event(), asyncio.Event()

    async def method(request: Any, call: Call) -> Message:  # noqa: ANN401
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await gate.wait()
        return await answer(request, call)

    around = boundary(deadline=0.01)
    call = asyncio.create_task(refused(method, around=around))
    await ending.wait()
    draining = asyncio.create_task(around.drain(30))
    await asyncio.sleep(0)
    gate.set()
    await draining
    assert (await call).code is grpc.StatusCode.DEADLINE_EXCEEDED
