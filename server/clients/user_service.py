"""The User Service (`nibble.user.v1`): what people are called, and where their e-mail goes.

Synchronous, for workers that are threads. What it answers is other people's data: a name or an address that can't be
used as it stands counts as none, so that nothing in it reaches a mail's headers or the SMTP dialogue.
"""

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple
from uuid import UUID

import grpc
import structlog
from cachetools import TLRUCache
from nibble.user.v1 import user_pb2, user_service_pb2, user_service_pb2_grpc

from server import telemetry
from server.clients.bearer import BearerFile, UnusableToken
from server.clients.breaker import CircuitBreaker
from server.errors import UserServiceUnavailable

_log = structlog.stdlib.get_logger("nibble.user_service")

BATCH = 100
CACHED_USERS = 10_000
KEPT_SECONDS = 600.0
# Somebody who has just registered, or has just given an address, does not wait as long.
KEPT_SECONDS_WITHOUT_ADDRESS = 60.0
LONGEST_NAME = 200
LONGEST_EMAIL = 254
# C0 and C1, line separators, and what turns the direction of the text around it.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
# HTML's notion of an address: no quotes, comments, blanks or brackets. ASCII alone: not every server speaks SMTPUTF8.
_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = re.compile(rf"[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@{_LABEL}(?:\.{_LABEL})*")

_OPTIONS: list[tuple[str, int | str]] = [
    # A proxy from the environment has no business on the way to it.
    ("grpc.enable_http_proxy", 0),
    # Its usual patience would leave the service alone for two minutes after it has come back.
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # A host that is gone without a word is given up after 5 seconds, not when TCP gives up, a quarter of an hour later.
    # No call lasts long enough for the ping itself, which servers may take for abuse.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # A hundred users have a tenth of that.
    ("grpc.max_receive_message_length", 1 << 20),
]


class User(NamedTuple):
    """Somebody whom the User Service knows; None for a name or an address that it did not tell, or no usable one."""

    id: UUID
    name: str | None
    email: str | None


def connect(target: str) -> grpc.Channel:
    """A channel to the User Service at `target` (host:port); it connects when it is first used, and again by itself."""
    return grpc.insecure_channel(target, _OPTIONS)


class UserDirectory:
    """Looks users up, at most `BATCH` of them in a call, and remembers them for a while. Any thread may use it."""

    def __init__(
        self, channel: grpc.Channel, clock: Callable[[], float], timeout: float, token: BearerFile | None = None
    ) -> None:
        """Args: clock: monotonic seconds; timeout: the deadline of each call, in seconds; token: who is asking."""
        self._stub = user_service_pb2_grpc.UserServiceStub(channel)
        self._timeout = timeout
        self._token = token
        self._breaker = CircuitBreaker(clock)
        self._cache: TLRUCache[UUID, User | None] = TLRUCache(CACHED_USERS, _best_before, timer=clock)
        self._cache_lock = threading.Lock()
        self._trouble = ""
        telemetry.USER_SERVICE_OPEN.set(0)

    def users(self, ids: Iterable[UUID]) -> dict[UUID, User]:
        """The users with these ids; one that nobody has is absent.

        Raises:
            UserServiceUnavailable: at least one of them could not be asked for; at once while the breaker is open.
        """
        wanted = dict.fromkeys(ids)
        known = self._remembered(wanted)
        for batch in _batches([user_id for user_id in wanted if user_id not in known]):
            known |= self._looked_up(batch)
        return {user_id: user for user_id, user in known.items() if user is not None}

    def _remembered(self, ids: Iterable[UUID]) -> dict[UUID, User | None]:
        with self._cache_lock:
            return {user_id: self._cache[user_id] for user_id in ids if user_id in self._cache}

    def _looked_up(self, ids: Sequence[UUID]) -> dict[UUID, User | None]:
        found: dict[UUID, User | None] = dict.fromkeys(ids)
        for user in map(_read, self._ask(ids).users):
            # Whoever was not asked for is nobody's business, and of two with one id the first counts.
            if user is not None and found.get(user.id, user) is None:
                found[user.id] = user
        with self._cache_lock:
            self._cache.update(found)
        return found

    def _ask(self, ids: Sequence[UUID]) -> user_service_pb2.BatchGetUsersResponse:
        if not self._breaker.admits():
            telemetry.USER_SERVICE_CALLS.labels("BREAKER_OPEN").inc()
            raise UserServiceUnavailable
        request = user_service_pb2.BatchGetUsersRequest(user_ids=map(str, ids))
        try:
            metadata = self._token.metadata() if self._token else ()
            answer = self._stub.BatchGetUsers(request, timeout=self._timeout, metadata=metadata)
        except (grpc.RpcError, UnusableToken, ValueError) as error:
            self._failed(error)
            raise UserServiceUnavailable from error
        self._succeeded()
        return answer

    def _failed(self, error: Exception) -> None:
        self._breaker.failed()
        outcome = _outcome(error)
        telemetry.USER_SERVICE_CALLS.labels(outcome).inc()
        telemetry.USER_SERVICE_OPEN.set(self._breaker.is_open)
        # Once for all calls that fail alike.
        if outcome != self._trouble:
            _log.warning("the User Service does not answer as it should", outcome=outcome)
        self._trouble = outcome

    def _succeeded(self) -> None:
        self._breaker.succeeded()
        telemetry.USER_SERVICE_CALLS.labels("OK").inc()
        telemetry.USER_SERVICE_OPEN.set(0)
        if self._trouble:
            _log.info("the User Service answers again")
        self._trouble = ""


def _batches(ids: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    return (ids[start : start + BATCH] for start in range(0, len(ids), BATCH))


def _best_before(_user_id: UUID, user: User | None, now: float) -> float:
    return now + (KEPT_SECONDS if user and user.email else KEPT_SECONDS_WITHOUT_ADDRESS)


def _outcome(error: Exception) -> str:
    """The name of the gRPC code, or what kept the call from being made."""
    if isinstance(error, grpc.Call):
        return str(error.code().name)
    # gRPC says ValueError when the channel has been closed, as it is when the process ends.
    return "NO_TOKEN" if isinstance(error, UnusableToken) else "NOT_SENT"


def _read(user: user_pb2.User) -> User | None:
    try:
        return User(UUID(user.id), _usable_name(user.name), _usable_email(user.email))
    except ValueError:
        return None


def _usable_name(name: str) -> str | None:
    trimmed = name.strip()
    return trimmed if 0 < len(trimmed) <= LONGEST_NAME and not _CONTROL.search(trimmed) else None


def _usable_email(email: str) -> str | None:
    # RFC 2047's encoded words look like that; what reads headers would put something else in their place.
    return email if len(email) <= LONGEST_EMAIL and _EMAIL.fullmatch(email) and "=?" not in email else None
