"""Processes that stand still."""

import signal
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import psutil


@contextmanager
def frozen(processes: Collection[psutil.Process]) -> Iterator[None]:
    """While none of them moves. Their connections stay open."""
    assert processes
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)


def whole(process: psutil.Process) -> list[psutil.Process]:
    """It and all that it started."""
    return [process, *process.children(recursive=True)]
