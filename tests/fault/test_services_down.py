"""The Order and the User Service slow, gone or malformed: no call is slower or fails, and staff see what is known."""

import math
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain

import pytest

from devstack.ports import Ports
from devstack.stack import Stack
from server.clients.breaker import PAUSE
from tests.fault.api_process import serving
from tests.fault.load import Shift, Work, at_work
from tests.stack_folder import stack_folder
from tests.system.doors import Caller, Door, Json
from tests.system.other_services import are_found, behave
from tests.system.stage import Stage
from tests.system.vocabulary import as_customer, dice, eventually, new_id, some_agent

TROUBLES: dict[str, dict[str, Json]] = {
    "slow": {"behaviour": "slow", "seconds": 5},
    "gone": {"behaviour": "gone"},
    "malformed": {"behaviour": "malformed"},
}
KINDS = ("CreateTicket", "GetTicket", "AddComment", "AssignTicket")
ASKING = ("GetTicketOrder", "GetTicketRequester")

CALLERS, ASKERS = 2, 1
FEWEST_CALLS = 300
"""Of each kind on each side in each trouble."""
MOST_TIMES_SLOWER = 1.2
# One in a hundred of so many calls is three; two hiccups of the machine make them ten and more.
LARGEST_SHARE = 0.05
# So long more calls are made where the figures have not come out well.
SECONDS_EACH = 8.0
# Of calls to the Order and the User Service (…_SERVICE_TIMEOUT_SECONDS): what waits for one takes as long.
TIMEOUT = 2.0
# What a busy machine adds to that where it is waited for.
MARGIN = 1.5
ASK_AGAIN_SECONDS = 0.1
# A breaker's pause, and what a busy machine takes to fetch some thousand orders.
BACK_WITHIN_SECONDS = PAUSE + 50


class Side(StrEnum):
    """Two API processes of one system, under the same load at the same time: one whose services are well, and one."""

    NORMAL = "normal"
    TROUBLED = "troubled"


@dataclass
class Figures:
    """How long the calls took in one trouble. Any thread may write."""

    trouble: str
    seconds: dict[tuple[Side, str], list[float]] = field(default_factory=lambda: defaultdict(list), repr=False)
    told: dict[Side, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """How much those were told to be known who asked for orders and owners."""
    tickets: dict[Side, str] = field(default_factory=dict)
    """The newest ticket of each side."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def call(self, side: Side, door: Door, call: str, caller: Caller, **fields: Json) -> dict[str, Json]:
        """The resource; AssertionError where there is none."""
        began = time.monotonic()
        resource = door.call(call, caller, **fields).resource
        took = time.monotonic() - began
        with self._lock:
            self.seconds[side, call].append(took)
            self.told[side][resource["state"] if call in ASKING else "calls"] += 1
        return resource

    def fewest(self) -> int:
        """How many calls there are where there are fewest."""
        return min(len(self.seconds[side, kind]) for side in Side for kind in KINDS)

    def ratio(self, kind: str) -> float:
        """How many times the normal p99 that of the troubled side is."""
        return p99(self.seconds[Side.TROUBLED, kind]) / p99(self.seconds[Side.NORMAL, kind])

    def are_good(self) -> bool:
        """Whether there are enough of them, and the p99 of no kind is too high."""
        return self.fewest() >= FEWEST_CALLS and max(map(self.ratio, KINDS)) <= MOST_TIMES_SLOWER

    def in_p99s(self, side: Side) -> Iterator[float]:
        """Every call's seconds, of whatever kind, by the p99 of its kind on both sides.

        Not by the normal one: by chance one side's is higher here and the other's there, and where all are measured by
        one side's, the other side comes out slower than it is.
        """
        for kind in KINDS:
            usual = p99(chain(*(self.seconds[either, kind] for either in Side)))
            yield from (took / usual for took in self.seconds[side, kind])

    def often_slow(self) -> dict[str, float]:
        """The kinds of which far more than one call in a hundred is too slow, and what share of them is."""
        limits = {kind: MOST_TIMES_SLOWER * p99(self.seconds[Side.NORMAL, kind]) for kind in KINDS}
        calls = {kind: self.seconds[Side.TROUBLED, kind] for kind in KINDS}
        shares = {kind: sum(took > limits[kind] for took in calls[kind]) / len(calls[kind]) for kind in KINDS}
        return {kind: share for kind, share in shares.items() if share > LARGEST_SHARE}

    def waits(self, side: Side) -> int:
        """How many calls took as long as one takes that waits for a service."""
        return sum(took >= TIMEOUT for kind in KINDS for took in self.seconds[side, kind])

    def lines(self) -> Iterator[str]:
        """For people."""
        for kind in KINDS:
            normal, troubled = (p99(self.seconds[side, kind]) * 1000 for side in Side)
            yield f"{self.trouble}: p99 of {kind} {troubled:.1f} ms, normal {normal:.1f} ms ({self.ratio(kind):.2f})"
        longest = max(chain(*(self.seconds[Side.TROUBLED, call] for call in ASKING)))
        yield f"{self.trouble}: at least {self.fewest()} calls of each kind; asking took {longest:.2f} s at most"
        yield f"{self.trouble}: { ({side.value: dict(told) for side, told in self.told.items()}) }"


Doors = dict[Side, Door]


def p99(seconds: Iterable[float]) -> float:
    """By nearest rank."""
    took = sorted(seconds)
    return took[math.ceil(len(took) * 0.99) - 1]


def steps(owner: Caller, agent: Caller, ticket: str) -> dict[str, tuple[Caller, dict[str, Json]]]:
    """By kind of call, who makes it with which fields."""
    texts = {"subject": "Cold soup", "description": "It was hot."}
    return {
        "CreateTicket": (owner, {**texts, "order_id": new_id()}),
        "GetTicket": (owner, {"ticket_id": ticket}),
        "AddComment": (owner, {"ticket_id": ticket, "comment": "Any news?"}),
        "AssignTicket": (agent, {"ticket_id": ticket, "assigned_to": agent.id}),
    }


def lives(doors: Doors, figures: Figures, chance: random.Random) -> Work:
    """Work: tickets about an order, one on each side, created, read, commented and assigned, step by step by turns."""

    def work(_number: int, shift: Shift) -> None:
        while not shift.enough.is_set():
            owner, agent, tickets = as_customer(), some_agent(), dict.fromkeys(Side, "")
            for kind in KINDS:
                for side in chance.sample(list(Side), 2):
                    caller, fields = steps(owner, agent, tickets[side])[kind]
                    resource = figures.call(side, doors[side], kind, caller, **fields)
                    if kind == "CreateTicket":
                        tickets[side] = figures.tickets[side] = str(resource["id"])

    return work


def questions(doors: Doors, figures: Figures) -> Work:
    """Work: what was ordered and who asks, of the newest ticket of each side, again and again."""

    def work(_number: int, shift: Shift) -> None:
        while not shift.enough.wait(ASK_AGAIN_SECONDS):
            for side, ticket in list(figures.tickets.items()):
                for call in ASKING:
                    figures.call(side, doors[side], call, some_agent(), ticket_id=ticket)

    return work


@pytest.fixture(scope="module")
def well() -> Iterator[Stack]:
    """Two services that are always well."""
    with stack_folder() as folder, Stack(folder, Ports.free(), parts={"user-service", "order-service"}) as running:
        yield running


@contextmanager
def two_sides(stage: Stage, well: Stack, orders: dict[str, Json]) -> Iterator[Doors]:
    """New API processes, whose breakers are closed; the services of the troubled one, and of the sweeper, misbehave."""
    targets = {name: well.service_env()[name] for name in ("ORDER_SERVICE_TARGET", "USER_SERVICE_TARGET")}
    with serving(stage, **targets) as normal, serving(stage) as troubled:
        behave(stage, **orders)
        yield {Side.NORMAL: normal.door, Side.TROUBLED: troubled.door}


def measure(doors: Doors, trouble: str) -> Figures:
    """Lets calls take place until there are enough, and if need be for longer, until the figures have come out well."""
    figures, began = Figures(trouble), time.monotonic()
    work, ask = lives(doors, figures, dice(trouble)), questions(doors, figures)
    with at_work(CALLERS, work) as callers, at_work(ASKERS, ask) as askers:
        eventually(lambda: figures.fewest() >= FEWEST_CALLS, 150)
        while not figures.are_good() and time.monotonic() - began < SECONDS_EACH:
            time.sleep(0.2)
    callers.finish()
    askers.finish()
    return figures


@pytest.mark.timeout(600)
def test_no_call_waits_for_other_services_or_fails_with_them_and_what_was_missed_is_fetched(
    stage: Stage, well: Stack
) -> None:
    """What is compared is the p99 of all calls of a kind on the two sides, which take turns at every step.

    So whatever else the machine does meets both. Still the p99 of one kind in one trouble, which is its fourth longest
    call, is an accident now and then: more calls are made while it is too high. What is held in the end is that of all
    calls together, 3,600 and more on each side, each measured by the p99 of its kind; and that of no kind in any
    trouble far more calls are slow.
    """
    measured: list[Figures] = []
    try:
        for trouble, orders in TROUBLES.items():
            with two_sides(stage, well, orders) as doors:
                figures = measure(doors, trouble)
            measured.append(figures)
            print(*figures.lines(), sep="\n")  # noqa: T201
            assert figures.often_slow() == {}
            assert figures.waits(Side.TROUBLED) <= figures.waits(Side.NORMAL) + 2
            assert figures.told[Side.TROUBLED].keys() == {"calls", "pending"}
            assert max(chain(*(figures.seconds[Side.TROUBLED, call] for call in ASKING))) < TIMEOUT + MARGIN
            # A machine that stands still for two seconds is no fault of theirs.
            assert figures.told[Side.NORMAL]["pending"] <= figures.told[Side.NORMAL]["current"] / 20
    finally:
        behave(stage)
    well_since = time.monotonic()
    normal, troubled = (p99(chain(*(figures.in_p99s(side) for figures in measured))) for side in Side)
    print(f"all calls: {troubled / normal:.2f} times the normal p99")  # noqa: T201
    assert troubled <= MOST_TIMES_SLOWER * normal
    missing = "SELECT count(*) FROM admin_service.ticket_orders WHERE state = 'pending'"
    eventually(lambda: stage.query(missing) == [(0,)], BACK_WITHIN_SECONDS)
    print(f"all orders were fetched {time.monotonic() - well_since:.1f} s after the services were well")  # noqa: T201
    are_found(stage)
