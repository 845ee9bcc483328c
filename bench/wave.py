"""Calls that come by the clock, however the answers come: `python -m bench.wave IDENTITY`, a process of its own.

It reads an order a line, as JSON, and answers each with a line: of every call when it was due, when it ended, and with
which code. A call that has no answer by its deadline is given up, as clients do.
"""

import json
import random
import select
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from bench.data_set import data_set
from bench.http2 import Connection, Ready, ready
from bench.kinds import MIXED, Share, requests
from devstack.identity import InsecureDevelopmentIdentity

SEED = 7
CONNECTIONS = 8
VARIETY = 512
"""So many requests are ready; then they begin again."""

DEADLINE_EXCEEDED, UNAVAILABLE = 4, 14
LONGEST_PAUSE_MS = 1


class Phase(NamedTuple):
    """So many calls a second for some seconds; or, with a rate of 0, `together` calls at a time for so long."""

    seconds: float
    rate: float = 0.0
    together: int = 0


class Order(NamedTuple):
    """Phases, one right after the other, of calls of one kind, or MIXED, at these targets (HOST:PORT).

    Each call has `deadline` seconds.
    """

    targets: Sequence[str]
    phases: Sequence[Phase]
    kind: str = MIXED
    deadline: float = 5.0


class Outcome(NamedTuple):
    """When a call was due and when it ended, in seconds since the first phase began, and with which code."""

    due: float
    ended: float
    code: int


class Wave:
    """The calls of one order, while they are made."""

    def __init__(self, order: Order, requests: Sequence[Ready]) -> None:
        self._order = order
        self._poll = select.poll()
        self._connections = [self._connect(number) for number in range(CONNECTIONS)]
        self._requests = requests
        self._begun = 0
        self._held: deque[float] = deque()
        """When those were due that no connection takes so far."""
        self._in_flight: dict[tuple[int, int], float] = {}
        """When those were due that are on their way, by connection and stream; oldest first."""
        self._outcomes: list[Outcome] = []
        self._start = 0.0

    def run(self) -> list[Outcome]:
        """Every call's outcome."""
        self._start = time.perf_counter()
        end = 0.0
        for phase in self._order.phases:
            begin, end = end, end + phase.seconds
            self._go_through(phase, begin, end)
        while self._in_flight or self._held:
            self._turn()
        for connection in self._connections:
            connection.socket.close()
        return self._outcomes

    def _connect(self, number: int) -> Connection:
        host, _, port = self._order.targets[number % len(self._order.targets)].rpartition(":")
        connection = Connection(host, int(port))
        self._poll.register(connection.socket, select.POLLIN)
        return connection

    def _now(self) -> float:
        return time.perf_counter() - self._start

    def _go_through(self, phase: Phase, begin: float, end: float) -> None:
        due = 0
        while (now := self._now()) < end:
            if phase.rate:
                until = int((now - begin) * phase.rate)
                self._held.extend(begin + number / phase.rate for number in range(due, until))
                due = until
            else:
                self._held.extend([now] * (phase.together - len(self._in_flight) - len(self._held)))
            self._turn()

    def _turn(self) -> None:
        """Begin what is due, take what has come, give up what is late."""
        while self._held and self._begin(self._held[0]):
            self._held.popleft()
        for connection in self._connections:
            connection.flush()
        if self._poll.poll(LONGEST_PAUSE_MS):
            self._receive()
        self._give_up()

    def _begin(self, due: float) -> bool:
        request = self._requests[self._begun % len(self._requests)]
        for number in range(self._begun, self._begun + CONNECTIONS):
            connection = self._connections[number % CONNECTIONS]
            if connection.takes(request):
                self._in_flight[number % CONNECTIONS, connection.begin(request)] = due
                self._begun += 1
                return True
        return False

    def _receive(self) -> None:
        for number, connection in enumerate(self._connections):
            try:
                ended = connection.receive()
            except ConnectionError:
                self._replace(number)
                continue
            for each in ended:
                due = self._in_flight.pop((number, each.stream))
                self._outcomes.append(Outcome(due, self._now(), each.code))

    def _replace(self, number: int) -> None:
        """A connection that is lost takes its calls with it; a client makes a new one."""
        lost = self._connections[number]
        self._poll.unregister(lost.socket)
        lost.socket.close()
        for stream in lost.open:
            self._outcomes.append(Outcome(self._in_flight.pop((number, stream)), self._now(), UNAVAILABLE))
        self._connections[number] = self._connect(number)

    def _give_up(self) -> None:
        now = self._now()
        while self._held and now - self._held[0] > self._order.deadline:
            self._outcomes.append(Outcome(self._held.popleft(), now, DEADLINE_EXCEEDED))
        while self._in_flight:
            (number, stream), due = next(iter(self._in_flight.items()))
            if now - due <= self._order.deadline:
                break
            self._connections[number].cancel(stream)
            self._outcomes.append(Outcome(self._in_flight.pop((number, stream)), now, DEADLINE_EXCEEDED))


class Readiness:
    """Requests that are ready, made when they are first asked for."""

    def __init__(self, identity: InsecureDevelopmentIdentity) -> None:
        @cache
        def token(role: str, caller: UUID) -> str:
            return identity.mint_token(role, str(caller))

        @cache
        def requests_of(kind: str, deadline: float) -> Sequence[Ready]:
            asks = requests(kind, Share(data_set(), random.Random(SEED), 0, 1))  # noqa: S311 - nothing secret
            return [
                ready(kind.method, ask.request, token(ask.role, ask.caller), deadline)
                for kind, ask in islice(asks, VARIETY)
            ]

        self.requests_of = requests_of


def _orders() -> Iterator[Order]:
    for line in sys.stdin:
        order = Order(**json.loads(line))
        yield order._replace(phases=[Phase(*phase) for phase in order.phases])


if __name__ == "__main__":
    readiness = Readiness(InsecureDevelopmentIdentity(Path(sys.argv[1])))
    for each in _orders():
        sys.stdout.write(f"{json.dumps(Wave(each, readiness.requests_of(each.kind, each.deadline)).run())}\n")
        sys.stdout.flush()
