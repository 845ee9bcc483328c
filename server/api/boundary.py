"""What stands around every call: errors outermost, then telemetry, admission and deadline, then who is calling.

One wrapper per method, made when the server starts, rather than a chain of interceptors walked at every call.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, NamedTuple, NoReturn

import grpc
import structlog
from google.protobuf.message import DecodeError, Message
from uuid_utils import uuid4

from server import telemetry
from server.api.status import CODES, trailing_metadata
from server.auth.tokens import TokenVerifier
from server.domain.callers import Caller, CallTable, require_call
from server.domain.validation import is_uuid
from server.errors import (
    Code,
    DeadlineExceeded,
    MalformedRequest,
    NoRequest,
    Overloaded,
    RequestTooLarge,
    ServiceError,
    TooManyStreams,
    UnexpectedFailure,
    UnknownMethod,
)

_log = structlog.stdlib.get_logger("nibble.api")
DRAIN_POLL_SECONDS = 0.02
# The caller's clock ends a call a little before ours does.
LATE_SECONDS = 0.05
# How often the log says that calls are turned away.
TURNED_AWAY_SECONDS = 1.0
# A caller may wait longer, but a call holds its place no longer than this.
LONGEST_DEADLINE_SECONDS = 60.0
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
# Codes that say that something is wrong here, rather than with the caller.
_OURS = frozenset({Code.INTERNAL, Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, Code.DEADLINE_EXCEEDED})


class Call(NamedTuple):
    """What a method gets beside its request: who calls, and the idempotency key as it came."""

    caller: Caller
    idempotency_key: str | None


class Unreadable(NamedTuple):
    """Stands in for a request that can't be read: the error to answer with, once it is known who asks."""

    error: ServiceError


Context = grpc.aio.ServicerContext[Any, Any]
Method = Callable[[Any, Call], Awaitable[Message]]
StreamMethod = Callable[[Any, Call], AsyncGenerator[Message, None]]
"""Answers with message after message; it is closed when the caller goes away or the stream has lasted long enough."""
Handler = Callable[[object, Context], Awaitable[Message]]
"""What gRPC calls with the stream of requests, which is left alone: `Context.read` reads from it too."""
StreamHandler = Callable[[object, Context], Awaitable[None]]


class Limits(NamedTuple):
    """What one server process takes. Times in seconds."""

    calls: int
    """Calls in flight."""
    default_deadline: float
    """For a call whose caller sets no deadline, and for what a stream's caller takes to send its request."""
    streams: int = 1_000
    """Streams of answers; they hold no place among the calls."""
    stream_seconds: float = 900.0
    """How long a stream lasts at most: its caller's token is looked at only when it begins."""
    streams_per_caller: int = 20
    """How many streams one caller may have, so that nobody takes the places of all."""


def decoder(message_type: type[Message], max_bytes: int) -> Callable[[bytes], Message | Unreadable]:
    """Parse a request, never raising: gRPC would answer INTERNAL to bytes that are the caller's mistake."""

    def decode(data: bytes) -> Message | Unreadable:
        if len(data) > max_bytes:
            return Unreadable(RequestTooLarge(limit=max_bytes))
        try:
            return message_type.FromString(data)
        except DecodeError:
            return Unreadable(MalformedRequest(message_type=message_type.DESCRIPTOR.name))

    return decode


class Boundary:
    """Wraps the methods of one server process, which share its limits."""

    def __init__(self, verifier: TokenVerifier, may_call: CallTable, limits: Limits) -> None:
        self._verifier = verifier
        self._may_call = may_call
        self._limits = limits
        self._timeouts: set[asyncio.Timeout] = set()
        """The deadlines of the calls in flight."""
        self._streams: set[asyncio.Timeout] = set()
        """When the streams end."""
        self._turned_away = _TurnedAway()
        self._streams_of: Counter[Caller] = Counter()
        """How many each caller has open."""
        telemetry.CALLS_IN_FLIGHT.set_function(lambda: len(self._timeouts))
        telemetry.STREAMS.set_function(lambda: len(self._streams))

    def wrap(self, call: str, method: Method) -> Handler:
        """The handler for `call`, named `Service.Method` as in the permission table."""
        seconds = telemetry.CALL_SECONDS.labels(call)

        async def handle(_requests: object, context: Context) -> Message:
            if len(self._timeouts) >= self._limits.calls:
                return await self._turned_away.refuse(call, context)
            started = time.perf_counter()
            line = _Line(call, _metadata(context))
            failure: ServiceError
            try:
                response = await self._answer(call, method, context, line)
            except asyncio.CancelledError:
                # The caller has gone; where its own deadline was the reason, that is what the log says.
                code = "DEADLINE_EXCEEDED" if _is_late(context) else "CANCELLED"
                seconds.observe(line.write(started, code))
                raise
            except ServiceError as error:
                failure = error
            except Exception as error:  # noqa: BLE001 - the one catch-all: a caller sees a generic INTERNAL
                failure = _unexpected(error, call, line.request_id)
            else:
                seconds.observe(line.write(started, "OK", response))
                return response
            seconds.observe(line.write(started, failure.code.name, failure=failure))
            return await _refuse(context, failure)

        return handle

    def wrap_stream(self, call: str, method: StreamMethod) -> StreamHandler:
        """The handler for a `call` that answers with a stream.

        It ends with OK after its longest time, and when the server stops: a caller comes again and goes on.
        """

        async def handle(_requests: object, context: Context) -> None:
            started = time.perf_counter()
            line = _Line(call, _metadata(context))
            failure: ServiceError
            try:
                await self._answer_stream(call, method, context, line)
            except asyncio.CancelledError:
                line.write(started, "DEADLINE_EXCEEDED" if _is_late(context) else "CANCELLED")
                raise
            except ServiceError as error:
                failure = error
            except Exception as error:  # noqa: BLE001 - as for any other call
                failure = _unexpected(error, call, line.request_id)
            else:
                line.write(started, "OK")
                return
            line.write(started, failure.code.name, failure=failure)
            await _refuse(context, failure)

        return handle

    async def drain(self, grace: float) -> None:
        """Return when no call is in flight; those that take longer than `grace` seconds are ended by then.

        They are answered DEADLINE_EXCEEDED, which tells their callers that a write may have taken place. Streams are
        ended at once.
        """
        now = asyncio.get_running_loop().time()
        _end_by(self._timeouts, now + grace)
        _end_by(self._streams, now)
        while self._timeouts or self._streams:  # noqa: ASYNC110 - an event would have to be kept up to date by every call
            await asyncio.sleep(DRAIN_POLL_SECONDS)

    async def _answer(self, call: str, method: Method, context: Context, line: "_Line") -> Message:
        timeout = asyncio.timeout(self._deadline(context))
        self._timeouts.add(timeout)
        try:
            async with timeout:
                known = await self._admit(call, line)
                line.request = await _read(context)
                return await method(line.request, known)
        except TimeoutError as error:
            raise DeadlineExceeded from error
        finally:
            self._timeouts.discard(timeout)

    async def _answer_stream(self, call: str, method: StreamMethod, context: Context, line: "_Line") -> None:
        if len(self._streams) >= self._limits.streams:
            telemetry.CALLS_TURNED_AWAY.inc()
            raise Overloaded
        remaining: float | None = context.time_remaining()
        longest = self._limits.stream_seconds
        end = asyncio.timeout(longest if remaining is None else min(remaining, longest))
        self._streams.add(end)
        try:
            async with end:
                known = await self._begin(call, context, line)
                with self._place_of(known.caller):
                    async with aclosing(method(line.request, known)) as messages:
                        async for message in messages:
                            await context.write(message)
        except TimeoutError:
            if not end.expired():
                raise
        finally:
            self._streams.discard(end)

    @contextmanager
    def _place_of(self, caller: Caller) -> Iterator[None]:
        if self._streams_of[caller] >= self._limits.streams_per_caller:
            raise TooManyStreams(limit=self._limits.streams_per_caller)
        self._streams_of[caller] += 1
        try:
            yield
        finally:
            self._streams_of[caller] -= 1
            if not self._streams_of[caller]:
                del self._streams_of[caller]

    async def _begin(self, call: str, context: Context, line: "_Line") -> Call:
        """Who calls; the request is read by then, which may take as long as a whole call."""
        try:
            async with asyncio.timeout(self._limits.default_deadline):
                known = await self._admit(call, line)
                line.request = await _read(context)
                return known
        except TimeoutError as error:
            raise DeadlineExceeded from error

    async def _admit(self, call: str, line: "_Line") -> Call:
        caller = await self._verifier.verify(line.metadata.get("authorization"))
        line.role = caller.role
        require_call(self._may_call, caller, call)
        return Call(caller, line.metadata.get("idempotency-key"))

    def _deadline(self, context: Context) -> float:
        remaining: float | None = context.time_remaining()
        return self._limits.default_deadline if remaining is None else min(remaining, LONGEST_DEADLINE_SECONDS)


def _end_by(timeouts: set[asyncio.Timeout], last: float) -> None:
    for timeout in [known for known in timeouts if not known.expired()]:
        timeout.reschedule(min(timeout.when() or last, last))


async def _read(context: Context) -> Message:
    """The request, which the caller may take its time to send, or not send at all: the deadline runs already."""
    request: Any = await context.read()
    if request is grpc.aio.EOF:
        raise NoRequest
    if isinstance(request, Unreadable):
        raise request.error
    return request  # type: ignore[no-any-return]


async def refuse_unknown(_request: object, context: Context) -> Message:
    """The answer to a call that the service does not have."""
    return await _refuse(context, UnknownMethod())


async def _refuse(context: Context, error: ServiceError) -> NoReturn:
    context.set_trailing_metadata(trailing_metadata(error))
    await context.abort(CODES[error.code], error.message)


def _is_late(context: Context) -> bool:
    remaining: float | None = context.time_remaining()
    return remaining is not None and remaining <= LATE_SECONDS


def _metadata(context: Context) -> dict[str, Any]:
    """The call's metadata. A name that comes twice has no one meaning: both values together are none that is valid."""
    found: dict[str, Any] = {}
    for name, value in context.invocation_metadata() or ():
        if name == "authorization" and not value:
            continue  # it says nothing; beside another one the gateway drops it too
        found[name] = f"{found[name]}\0{value!s}" if name in found else value
    return found


def _unexpected(error: Exception, call: str, request_id: str) -> UnexpectedFailure:
    _log.error("unexpected failure", method=call, request_id=request_id, exc_info=error)
    return UnexpectedFailure(request_id=request_id)


def _failure_facts(failure: ServiceError) -> dict[str, str]:
    """What an operator needs beside the code: the reason and, where another part failed, what it said."""
    cause = failure.__cause__
    return {"reason": failure.reason} | ({"cause": f"{type(cause).__name__}: {cause}"} if cause else {})


class _TurnedAway:
    """Refuses calls beyond the limit with as little work as can be: there are the more of them, the less time there is.

    They share a line in the log, one a second at most.
    """

    def __init__(self) -> None:
        self._trailer = trailing_metadata(Overloaded())
        self._untold = 0
        self._tell_from = 0.0

    async def refuse(self, call: str, context: Context) -> NoReturn:
        telemetry.CALLS_TURNED_AWAY.inc()
        telemetry.CALLS.labels(call, Overloaded.code.name).inc()
        self._untold += 1
        if (now := time.monotonic()) >= self._tell_from:
            _log.warning("calls turned away", calls=self._untold, reason=Overloaded.reason)
            self._untold, self._tell_from = 0, now + TURNED_AWAY_SECONDS
        context.set_trailing_metadata(self._trailer)
        await context.abort(CODES[Overloaded.code], Overloaded().message)


class _Line:
    """The one line that a call leaves in the log."""

    def __init__(self, call: str, metadata: dict[str, Any]) -> None:
        self.metadata = metadata
        self.role: str | None = None
        self.request: Message | None = None
        """Once it has been read."""
        self._call = call
        sent = metadata.get("x-request-id")
        known = isinstance(sent, str) and _REQUEST_ID.fullmatch(sent)
        self.request_id: str = str(sent) if known else str(uuid4())

    def write(
        self,
        started: float,
        code: str,
        response: Any = None,  # noqa: ANN401
        failure: ServiceError | None = None,
    ) -> float:
        """Log and count the call; returns the seconds that it took."""
        seconds = time.perf_counter() - started
        telemetry.CALLS.labels(self._call, code).inc()
        ticket_id = getattr(self.request, "ticket_id", "") or getattr(response, "id", "")
        ours = failure is not None and failure.code in _OURS
        (_log.warning if ours else _log.info)(
            "call",
            method=self._call,
            code=code,
            duration_ms=round(seconds * 1000, 2),
            role=self.role,
            ticket_id=ticket_id if is_uuid(ticket_id) else None,
            request_id=self.request_id,
            **(_failure_facts(failure) if failure else {}),
        )
        return seconds
