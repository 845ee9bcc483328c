"""An event loop whose time is nobody's but the test's: where it would wait, it is later at once."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

R = TypeVar("R")


class _Impatient(selectors.DefaultSelector):
    """Lets time pass by instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What there is without waiting; where that is nothing, the time that was to be waited has passed."""
        found = super().select(0)
        if not found:
            assert timeout is not None, "everybody waits, and for nothing that will ever come"
            self.passed += max(0.0, timeout)
        return found


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._hands = _Impatient()
        super().__init__(self._hands)

    def time(self) -> float:
        return self._hands.passed


def played(scene: Coroutine[Any, Any, R]) -> R:
    """The result of the scene in a new loop, which begins at 0 seconds and takes none."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(scene)


def seconds() -> float:
    """How much time has passed in the loop that is running."""
    return asyncio.get_running_loop().time()
