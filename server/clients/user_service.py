"""The User Service (`nibble.user.v1`): what people are called, and where their e-mail goes.

`UserDirectory` is for workers that are threads, `AsyncUserDirectory` for an event loop. What either is answered is
other people's data; what of it is believed, `server.domain.users` says.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from uuid import UUID

import grpc
from cachetools import TLRUCache
from nibble.user.v1 import user_pb2, user_service_pb2, user_service_pb2_grpc

from server import telemetry
from server.clients import channel
from server.clients.bearer import BearerFile
from server.clients.callee import Callee, Known
from server.clients.in_flight import InFlight
from server.domain.users import User, usable_email, usable_name
from server.errors import UserServiceUnavailable

KNOWN = Known(
    "the User Service", UserServiceUnavailable, telemetry.USER_SERVICE_CALLS, telemetry.USER_SERVICE_OPEN
)  # fmt: skip
BATCH = 100
CACHED_USERS = 10_000
KEPT_SECONDS = 600.0
# Somebody who has just registered, or has just given an address, does not wait as long.
KEPT_SECONDS_WITHOUT_ADDRESS = 60.0
# A hundred users have a tenth of that.
LARGEST_ANSWER = 1 << 20
_METHOD = f"/{user_service_pb2.DESCRIPTOR.services_by_name['UserService'].full_name}/BatchGetUsers"


def connect(target: str) -> grpc.Channel:
    """A channel to the User Service at `target` (host:port); it connects when it is first used, and again by itself."""
    return grpc.insecure_channel(target, channel.options(LARGEST_ANSWER))


def connect_async(target: str) -> grpc.aio.Channel:
    """The same for an AsyncUserDirectory."""
    return channel.connect(target, LARGEST_ANSWER)


class UserDirectory:
    """Looks users up, at most `BATCH` of them in a call, and remembers them for a while. Any thread may use it."""

    def __init__(
        self, channel: grpc.Channel, clock: Callable[[], float], timeout: float, token: BearerFile | None = None
    ) -> None:
        """Args: clock: monotonic seconds; timeout: the deadline of each call, in seconds; token: who is asking."""
        self._stub = user_service_pb2_grpc.UserServiceStub(channel)
        self._timeout = timeout
        self._service = Callee(KNOWN, clock, token)
        self._memory = _Memory(clock)

    def users(self, ids: Iterable[UUID]) -> dict[UUID, User]:
        """The users with these ids; one that nobody has is absent.

        Raises:
            UserServiceUnavailable: at least one of them could not be asked for; at once while the breaker is open.
        """
        wanted = dict.fromkeys(ids)
        known = self._memory.of(wanted)
        for batch in _batches([user_id for user_id in wanted if user_id not in known]):
            known |= self._memory.learn(_read(batch, self._ask(batch)))
        return {user_id: user for user_id, user in known.items() if user is not None}

    def _ask(self, ids: Sequence[UUID]) -> user_service_pb2.BatchGetUsersResponse:
        with self._service.call() as metadata:
            return self._stub.BatchGetUsers(_request(ids), timeout=self._timeout, metadata=metadata)


class AsyncUserDirectory:
    """Looks users up one by one, and remembers them for a while; who asks for one that is being asked for waits along.

    For one event loop. It keeps the channel as its own.
    """

    def __init__(
        self, channel: grpc.aio.Channel, clock: Callable[[], float], timeout: float, token: BearerFile | None = None
    ) -> None:
        """Args: clock: monotonic seconds; timeout: the deadline of each call, in seconds; token: who is asking."""
        # Bytes come back: of what is no message gRPC would write a traceback into the log, and answer None.
        self._batch_get_users: grpc.aio.UnaryUnaryMultiCallable[user_service_pb2.BatchGetUsersRequest, bytes] = (
            channel.unary_unary(_METHOD, request_serializer=user_service_pb2.BatchGetUsersRequest.SerializeToString)
        )
        self._channel = channel
        self._timeout = timeout
        self._service = Callee(KNOWN, clock, token)
        self._memory = _Memory(clock)
        self._in_flight = InFlight(self._look_up)

    async def close(self) -> None:
        """Hang up; nobody can be asked for from then on."""
        await self._channel.close()

    async def user(self, user_id: UUID) -> User | None:
        """The user with this id; None where nobody has it.

        Raises:
            UserServiceUnavailable: they could not be asked for; at once while the breaker is open or too many ask.
        """
        known = self._memory.of([user_id])
        return known[user_id] if user_id in known else await self._in_flight.answer(user_id)

    async def _look_up(self, user_id: UUID) -> User | None:
        return self._memory.learn(_read([user_id], await self._ask([user_id])))[user_id]

    async def _ask(self, ids: Sequence[UUID]) -> user_service_pb2.BatchGetUsersResponse:
        with self._service.call() as metadata:
            answer = await self._batch_get_users(_request(ids), timeout=self._timeout, metadata=metadata)
            return user_service_pb2.BatchGetUsersResponse.FromString(answer)


class _Memory:
    """Who was looked up lately, those whom nobody knows among them (None). Any thread may use it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._cache: TLRUCache[UUID, User | None] = TLRUCache(CACHED_USERS, _best_before, timer=clock)
        self._lock = threading.Lock()

    def of(self, ids: Iterable[UUID]) -> dict[UUID, User | None]:
        """Those of these ids who are remembered."""
        with self._lock:
            return {user_id: self._cache[user_id] for user_id in ids if user_id in self._cache}

    def learn(self, found: dict[UUID, User | None]) -> dict[UUID, User | None]:
        """Remembers them, and gives them back."""
        with self._lock:
            self._cache.update(found)
        return found


def _best_before(_user_id: UUID, user: User | None, now: float) -> float:
    return now + (KEPT_SECONDS if user and user.email else KEPT_SECONDS_WITHOUT_ADDRESS)


def _batches(ids: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    return (ids[start : start + BATCH] for start in range(0, len(ids), BATCH))


def _request(ids: Sequence[UUID]) -> user_service_pb2.BatchGetUsersRequest:
    return user_service_pb2.BatchGetUsersRequest(user_ids=map(str, ids))


def _read(ids: Sequence[UUID], answer: user_service_pb2.BatchGetUsersResponse) -> dict[UUID, User | None]:
    """Each of those who were asked for; None for one who does not exist."""
    found: dict[UUID, User | None] = dict.fromkeys(ids)
    for user in map(_user, answer.users):
        # Whoever was not asked for is nobody's business, and of two with one id the first counts.
        if user is not None and found.get(user.id, user) is None:
            found[user.id] = user
    return found


def _user(user: user_pb2.User) -> User | None:
    try:
        return User(UUID(user.id), usable_name(user.name), usable_email(user.email))
    except ValueError:
        return None
