"""Stands in for the User Service on a development machine: a gRPC server that knows everybody.

Somebody's name and address come from the last 12 digits of their id: 01920000-0000-7000-8000-0000000012ab is called
"User 12ab" and gets mail at user-0000000012ab@nibble.example. The orders it takes beside those in grpc_stand_in.py:

- `behaviour: malicious` answers with names and addresses that would break into a mail, and with users whom nobody asked
  for.
- `users`: by id what is told of somebody instead, `name` and `email` (null: none), or null when nobody has that id.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from nibble.user.v1 import user_pb2, user_service_pb2

from devstack.control import Control, Orders
from devstack.grpc_stand_in import GrpcStandIn, is_uuid

NAME = "user-service"
MOST_IDS = 100


class InsecureDevelopmentUserService(GrpcStandIn[user_service_pb2.BatchGetUsersRequest]):
    """Tells everything about anybody to whoever asks: never for production."""

    service = user_service_pb2.DESCRIPTOR.services_by_name["UserService"]
    method = "BatchGetUsers"
    request_type = user_service_pb2.BatchGetUsersRequest

    def objection(self, request: user_service_pb2.BatchGetUsersRequest) -> str | None:
        """Too few ids, too many, or one that is none."""
        if not 1 <= len(request.user_ids) <= MOST_IDS:
            return f"user_ids: 1 to {MOST_IDS} are expected"
        return None if all(map(is_uuid, request.user_ids)) else "user_ids: UUIDs are expected"

    def answer(
        self, request: user_service_pb2.BatchGetUsersRequest, orders: Orders
    ) -> user_service_pb2.BatchGetUsersResponse:
        """Who was asked for, but for those whom nobody is ordered to know."""
        told: Mapping[str, Any] = orders.get("users", {})
        return _answer([user for user_id in request.user_ids if (user := _user(user_id, told)) is not None])

    def malice(self, request: user_service_pb2.BatchGetUsersRequest, orders: Orders) -> bytes:
        """Whatever `orders` hold besides."""
        return _answer([user for user_id in request.user_ids for user in _malicious(user_id)]).SerializeToString()


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


def _answer(users: list[user_pb2.User]) -> user_service_pb2.BatchGetUsersResponse:
    return user_service_pb2.BatchGetUsersResponse(users=users)


def _tail(user_id: str) -> str:
    return user_id.lower().rpartition("-")[2]
