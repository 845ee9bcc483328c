"""Another service as its callers here know it: whether it is worth a call, and how the last ones ended."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import grpc
import structlog
from google.protobuf.message import DecodeError
from prometheus_client import Counter, Gauge

from server.clients.bearer import BearerFile, UnusableToken
from server.clients.breaker import CircuitBreaker
from server.errors import DependencyUnavailable

_log = structlog.stdlib.get_logger("nibble.clients")

MOST_AT_ONCE = 32
"""Calls of one process to one service. More would only wait for it together; who comes then gets no answer, at once."""

Metadata = tuple[tuple[str, str], ...]


class UnusableAnswer(Exception):
    """What was answered is not what was asked for; the message says why, and quotes nothing of it."""


class Known(NamedTuple):
    """What a service is called in the log, how its failing is told to callers, and where its calls are counted."""

    name: str
    unavailable: type[DependencyUnavailable]
    calls: Counter
    breaker_open: Gauge


class Callee:
    """Keeps the circuit breaker, the token and the count of the calls to one service, and says once when it fails.

    Any thread and any task may use it; it never waits.
    """

    def __init__(self, known: Known, clock: Callable[[], float], token: BearerFile | None = None) -> None:
        """Args: clock: monotonic seconds; token: who is asking."""
        self._known = known
        self._token = token
        self._breaker = CircuitBreaker(clock)
        self._places = threading.BoundedSemaphore(MOST_AT_ONCE)
        self._trouble = ""
        known.breaker_open.set(0)

    def room(self, most: int) -> int:
        """How many of `most` questions are worth asking just now.

        One, as a trial, of a service that is taken to be down, and none while it is left alone.
        """
        if self._breaker.rests:
            return 0
        return min(most, 1) if self._breaker.is_open else most

    @contextmanager
    def call(self) -> Iterator[Metadata]:
        """Around one call, with what goes along with it: notes how the call ends, and gives its failures one name.

        A caller that gives its call up says nothing of the service.

        Raises:
            DependencyUnavailable: the service's own kind of it. Nothing was called, since too many calls are out or the
                breaker is open; or what is inside raised gRPC's error or UnusableAnswer.
        """
        if not self._places.acquire(blocking=False):
            raise self._refused("TOO_MANY")
        try:
            if not self._breaker.admits():
                raise self._refused("BREAKER_OPEN")
            with self._noted():
                yield self._token.metadata() if self._token else ()
        finally:
            self._places.release()

    def _refused(self, outcome: str) -> DependencyUnavailable:
        self._known.calls.labels(outcome).inc()
        return self._known.unavailable()

    @contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except asyncio.CancelledError:
            self._known.calls.labels("GIVEN_UP").inc()
            raise
        # gRPC says ValueError or UsageError when the channel has been closed, as it is when the process ends.
        except (grpc.RpcError, UnusableAnswer, DecodeError, UnusableToken, ValueError, grpc.aio.UsageError) as error:
            self._failed(_outcome(error))
            raise self._known.unavailable from error
        self._succeeded()

    def _failed(self, outcome: str) -> None:
        self._breaker.failed()
        self._known.calls.labels(outcome).inc()
        self._known.breaker_open.set(self._breaker.is_open)
        # Once for all calls that fail alike.
        if outcome != self._trouble:
            _log.warning(f"{self._known.name} does not answer as it should", outcome=outcome)
        self._trouble = outcome

    def _succeeded(self) -> None:
        self._breaker.succeeded()
        self._known.calls.labels("OK").inc()
        self._known.breaker_open.set(0)
        if self._trouble:
            _log.info(f"{self._known.name} answers again")
        self._trouble = ""


def _outcome(error: Exception) -> str:
    """The name of the gRPC code, or what kept the call from being made or its answer from being used."""
    if isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return str(error.code().name)
    if isinstance(error, UnusableToken):
        return "NO_TOKEN"
    return "UNUSABLE_ANSWER" if isinstance(error, UnusableAnswer | DecodeError) else "NOT_SENT"
