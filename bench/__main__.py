"""`make bench`: every benchmark, one after the other, or those that are named: `python -m bench calls soak`.

The exit code is 0 where all targets are met, 1 where one is missed, and 2 where a benchmark could not be carried out.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from bench.calls import Plan, bench_calls
from bench.company import CallersFailed
from bench.cores import back_to_all
from bench.overload import bench_overload
from bench.processor import cores, of_machine, of_ours
from bench.relay import bench_relay
from bench.soak import bench_soak
from bench.startup import bench_startup
from bench.workers import bench_workers

SECTIONS: Mapping[str, Callable[[], bool]] = {
    "startup": bench_startup,
    "calls": lambda: bench_calls(Plan()),
    "workers": bench_workers,
    "soak": bench_soak,
    "overload": bench_overload,
    "relay": bench_relay,
}


DONE, MISSED, FAILED = "done", "done, and MISSED a target", "could not be carried out"
LOUD = 0.1
"""Of a processor: where others took more, latencies and rates mean little."""


class Told(NamedTuple):
    """What came of a section, in how many seconds, and how much of a processor was taken by others meanwhile."""

    what: str
    seconds: float
    others: float

    def __str__(self) -> str:
        disturbed = f"; others took {self.others:.1f} of the {cores()} processors" if self.others > LOUD else ""
        return f"{self.what}, {self.seconds:.0f} s{disturbed}"


def main(names: Sequence[str]) -> int:
    """Carry them out, all where none is named; returns the exit code."""
    unknown = set(names) - SECTIONS.keys()
    if unknown:
        sys.exit(f"bench: there is no {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    told = {name: _carry_out(name) for name in names or SECTIONS}
    print("\n".join(f"bench: {name}: {each}" for name, each in told.items()))
    print(f"bench: {sum(each.seconds for each in told.values()):.0f} s in all")
    words = {each.what for each in told.values()}
    return 2 if FAILED in words else int(MISSED in words)


def _carry_out(name: str) -> Told:
    began, all_before, ours_before = time.monotonic(), of_machine(), of_ours()
    try:
        with back_to_all():
            what = DONE if SECTIONS[name]() else MISSED
    except CallersFailed as failure:
        print(f"{name}: {failure}", file=sys.stderr)
        what = FAILED
    seconds = time.monotonic() - began
    return Told(what, seconds, (of_machine() - all_before - of_ours() + ours_before) / seconds)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
