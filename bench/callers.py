"""The callers: a process of their own that makes calls when it is told to, `python -m bench.callers IDENTITY CALLERS`.

It reads an order a line, as JSON, and answers each with a line: the milliseconds that each call took, or what went
wrong. Every caller asks again as soon as it has its answer, and looks at each answer.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import grpc
import uvloop
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from bench.data_set import data_set
from bench.kinds import METHODS, Ask, Kind, Share, requests
from bench.rest import Connection, http_request
from devstack.identity import InsecureDevelopmentIdentity

SEED = 7
CONNECTIONS = 4
"""Of gRPC to each server, which the callers share."""

Metadata = tuple[tuple[str, str], ...]
Make = Callable[[Kind, Ask], Awaitable[Any]]


class WrongAnswer(Exception):
    """A call was answered, and not with what it asked for."""


class Order(NamedTuple):
    """Make calls of one kind, or MIXED, for some seconds, over gRPC or REST, at these targets (HOST:PORT)."""

    door: str
    targets: Sequence[str]
    kind: str
    seconds: float


class Callers:
    """Callers with their requests ready; between two orders each stays where it is in its list."""

    def __init__(self, identity: InsecureDevelopmentIdentity, count: int) -> None:
        self._count = count
        self._data = data_set()
        self._asks: dict[tuple[str, int], Iterator[tuple[Kind, Ask]]] = {}
        self._channels: dict[tuple[str, int], grpc.aio.Channel] = {}
        self._connections: dict[tuple[str, int], Connection] = {}
        self._written: dict[int, bytes] = {}
        """HTTP requests by the identity of what they ask; callers keep the latter."""

        @cache
        def token(role: str, caller: UUID) -> str:
            return identity.mint_token(role, str(caller))

        @cache
        def metadata(role: str, caller: UUID) -> Metadata:
            return (("authorization", f"Bearer {token(role, caller)}"),)

        self._token, self._metadata = token, metadata

    async def carry_out(self, order: Order) -> dict[str, Any]:
        """The milliseconds of each call, and the seconds from the first to the last of them.

        Raises:
            WrongAnswer, grpc.aio.AioRpcError, OSError: a call failed.
        """
        asks = [self._asks_of(order.kind, number) for number in range(self._count)]
        makes = [await self._door(order, number) for number in range(self._count)]
        began = time.perf_counter()
        work = zip(asks, makes, strict=True)
        of_each = await asyncio.gather(*(_call(*each, began + order.seconds) for each in work))
        elapsed = time.perf_counter() - began
        return {"elapsed": elapsed, "milliseconds": [took for calls in of_each for took in calls]}

    def _asks_of(self, kind: str, number: int) -> Iterator[tuple[Kind, Ask]]:
        if (kind, number) not in self._asks:
            dice = random.Random(f"{SEED} {kind} {number}")  # noqa: S311 - nothing secret
            self._asks[kind, number] = requests(kind, Share(self._data, dice, number, self._count))
        return self._asks[kind, number]

    async def _door(self, order: Order, number: int) -> Make:
        target = order.targets[number % len(order.targets)]
        if order.door == "rest":
            return self._rest(await self._connection(target, number))
        return self._grpc(self._channel(target, number // len(order.targets) % CONNECTIONS))

    def _channel(self, target: str, number: int) -> grpc.aio.Channel:
        if (target, number) not in self._channels:
            # A proxy from the environment has no business on loopback; else all channels would share one connection.
            options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
            self._channels[target, number] = grpc.aio.insecure_channel(target, options=options)
        return self._channels[target, number]

    async def _connection(self, target: str, number: int) -> Connection:
        if (target, number) not in self._connections:
            self._connections[target, number] = await Connection.open(target)
        return self._connections[target, number]

    def _grpc(self, channel: grpc.aio.Channel) -> Make:
        stub = {method.full_name: _callable(channel, method) for method in METHODS}

        async def make(kind: Kind, ask: Ask) -> Any:  # noqa: ANN401 - the answer of any call
            return await stub[kind.method.full_name](ask.request, metadata=self._metadata(ask.role, ask.caller))

        return make

    def _rest(self, connection: Connection) -> Make:
        async def make(kind: Kind, ask: Ask) -> Any:  # noqa: ANN401
            if id(ask) not in self._written:
                token = self._token(ask.role, ask.caller)
                self._written[id(ask)] = http_request(kind.method, ask.request, token)
            return await connection.answer_to(self._written[id(ask)])

        return make


def _callable(channel: grpc.aio.Channel, method: MethodDescriptor) -> Any:  # noqa: ANN401 - of any request and answer
    return channel.unary_unary(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=GetMessageClass(method.input_type).SerializeToString,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )


async def _call(asks: Iterator[tuple[Kind, Ask]], make: Make, until: float) -> list[float]:
    """The milliseconds of each call of one caller."""
    took: list[float] = []
    while (began := time.perf_counter()) < until:
        kind, ask = next(asks)
        answer = await make(kind, ask)
        took.append((time.perf_counter() - began) * 1000)
        if not kind.is_answered(ask.request, answer):
            raise WrongAnswer(f"{kind.name}: {ask.request} was answered {answer}")
    return took


async def _serve(identity: Path, count: int) -> None:
    callers = Callers(InsecureDevelopmentIdentity(identity), count)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            answer = await callers.carry_out(Order(**json.loads(line)))
        except (WrongAnswer, grpc.aio.AioRpcError, OSError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:2_000]}
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(_serve(Path(sys.argv[1]), int(sys.argv[2])))
