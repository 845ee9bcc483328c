"""Stands in for the User Service on a development machine: a gRPC server that knows everybody.

Somebody's name and address come from the last 12 digits of their id: 01920000-0000-7000-8000-0000000012ab is called
"User 12ab" and gets mail at user-0000000012ab@nibble.example. The orders it takes (see Control):

- `behaviour`: `well`; `slow`, which answers after `seconds` (default 30); `failing`, which answers `code` (default
  INTERNAL); `gone`, which listens no more; `malformed`, which answers bytes that are no message; `malicious`, which
  answers with names and addresses that would break into a mail, and with users whom nobody asked for.
- `users`: by id what is told of somebody instead, `name` and `email` (null: none), or null when nobody has that id.
- `token`: the token that callers must show; without it none is looked at.
"""

import asyncio
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from nibble.user.v1 import user_pb2, user_service_pb2

from devstack.control import LOOK_SECONDS, Control, Orders
from devstack.errors import StackError

NAME = "user-service"
MOST_IDS = 100
SLOW_SECONDS = 30.0

METHOD = "BatchGetUsers"
SERVICE = user_service_pb2.DESCRIPTOR.services_by_name["UserService"].full_name


class InsecureDevelopmentUserService:
    """Tells everything about anybody to whoever asks: never for production."""

    def __init__(self, control: Control) -> None:
        self._control = control

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
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, {METHOD: self._handler()})])
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
        return grpc.unary_unary_rpc_method_handler(
            self._batch_get_users, request_deserializer=user_service_pb2.BatchGetUsersRequest.FromString
        )

    async def _batch_get_users(
        self, request: user_service_pb2.BatchGetUsersRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> bytes:
        orders = self._control.orders()
        await _refuse_strangers(context, orders)
        await _refuse_bad_requests(context, request.user_ids)
        match orders.get("behaviour", "well"):
            case "slow":
                await asyncio.sleep(orders.get("seconds", SLOW_SECONDS))
            case "failing":
                await context.abort(grpc.StatusCode[orders.get("code", "INTERNAL")], "told to fail")
            case "malformed":
                return b"\xff\xff\xff"
            case "malicious":
                return _answer([user for user_id in request.user_ids for user in _malicious(user_id)])
        told: Mapping[str, Any] = orders.get("users", {})
        return _answer([user for user_id in request.user_ids if (user := _user(user_id, told)) is not None])


def address_of(user_id: UUID | str) -> str:
    """Where somebody gets their mail, unless the orders say otherwise."""
    return f"user-{_tail(str(user_id))}@nibble.example"


def name_of(user_id: UUID | str) -> str:
    """What somebody is called, unless the orders say otherwise."""
    return f"User {_tail(str(user_id))[-4:]}"


async def run(run_dir: Path, host: str, port: int) -> None:
    """Serves with the orders in that folder until SIGTERM or SIGINT."""
    print("warning: an InsecureDevelopmentUserService answers here: it knows everybody, and nobody", flush=True)
    await InsecureDevelopmentUserService(Control(run_dir, NAME)).serve(host, port)


async def _refuse_strangers(context: "grpc.aio.ServicerContext[Any, Any]", orders: Orders) -> None:
    shown = dict(context.invocation_metadata() or ()).get("authorization")
    if "token" in orders and shown != f"Bearer {orders['token']}":
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is not the one that was ordered")


async def _refuse_bad_requests(context: "grpc.aio.ServicerContext[Any, Any]", ids: Any) -> None:  # noqa: ANN401
    if not 1 <= len(ids) <= MOST_IDS:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"user_ids: 1 to {MOST_IDS} are expected")
    try:
        for user_id in ids:
            UUID(user_id)
    except ValueError:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "user_ids: UUIDs are expected")


def _user(user_id: str, told: Mapping[str, Any]) -> user_pb2.User | None:
    usual = {"name": name_of(user_id), "email": address_of(user_id)}
    instead = told.get(user_id, {})
    return None if instead is None else user_pb2.User(id=user_id, **{**usual, **instead})


def _malicious(user_id: str) -> list[user_pb2.User]:
    evil = "eve@elsewhere.example"
    return [
        user_pb2.User(id=user_id, name=f"Eve\r\nBcc: {evil}", email=f"{address_of(user_id)}\r\nBcc: {evil}"),
        user_pb2.User(id=user_id, name="x" * 10_000, email=f"{'x' * 10_000}@elsewhere.example"),
        user_pb2.User(id=str(uuid4()), name="Eve", email=evil),
        user_pb2.User(id="../../etc/passwd", name="\x1b[2J", email=evil),
    ]


def _answer(users: list[user_pb2.User]) -> bytes:
    return user_service_pb2.BatchGetUsersResponse(users=users).SerializeToString()


def _tail(user_id: str) -> str:
    return user_id.lower().rpartition("-")[2]
