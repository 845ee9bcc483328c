"""What becomes of calls when three times as many come as the API can answer: `python -m bench.overload`.

The API has a processor of its own, and all others, the callers too, have the rest, when the most that it can do is
measured as well as in the wave. Callers come by the clock and have five seconds each.
"""

import math
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any, NamedTuple

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from nibble.support.v1 import ticket_service_pb2, ticket_service_pb2_grpc

from bench.company import Surge, loaded_stack, pid_of, surge
from bench.cores import keep_apart, processes
from bench.figures import percentile
from bench.processor import Clock, of_process, of_tree
from bench.progress import Progress
from bench.results import write_results
from bench.wave import Order, Outcome, Phase
from devstack.stack import Stack

PARTS = {"postgres", "migrate", "api", "gateway"}
"""Without what has no part in a call: two processors are few for those that have."""

OK, CANCELLED, RESOURCE_EXHAUSTED = 0, 1, 8
TOGETHER = 64
"""So many calls at a time saturate the API, and are fewer than it takes."""

WARM_UP_SECONDS, PEAK_SECONDS, NORMAL_SECONDS, WAVE_SECONDS = 2.0, 5.0, 4.0, 8.0
TIMES = 3.0
NORMAL = 0.5
"""The share of the peak that comes before and after the wave."""

DEADLINE_SECONDS = 5.0
LEAST_GOODPUT = 0.9
LONGEST_ADMITTED_SECONDS = 1.0
LONGEST_RECOVERY_SECONDS = 1.0
MOST_ODD = 0.01
"""Of the calls of a wave: how many may end with another code than those of REFUSED_WITH, or OK."""

SLICE_SECONDS, STEADY = 0.1, 5
SLOWER = 3.0
"""So many times as long as before the wave a call may take when all is normal again."""

SHORTEST_SLOW_SECONDS = 0.1
WITNESS_SECONDS = 0.1


REFUSED_WITH = {"own port": (RESOURCE_EXHAUSTED, CANCELLED), "gateway": (RESOURCE_EXHAUSTED,)}
"""By door, how callers may be told to come again: gRPC itself knows no other way than CANCELLED."""


class Account(NamedTuple):
    """What came of a wave. Times in seconds, rates in calls a second."""

    door: str
    peak: float
    offered: float
    goodput: float
    """Answers within the deadline, while the wave lasts."""
    codes: dict[int, int]
    """How many calls of the wave ended with which code."""
    p50: float
    p99: float
    longest: float
    """Of the calls that were answered."""
    recovery: float
    """From the end of the wave on; infinite where all was never as before."""

    @property
    def _as_promised(self) -> int:
        """How many were answered, or refused in the way that tells callers to come again."""
        return sum(self.codes.get(code, 0) for code in (OK, *REFUSED_WITH[self.door]))

    @property
    def misses(self) -> list[str]:
        """What is not as it should be."""
        return [
            what
            for what, is_so in (
                ("goodput", self.goodput < LEAST_GOODPUT * self.peak),
                ("latency", self.p99 > LONGEST_ADMITTED_SECONDS),
                ("recovery", self.recovery > LONGEST_RECOVERY_SECONDS),
                ("codes", sum(self.codes.values()) - self._as_promised > MOST_ODD * sum(self.codes.values())),
            )
            if is_so
        ]


def bench_overload() -> bool:
    """Print what came of a wave at each door; False where a target is missed.

    Raises:
        CallersFailed: the callers could not go on.
    """
    with loaded_stack(PARTS) as stack, surge(stack) as those:
        others = [pid for part in ("postgres", "gateway") for pid in processes(stack, part)]
        apart = keep_apart(processes(stack, "api"), [os.getpid(), those.pid, *others])
        print(f"overload: the API {'has a processor of its own' if apart else 'shares the only processor'}")
        doors = {"own port": stack.grpc_target, "gateway": stack.gateway_url.removeprefix("http://")}
        with Progress("overload", 3 * len(doors)) as progress:
            found = {door: _wave(stack, those, target, door, progress) for door, target in doors.items()}
    write_results("overload", {door: account._asdict() for door, account in found.items()})
    return not any(account.misses for account in found.values())


def _wave(stack: Stack, those: Surge, target: str, door: str, progress: Progress) -> Account:
    progress.begin(f"the peak at the {door}")
    peak = _peak(those, target)
    progress.begin(f"the wave at the {door}")
    phases = [
        Phase(NORMAL_SECONDS, NORMAL * peak),
        Phase(WAVE_SECONDS, TIMES * peak),
        Phase(NORMAL_SECONDS, NORMAL * peak),
    ]
    clocks: dict[str, Clock] = {part: of_tree(pid_of(stack, part)) for part in ("api", "postgres", "gateway")}
    clocks["callers"] = lambda: of_process(those.pid)
    with ThreadPoolExecutor(1) as pool, _witness(target, stack.mint_token("customer")) as told:
        used = pool.submit(_used_in_the_wave, clocks)
        outcomes = those.make_calls(Order([target], phases, deadline=DEADLINE_SECONDS))
    shares = ", ".join(f"{name} {share:.2f}" for name, share in used.result().items())
    print(f"overload: {door}: in the wave processors were taken by {shares}; a client of gRPC saw {dict(told)}")
    progress.begin(f"the peak at the {door} again")
    # The machine's speed changes: what it was before the wave and after it is nearer to what it was amid it.
    account = account_of(door, outcomes, (peak + _peak(those, target)) / 2)
    _print(account)
    return account


def _peak(those: Surge, target: str) -> float:
    """The most calls a second that are answered."""
    together = [Phase(seconds, together=TOGETHER) for seconds in (WARM_UP_SECONDS, PEAK_SECONDS)]
    saturated = those.make_calls(Order([target], together, deadline=DEADLINE_SECONDS))
    return answered(saturated, WARM_UP_SECONDS, WARM_UP_SECONDS + PEAK_SECONDS)


def _used_in_the_wave(clocks: Mapping[str, Clock]) -> dict[str, float]:
    """How much of a processor each takes, once the wave has come."""
    time.sleep(NORMAL_SECONDS)
    before = {name: clock() for name, clock in clocks.items()}
    time.sleep(WAVE_SECONDS)
    return {name: (clock() - before[name]) / WAVE_SECONDS for name, clock in clocks.items()}


def answered(outcomes: Sequence[Outcome], begin: float, end: float) -> float:
    """Good answers a second between two moments."""
    return sum(each.code == OK and begin <= each.ended < end for each in outcomes) / (end - begin)


def account_of(door: str, outcomes: Sequence[Outcome], peak: float) -> Account:
    """What came of a wave that began after NORMAL_SECONDS and lasted WAVE_SECONDS."""
    begin, end = NORMAL_SECONDS, NORMAL_SECONDS + WAVE_SECONDS
    wave = [each for each in outcomes if begin <= each.due < end]
    seconds = sorted(each.ended - each.due for each in wave if each.code == OK) or [math.inf]
    usual = sorted(each.ended - each.due for each in outcomes if each.due < begin)
    return Account(
        door,
        peak,
        len(wave) / WAVE_SECONDS,
        answered(outcomes, begin, end),
        dict(Counter(each.code for each in wave)),
        percentile(seconds, 0.5),
        percentile(seconds, 0.99),
        seconds[-1],
        _recovery(outcomes, end, max(SHORTEST_SLOW_SECONDS, SLOWER * percentile(usual, 0.99))),
    )


def _recovery(outcomes: Sequence[Outcome], end: float, slow: float) -> float:
    """After how long STEADY slices in a row have good answers only, none slower than that."""
    bad = {int((each.due - end) / SLICE_SECONDS) for each in outcomes if each.due >= end and not _is_well(each, slow)}
    for first in range(int(NORMAL_SECONDS / SLICE_SECONDS) - STEADY):
        if bad.isdisjoint(range(first, first + STEADY)):
            return first * SLICE_SECONDS
    return math.inf


def _is_well(outcome: Outcome, slow: float) -> bool:
    return outcome.code == OK and outcome.ended - outcome.due <= slow


@contextmanager
def _witness(target: str, token: str) -> Iterator[Counter[str]]:
    """Makes a call now and then by an ordinary client meanwhile, and counts what it is answered."""
    told: Counter[str] = Counter()
    enough = Event()
    with ThreadPoolExecutor(1) as pool, grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as door:
        watching = pool.submit(_watch, ticket_service_pb2_grpc.TicketServiceStub(door), token, enough, told)
        try:
            yield told
        finally:
            enough.set()
            watching.result(2 * DEADLINE_SECONDS)


def _watch(stub: "ticket_service_pb2_grpc.TicketServiceStub", token: str, enough: Event, told: Counter[str]) -> None:
    metadata = (("authorization", f"Bearer {token}"),)
    while not enough.wait(WITNESS_SECONDS):
        try:
            stub.ListMyTickets(ticket_service_pb2.ListMyTicketsRequest(), metadata=metadata, timeout=DEADLINE_SECONDS)
            told["OK"] += 1
        except grpc.RpcError as error:
            told[_name(error)] += 1


def _name(error: Any) -> str:  # noqa: ANN401 - an RpcError that is a Call too
    """The code, and whether it says when to come again."""
    status = rpc_status.from_call(error)
    details = status.details if status else ()
    again = any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in details)
    return f"{error.code().name}{' with RetryInfo' if again else ''}"


def _print(account: Account) -> None:
    door = account.door
    names = {code.value[0]: code.name for code in grpc.StatusCode}
    codes = ", ".join(f"{count} {names.get(code, code)}" for code, count in sorted(account.codes.items()))
    print(
        f"overload: {door}: the peak is {account.peak:.0f} calls/s; of {account.offered:.0f} offered"
        f" {account.goodput:.0f}/s are answered in time, {account.goodput / account.peak:.2f} of the peak ({codes})"
    )
    print(
        f"overload: {door}: answered within p50 {account.p50 * 1000:.0f} ms, p99 {account.p99 * 1000:.0f} ms, at most"
        f" {account.longest * 1000:.0f} ms; all is normal {account.recovery:.1f} s after the wave"
    )
    word = f"MISSED by {', '.join(account.misses)}" if account.misses else "met"
    print(
        f"overload: {door}: target goodput {LEAST_GOODPUT} of the peak, p99 {LONGEST_ADMITTED_SECONDS} s, normal after"
        f" {LONGEST_RECOVERY_SECONDS} s, all others refused: {word}"
    )


if __name__ == "__main__":
    sys.exit(0 if bench_overload() else 1)
