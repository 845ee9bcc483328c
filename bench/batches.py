"""The rows of many invented tickets, about in the order in which the service would have written them.

So a ticket's history lies apart, between that of others, as it does in a real table. Several processes invent, each a
period's tickets at a time; the rows are always the same for a seed and a time.
"""

import multiprocessing
from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from datetime import datetime
from typing import NamedTuple

from bench import rows
from bench.lives import SECOND, SPAN, Life, Shelf
from bench.rows import TABLES
from bench.world import World

INVENTORS = 2
# Enough that nobody waits, and not so many that they pile up.
AHEAD = 16
# How finely rows are told apart by their times: those of one period come as they were invented.
MOST_PERIODS, TICKETS_PER_PERIOD = 20_000, 50

Pieces = dict[str, dict[int, bytes]]
"""Rows of each table by period."""


class Batch(NamedTuple):
    """Some more of each table's rows, and how many tickets they come with."""

    tickets: int
    rows: dict[str, bytes]


class Plan(NamedTuple):
    """How many tickets there are, what chance begins with, and until when their lives are told (as `bench.lives`)."""

    tickets: int
    seed: int
    now: int

    @property
    def begin(self) -> int:
        """When the first is created."""
        return self.now - SPAN

    @property
    def periods(self) -> int:
        """Into how many the time is divided."""
        return max(1, min(MOST_PERIODS, self.tickets // TICKETS_PER_PERIOD))

    def places(self, period: int) -> range:
        """The numbers of the tickets that are created in that period; of the last one, which is a moment, none."""
        first, end = (min(self.tickets, -(-each * self.tickets // self.periods)) for each in (period, period + 1))
        return range(first, end)


def batches(tickets: int, seed: int, until: datetime) -> Iterator[Batch]:
    """All rows of so many tickets, whose lives are told as far as they have come by `until`."""
    plan = Plan(tickets, seed, int(until.timestamp() * SECOND))
    yield Batch(0, {"agents": _roster(plan)})
    waiting: dict[str, dict[int, list[bytes]]] = {table: defaultdict(list) for table in TABLES}
    for period, pieces in enumerate(_invented(plan)):
        for table, by_period in pieces.items():
            for later, piece in by_period.items():
                waiting[table][later].append(piece)
        written = {table: b"".join(due.pop(period, ())) for table, due in waiting.items()}
        yield Batch(len(plan.places(period)), written)


def _roster(plan: Plan) -> bytes:
    world = World(plan.tickets, plan.seed)
    return b"".join(rows.agent(person, plan.begin) for person in (*world.agents, *world.supervisors))


def _invented(plan: Plan) -> Iterator[Pieces]:
    """Each period's tickets, in order."""
    # Spawned: a fork would have the loader's connections.
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(INVENTORS, spawning, _Inventor.settle, (plan,)) as pool:
        ahead: deque[Future[Pieces]] = deque()
        for period in range(plan.periods + 1):
            ahead.append(pool.submit(_Inventor.invent, period))
            if len(ahead) > AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


class _Inventor:
    """What a process that invents knows."""

    plan: Plan
    world: World

    @classmethod
    def settle(cls, plan: Plan) -> None:
        cls.plan, cls.world = plan, World(plan.tickets, plan.seed)

    @classmethod
    def invent(cls, period: int) -> Pieces:
        """All rows of the tickets that are created then, by the periods in which they are written."""
        plan, world = cls.plan, cls.world
        shelf = Shelf(plan.begin, SPAN // plan.periods)
        world.begin(period)
        for place in plan.places(period):
            created = plan.begin + int(SPAN * (place + world.random()) / plan.tickets)
            Life(world, shelf, place, created, plan.now).live()
        return {
            table: {max(period, later): b"".join(rows) for later, rows in by_period.items()}
            for table, by_period in shelf.rows.items()
        }
