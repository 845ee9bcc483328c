"""`make bench`: every benchmark, one after the other, or those that are named: `python -m bench calls soak`.

The exit code is 0 where all targets are met, 1 where one is missed, and 2 where a benchmark could not be carried out.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence

from bench.calls import Plan, bench_calls
from bench.company import CallersFailed
from bench.overload import bench_overload
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


def main(names: Sequence[str]) -> int:
    """Carry them out, all where none is named; returns the exit code."""
    unknown = set(names) - SECTIONS.keys()
    if unknown:
        sys.exit(f"bench: there is no {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    told = {name: _carry_out(name) for name in names or SECTIONS}
    print("\n".join(f"bench: {name}: {what}, {seconds:.0f} s" for name, (what, seconds) in told.items()))
    print(f"bench: {sum(seconds for _, seconds in told.values()):.0f} s in all")
    words = {what for what, _ in told.values()}
    return 2 if FAILED in words else int(MISSED in words)


DONE, MISSED, FAILED = "done", "done, and MISSED a target", "could not be carried out"


def _carry_out(name: str) -> tuple[str, float]:
    """What came of it, and how many seconds it took."""
    began = time.monotonic()
    try:
        what = DONE if SECTIONS[name]() else MISSED
    except CallersFailed as failure:
        print(f"{name}: {failure}", file=sys.stderr)
        what = FAILED
    return what, time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
