"""Who calls: the six roles, and the caller that a verified token names (contract, section 1)."""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from server.errors import RoleNotAllowed


class Role(StrEnum):
    """The roles that a token may carry."""

    CUSTOMER = "customer"
    RESTAURANT = "restaurant"
    DRIVER = "driver"
    SUPPORT_AGENT = "support_agent"
    SUPPORT_SUPERVISOR = "support_supervisor"
    SERVICE = "service"


USERS = frozenset({Role.CUSTOMER, Role.RESTAURANT, Role.DRIVER})
STAFF = frozenset({Role.SUPPORT_AGENT, Role.SUPPORT_SUPERVISOR})
EVERYONE = frozenset(Role)


class Caller(NamedTuple):
    """An authenticated caller: the token's `sub` and `role`."""

    id: UUID
    role: Role

    @property
    def is_user(self) -> bool:
        """A customer, a restaurant or a driver."""
        return self.role in USERS

    @property
    def is_staff(self) -> bool:
        """A support agent or a supervisor."""
        return self.role in STAFF


ITSELF = Caller(UUID(int=0), Role.SERVICE)
"""The service where it acts on its own, with nobody calling (actor.proto)."""

CallTable = Mapping[str, frozenset[Role]]
"""Which roles may make a call, by `Service.Method`; a call that is not there may be made by nobody."""


def require_call(may_call: CallTable, caller: Caller, call: str) -> None:
    """Let the caller's role make the call, or refuse it before anything else is looked at.

    Raises:
        RoleNotAllowed: the table has no such pair.
    """
    if caller.role not in may_call.get(call, ()):
        raise RoleNotAllowed(role=caller.role, call=call)
