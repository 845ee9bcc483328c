"""Which processors processes run on."""

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress

import psutil

from devstack.stack import Stack


def processes(stack: Stack, part: str) -> list[int]:
    """A part's process and all that it has started."""
    main = psutil.Process(stack.part(part).pid)
    return [process.pid for process in (main, *main.children(recursive=True))]


def pin(pids: Iterable[int], cores: Collection[int]) -> None:
    """Every thread: one that runs already does not follow its process. Processes that have ended are passed over."""
    for pid in pids:
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            for thread in psutil.Process(pid).threads():
                os.sched_setaffinity(thread.id, cores)


def keep_apart(first: Iterable[int], others: Iterable[int]) -> bool:
    """Give the first processes one core and the others the rest; False where there is only one."""
    one, *rest = sorted(os.sched_getaffinity(0))
    if rest:
        pin(first, {one})
        pin(others, set(rest))
    return bool(rest)


@contextmanager
def back_to_all() -> Iterator[None]:
    """Gives this process back, when the block is left, what processors it has now; what it starts has the same."""
    mine = os.sched_getaffinity(0)
    try:
        yield
    finally:
        pin([os.getpid()], mine)
