"""What a second API process gains, and what memory each of them takes: `python -m bench.workers`."""

import sys
from collections.abc import Sequence
from typing import NamedTuple

import psutil

from bench.company import CallersFailed, Surge, loaded_stack, pid_of, surge
from bench.figures import ratio
from bench.processor import cores, of_machine
from bench.progress import Progress
from bench.results import write_results
from bench.wave import Order, Phase
from devstack.stack import Stack

PARTS = {"postgres", "migrate", "api"}
KINDS = ("get", "create")
WORKERS = 2
ROUNDS, SECONDS = 3, 3.0
TOGETHER = 32
"""So many calls at a time for each worker; their callers take little of the processors."""


class Round(NamedTuple):
    """Calls a second at one worker and at all of them, and how many processors were busy meanwhile."""

    one: float
    all: float
    busy_with_one: float
    busy_with_all: float


class Memory(NamedTuple):
    """Of one process, in megabytes: resident; its own alone; its own and its part of what several have in common."""

    rss: float
    uss: float
    pss: float


def bench_workers() -> bool:
    """Print calls a second at two workers and at one, and their memory; there is no target, so this is always True.

    One and two are measured in turn on the same stack: a worker that nobody calls costs nothing.

    Raises:
        CallersFailed: a call failed.
    """
    with loaded_stack(PARTS, WORKERS) as stack, surge(stack) as those:
        with Progress("workers", (ROUNDS + 1) * len(KINDS)) as progress:
            found = {kind: _rounds(stack, those, kind, progress) for kind in KINDS}
        memory = [memory_of(child.pid) for child in psutil.Process(pid_of(stack, "api")).children()]
    for kind, rounds in found.items():
        print(f"workers: {kind}: {_told(rounds)}")
    for each in memory:
        print(f"workers: one has {each.rss:.0f} MB resident, {each.uss:.0f} MB alone, {each.pss:.0f} MB with its part")
    calls = {kind: [each._asdict() for each in rounds] for kind, rounds in found.items()}
    write_results("workers", {"processors": cores(), "calls": calls, "memory": [each._asdict() for each in memory]})
    return True


def memory_of(pid: int) -> Memory:
    """The memory of one process as it is now."""
    full = psutil.Process(pid).memory_full_info()
    return Memory(*(size / 1e6 for size in (full.rss, full.uss, full.pss)))


def _rounds(stack: Stack, those: Surge, kind: str, progress: Progress) -> list[Round]:
    """Those that count; the first, which does not, warms up."""
    rounds = []
    for number in range(ROUNDS + 1):
        progress.begin(f"{kind}, round {number}")
        (one, busy_with_one), (both, busy_with_both) = (
            _rate(those, targets, kind) for targets in (stack.grpc_targets[:1], stack.grpc_targets)
        )
        rounds.append(Round(one, both, busy_with_one, busy_with_both))
    return rounds[1:]


def _rate(those: Surge, targets: Sequence[str], kind: str) -> tuple[float, float]:
    """Calls a second, and busy processors."""
    before = of_machine()
    outcomes = those.make_calls(Order(targets, [Phase(SECONDS, together=TOGETHER * len(targets))], kind))
    used, elapsed = of_machine() - before, max(outcome.ended for outcome in outcomes)
    if any(outcome.code for outcome in outcomes):
        raise CallersFailed(f"{kind}: not every call was answered")
    return len(outcomes) / elapsed, used / elapsed


def _told(rounds: Sequence[Round]) -> str:
    one, both, busy_with_one, busy_with_both = (
        sorted(column)[len(rounds) // 2] for column in zip(*rounds, strict=True)
    )
    gain = ratio([each.all for each in rounds], [each.one for each in rounds])
    return (
        f"{both:.0f} calls/s at {WORKERS} workers, {one:.0f} at one, {gain:.2f} times as many; processors busy, callers"
        f" and PostgreSQL included: {busy_with_both:.1f} and {busy_with_one:.1f} of {cores()}"
    )


if __name__ == "__main__":
    sys.exit(0 if bench_workers() else 1)
