"""The words in which the tests speak: who calls, opening a ticket, waiting for something to come true."""

import itertools
import random
import time
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from tests.system.doors import Caller, Door, Json

T = TypeVar("T")

POLL_SECONDS, LONGEST_POLL_SECONDS = 0.02, 0.1


def eventually(condition: Callable[[], T | None], within: float = 10.0) -> T:
    """The first result of `condition` that is true; AssertionError when there is none `within` so many seconds."""
    deadline, pause = time.monotonic() + within, POLL_SECONDS
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, f"not within {within} s; last: {result!r}"
        time.sleep(pause)
        # Looking costs processor time too, most often a new connection, and what is waited for needs it.
        pause = min(pause * 1.2, LONGEST_POLL_SECONDS)


def dice(name: str) -> random.Random:
    """Chance that can be repeated: the seed is printed, and shown with a failure."""
    seed = random.randrange(2**32)  # noqa: S311
    print(f"{name}: seed {seed}")  # noqa: T201
    return random.Random(seed)  # noqa: S311


def new_id() -> str:
    """A UUID that nobody has."""
    return str(uuid.uuid4())


def as_customer() -> Caller:
    """A customer who never called before."""
    return Caller("customer", new_id())


def as_agent() -> Caller:
    """An agent who never called before."""
    return Caller("support_agent", new_id())


_TEAM = itertools.cycle([as_agent() for _ in range(8)])


def some_agent() -> Caller:
    """One of few agents, for what is done again and again and may be done by any.

    Every one of the staff is told of each new ticket: hundreds who came for one call each kept the notifier at work
    long after a test, and the tests after it waiting. Each is within the gateway's rate limit as long as all together
    make fewer calls than 800 a second.
    """
    return next(_TEAM)


def as_supervisor() -> Caller:
    """A supervisor who never called before."""
    return Caller("support_supervisor", new_id())


def as_service() -> Caller:
    """Another service of Nibble's."""
    return Caller("service", new_id())


def open_ticket(door: Door, owner: Caller, *, key: str | None = None, **fields: Json) -> dict[str, Any]:
    """A new ticket of `owner`."""
    text = {"subject": "Cold soup", "description": "It was hot when it left."}
    return door.call("CreateTicket", owner, key=key, **{**text, **fields}).resource


def assign(door: Door, caller: Caller, ticket: dict[str, Any], to: Caller | None = None) -> dict[str, Any]:
    """The ticket, given to somebody or else taken over by the caller."""
    return door.call("AssignTicket", caller, ticket_id=ticket["id"], assigned_to=(to or caller).id).resource


def move(door: Door, caller: Caller, ticket: dict[str, Any], status: str, **fields: Json) -> dict[str, Any]:
    """The ticket in another status."""
    return door.call("UpdateTicketStatus", caller, ticket_id=ticket["id"], status=status, **fields).resource


def comment(door: Door, caller: Caller, ticket: dict[str, Any], **fields: Json) -> dict[str, Any]:
    """A new comment on the ticket, public unless the fields say otherwise."""
    return door.call("AddComment", caller, ticket_id=ticket["id"], **{"comment": "Any news?", **fields}).resource


def rate(door: Door, owner: Caller, ticket: dict[str, Any], **fields: Json) -> dict[str, Any]:
    """What the owner thinks of the ticket's resolution: all is well, unless the fields say otherwise."""
    return door.call("RateTicket", owner, ticket_id=ticket["id"], **{"rating": 5, **fields}).resource
