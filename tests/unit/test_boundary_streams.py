"""A stream of answers: who may open one, how it ends, and that it leaves nothing behind."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf.message import Message
from nibble.support.v1 import ticket_pb2
from structlog.testing import capture_logs

from server.api.boundary import Boundary, Call, Limits, StreamMethod
from server.domain.callers import Role
from server.errors import DependencyUnavailable
from tests.unit.signing import bearer
from tests.unit.test_boundary import KEY, REQUEST, VERIFIER, Aborted, Context

CALL = "TicketService.GetTicket"
MAY_CALL = {CALL: frozenset({Role.CUSTOMER})}


class Stream(Context):
    """The context of a call that is answered with a stream."""

    def __init__(self, *, remaining: float | None = None, token: str | None = None) -> None:
        super().__init__([("authorization", token or bearer(KEY))], remaining)
        self.written: list[Message] = []

    async def write(self, message: Message) -> None:
        self.written.append(message)


class Endless:
    """A method that answers once and then waits for ever."""

    def __init__(self) -> None:
        self.closed = False
        self.waiting = asyncio.Event()

    async def method(self, request: Any, call: Call) -> AsyncGenerator[Message, None]:  # noqa: ANN401
        del request
        try:
            yield ticket_pb2.Ticket(user_id=str(call.caller.id))
            self.waiting.set()
            await asyncio.Event().wait()
        finally:
            self.closed = True


def boundary(streams: int = 10, stream_seconds: float = 60.0, deadline: float = 5.0) -> Boundary:
    return Boundary(VERIFIER, MAY_CALL, Limits(10, deadline, streams, stream_seconds))


async def streamed(method: StreamMethod, context: Stream, around: Boundary | None = None) -> list[Message]:
    await (around or boundary()).wrap_stream(CALL, method)(None, context)  # type: ignore[arg-type]
    return context.written


async def two_answers(request: Any, call: Call) -> AsyncGenerator[Message, None]:  # noqa: ANN401
    del call
    for _ in range(2):
        yield ticket_pb2.Ticket(id=request.ticket_id)


async def test_a_stream_sends_what_its_method_yields_and_ends_with_it() -> None:
    context = Stream()
    assert await streamed(two_answers, context) == [ticket_pb2.Ticket(id=REQUEST.ticket_id)] * 2
    assert context.code is None


async def test_a_stream_without_a_good_token_never_begins() -> None:
    endless, context = Endless(), Stream(token="Bearer no-token")
    with pytest.raises(Aborted):
        await streamed(endless.method, context)
    assert context.code is grpc.StatusCode.UNAUTHENTICATED
    assert not endless.waiting.is_set()


async def test_a_role_that_may_not_open_the_stream_is_told_so() -> None:
    context = Stream(token=bearer(KEY, role="service"))
    with pytest.raises(Aborted):
        await streamed(two_answers, context)
    assert context.code is grpc.StatusCode.PERMISSION_DENIED
    assert context.info.reason == "ROLE_NOT_ALLOWED"


async def test_a_stream_that_has_lasted_long_enough_ends_well_and_its_method_is_closed() -> None:
    endless, context = Endless(), Stream()
    await streamed(endless.method, context, boundary(stream_seconds=0.01))
    assert context.code is None
    assert len(context.written) == 1
    assert endless.closed


async def test_a_request_that_does_not_come_ends_the_stream_at_the_deadline_of_a_call() -> None:
    class Silent(Stream):
        async def read(self) -> object:
            return await asyncio.Event().wait()

    context = Silent()
    with pytest.raises(Aborted):
        await streamed(two_answers, context, boundary(deadline=0.01))
    assert context.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_failure_in_the_middle_is_the_status_of_the_stream() -> None:
    async def failing(request: Any, call: Call) -> AsyncGenerator[Message, None]:  # noqa: ANN401
        del call
        yield ticket_pb2.Ticket(id=request.ticket_id)
        raise DependencyUnavailable

    context = Stream()
    with pytest.raises(Aborted):
        await streamed(failing, context)
    assert context.code is grpc.StatusCode.UNAVAILABLE
    assert len(context.written) == 1


async def test_a_time_out_of_the_methods_own_is_no_regular_end() -> None:
    async def failing(request: Any, call: Call) -> AsyncGenerator[Message, None]:  # noqa: ANN401
        del call
        yield ticket_pb2.Ticket(id=request.ticket_id)
        raise TimeoutError

    context = Stream()
    with pytest.raises(Aborted):
        await streamed(failing, context)
    assert context.code is grpc.StatusCode.INTERNAL


async def test_a_stream_above_the_limit_is_refused_and_takes_no_place_from_calls() -> None:
    around, endless = boundary(streams=1), Endless()
    first = asyncio.create_task(streamed(endless.method, Stream(), around))
    await endless.waiting.wait()
    context = Stream()
    with pytest.raises(Aborted):
        await streamed(two_answers, context, around)
    assert context.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    await around.drain(1)
    await first


async def test_one_caller_takes_no_more_than_their_share_of_the_streams() -> None:
    around, endless = Boundary(VERIFIER, MAY_CALL, Limits(10, 5.0, streams=10, streams_per_caller=1)), Endless()
    mine = bearer(KEY, sub=str(uuid4()))
    first = asyncio.create_task(streamed(endless.method, Stream(token=mine), around))
    await endless.waiting.wait()
    second = Stream(token=mine)
    with pytest.raises(Aborted):
        await streamed(two_answers, second, around)
    assert second.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(await streamed(two_answers, Stream(token=bearer(KEY, sub=str(uuid4()))), around)) == 2
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert len(await streamed(two_answers, Stream(token=mine), around)) == 2


async def test_a_caller_that_goes_away_closes_the_method_and_frees_the_place() -> None:
    around, endless = boundary(streams=1), Endless()
    with capture_logs() as lines:
        stream = asyncio.create_task(streamed(endless.method, Stream(), around))
        await endless.waiting.wait()
        stream.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stream
    assert endless.closed
    assert [line["code"] for line in lines] == ["CANCELLED"]
    assert len(await streamed(two_answers, Stream(), around)) == 2


async def test_a_server_that_stops_ends_its_streams_at_once_and_well() -> None:
    around, endless, context = boundary(), Endless(), Stream()
    stream = asyncio.create_task(streamed(endless.method, context, around))
    await endless.waiting.wait()
    await asyncio.wait_for(around.drain(60), 1)
    await stream
    assert (context.code, endless.closed) == (None, True)
