"""Whether a worker's memory stays what it is over 200,000 calls: `python -m bench.soak`."""

import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from bench.callers import Order
from bench.company import Callers, callers, loaded_stack, pid_of
from bench.figures import slope
from bench.kinds import MIXED
from bench.processor import cores
from bench.progress import Progress
from bench.results import verdict, write_results
from bench.workers import memory_of

PARTS = {"postgres", "migrate", "api"}
CALLS = 200_000
WARM_UP_CALLS = 30_000
"""Until then caches fill: prepared statements of each connection, tokens, memory pools."""

BOUND_SECONDS = 300.0
TURN_SECONDS = 4.0
MOST_GROWTH = 1.05
"""Of the memory that the process has alone, at the end to after the warm-up."""


class Sample(NamedTuple):
    """The memory of the worker in megabytes, resident and alone, after so many calls."""

    calls: int
    rss: float
    uss: float


def bench_soak() -> bool:
    """Print what the memory was and became; False where it grew, or where the calls took too long to be made.

    Raises:
        CallersFailed: a call failed.
    """
    with loaded_stack(PARTS) as stack, callers(stack) as those:
        samples = _samples(those, stack.grpc_target, pid_of(stack, "api"))
    counted = [sample for sample in samples if sample.calls >= WARM_UP_CALLS]
    first, last = counted[0], counted[-1]
    growth, rise = last.uss / first.uss, slope([(each.calls / 1000, each.uss * 1000) for each in counted])
    flat, whole = growth <= MOST_GROWTH, last.calls >= CALLS
    print(
        f"soak: after {first.calls} calls {first.uss:.1f} MB ({first.rss:.1f} resident), after {last.calls} calls"
        f" {last.uss:.1f} MB ({last.rss:.1f} resident): {growth:.3f} times, {rise:+.1f} kB per 1,000 calls"
    )
    print(f"soak: target at most {MOST_GROWTH} times: {verdict(met=flat)}")
    if not whole:
        print(f"soak: {CALLS} calls were not made within {BOUND_SECONDS:.0f} s: {verdict(met=False)}")
    write_results("soak", {"processors": cores(), "growth": growth, "samples": [each._asdict() for each in samples]})
    return flat and whole


def _samples(those: Callers, target: str, worker: int) -> Sequence[Sample]:
    samples, calls, end = [], 0, time.monotonic() + BOUND_SECONDS
    with Progress("soak", CALLS) as progress:
        while calls < CALLS and time.monotonic() < end:
            progress.begin(f"{calls} calls", calls)
            calls += len(those.make_calls(Order("grpc", [target], MIXED, TURN_SECONDS)).milliseconds)
            memory = memory_of(worker)
            samples.append(Sample(calls, memory.rss, memory.uss))
    return samples


if __name__ == "__main__":
    sys.exit(0 if bench_soak() else 1)
