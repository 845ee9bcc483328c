"""How much processor time processes have used, in seconds, and which processes those are."""

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

import psutil

Clock = Callable[[], float]
"""Processor seconds used so far; of two readings the difference counts."""

_SCHEDULER = 2


def of_process(pid: int) -> float:
    """Of one process that runs: all its threads, those that have ended too.

    The kernel's own clock of the process, in nanoseconds; the times in /proc go in steps of ten milliseconds.

    Raises:
        OSError: there is no such process.
    """
    return time.clock_gettime(~pid << 3 | _SCHEDULER)


def of_tree(pid: int, apart_from: Callable[[], Iterable[int]] = tuple) -> Clock:
    """The clock of a process and all that it has started, whether that still runs or not.

    Args:
        apart_from: processes of the tree that are not to count; they must outlive what is measured.
    """

    def seconds() -> float:
        main = psutil.Process(pid)
        times = main.cpu_times()
        # Of those that have ended and been waited for.
        used = times.children_user + times.children_system
        others = set(apart_from())
        for each in (pid, *(child.pid for child in main.children(recursive=True))):
            with suppress(OSError):
                used += 0 if each in others else of_process(each)
        return used

    return seconds


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0))


def of_machine() -> float:
    """Of all processes of this machine together."""
    times = psutil.cpu_times()
    return times.user + times.nice + times.system + times.irq + times.softirq


def of_ours() -> float:
    """Of this process and of all that it has started and waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
