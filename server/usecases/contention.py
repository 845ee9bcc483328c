"""Writing without holding a lock: decide on the row as read, write under its version, read again where overtaken."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from server.errors import Contention

R = TypeVar("R")

MAX_ATTEMPTS = 60
SHORTEST_PAUSE = 0.001
LONGEST_PAUSE = 0.1


async def settle(attempt: Callable[[], Awaitable[R | None]]) -> R:
    """The result of the first attempt that was not overtaken; None from `attempt` means that it was.

    At every round somebody's write succeeds, so a caller waits for at most those who write at the same time; the short
    random pauses, in seconds, keep them from meeting again.

    Raises:
        Contention: every attempt was overtaken.
    """
    for number in range(MAX_ATTEMPTS):
        result = await attempt()
        if result is not None:
            return result
        await asyncio.sleep(random.uniform(0, min(LONGEST_PAUSE, SHORTEST_PAUSE * 2**number)))  # noqa: S311
    raise Contention
