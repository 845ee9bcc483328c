"""What the stand-ins for other teams' gRPC services have in common: one call, and the orders that make it misbehave.

The orders that each of them takes (see Control):

- `behaviour`: `well`; `slow`, which answers after `seconds` (default 30); `failing`, which answers `code` (default
  INTERNAL); `gone`, which listens no more; `malformed`, which answers bytes that are no message; `malicious`, which
  answers what the stand-in says of itself.
- `token`: the token that callers must show; without it none is looked at.
"""

import asyncio
import signal
from contextlib import suppress
from typing import Any, ClassVar, Generic, TypeVar
from uuid import UUID

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from devstack.control import LOOK_SECONDS, Control, Orders
from devstack.errors import StackError

SLOW_SECONDS = 30.0

Request = TypeVar("Request", bound=Message)
Context = Any
"""A grpc.aio.ServicerContext."""


class GrpcStandIn(Generic[Request]):
    """Answers one method of a service to whoever asks; what it answers, a class for each service says."""

    service: ClassVar[ServiceDescriptor]
    method: ClassVar[str]
    request_type: type[Request]

    def __init__(self, control: Control) -> None:
        self._control = control

    def objection(self, request: Request) -> str | None:
        """What makes the request INVALID_ARGUMENT, or None."""
        raise NotImplementedError

    def answer(self, request: Request, orders: Orders) -> Message | None:
        """What it answers while it behaves well; None for NOT_FOUND."""
        raise NotImplementedError

    def malice(self, request: Request, orders: Orders) -> bytes:
        """What it answers while it is malicious."""
        raise NotImplementedError

    async def serve(self, host: str, port: int) -> None:
        """Listens, whenever it is not told to be gone, until SIGTERM or SIGINT."""
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        server: grpc.aio.Server | None = None
        while not stopped.is_set():
            gone = self._control.orders().get("behaviour") == "gone"
            if gone and server is not None:
                await server.stop(grace=None)
                server = None
            if not gone and server is None:
                server = await self._listening(host, port)
            with suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), LOOK_SECONDS)
        if server is not None:
            await server.stop(grace=None)

    async def _listening(self, host: str, port: int) -> grpc.aio.Server:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        handlers = {self.method: self._handler()}
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(self.service.full_name, handlers)])
        serving = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(serving, server)
        await serving.set("", health_pb2.HealthCheckResponse.SERVING)
        try:
            server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise StackError(f"can't listen on {host}:{port}: {error}") from error
        await server.start()
        return server

    def _handler(self) -> Any:  # noqa: ANN401 - the stubs have no type for it
        # Bytes go out, so that they can be others than a message's.
        return grpc.unary_unary_rpc_method_handler(self._respond, request_deserializer=self.request_type.FromString)

    async def _respond(self, request: Request, context: Context) -> bytes:
        orders = self._control.orders()
        await _refuse_strangers(context, orders)
        if objection := self.objection(request):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, objection)
        match orders.get("behaviour", "well"):
            case "slow":
                await asyncio.sleep(orders.get("seconds", SLOW_SECONDS))
            case "failing":
                await context.abort(grpc.StatusCode[orders.get("code", "INTERNAL")], "told to fail")
            case "malformed":
                return b"\xff\xff\xff"
            case "malicious":
                return self.malice(request, orders)
        answer = self.answer(request, orders)
        if answer is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is none")
            raise AssertionError
        return answer.SerializeToString()


def is_uuid(text: str) -> bool:
    """Whether the text is a UUID, in whatever spelling."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True


async def _refuse_strangers(context: Context, orders: Orders) -> None:
    shown = dict(context.invocation_metadata() or ()).get("authorization")
    if "token" in orders and shown != f"Bearer {orders['token']}":
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is not the one that was ordered")
