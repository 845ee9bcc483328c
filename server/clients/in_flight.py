"""Questions that are out: whoever asks for the same meanwhile waits for the same answer."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
R = TypeVar("R")


class InFlight(Generic[K, R]):
    """Asks once for each key at a time. For one event loop.

    Who goes away leaves the others waiting; with the last of them the question is given up.
    """

    def __init__(self, ask: Callable[[K], Coroutine[Any, Any, R]]) -> None:
        self._ask = ask
        self._flights: dict[K, _Flight[R]] = {}

    async def answer(self, key: K) -> R:
        """What `ask` answers, or raises, to all who wait for it."""
        flight = self._flights.get(key) or self._begin(key)
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting:
                del self._flights[key]
                flight.task.cancel()

    def _begin(self, key: K) -> "_Flight[R]":
        flight = self._flights[key] = _Flight(asyncio.create_task(self._ask(key)))
        return flight


@dataclass
class _Flight(Generic[R]):
    task: asyncio.Task[R]
    waiting: int = 0
