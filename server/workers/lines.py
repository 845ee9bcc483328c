"""The order in which events go out: each ticket's wait in a line of their own, and only its head may be on its way.

Pure: what was fetched, what Kafka answered and the time come in, what is to be sent next comes out.
"""

import heapq
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self
from uuid import UUID

from server.domain.events import HistoryEntry

# How long a ticket whose event failed waits, in seconds: twice as long after each further failure.
SHORTEST_WAIT = 0.5
LONGEST_WAIT = 15.0
# How many events may be at hand before no more are fetched: those of tickets that move, and of those that failed, each
# of which keeps one. Where Kafka takes nothing from so many tickets, the others wait with them.
MOST_MOVING = 2_000
MOST_FAILING = 10_000
# The doublings after which the longest wait is reached.
_MOST_DOUBLINGS = 5


class Outbound(NamedTuple):
    """One event that is to be sent, of a ticket of that shard; `ticket` is the snapshot that it carries."""

    shard: int
    entry: HistoryEntry
    ticket: dict[str, Any]

    @classmethod
    def of_row(cls, shard: int, row: Sequence[Any]) -> Self:
        """From the columns of a history entry and the snapshot."""
        return cls(shard, HistoryEntry._make(row[:-1]), row[-1])


@dataclass
class _Line:
    """The events of one ticket, the next one first."""

    shard: int
    events: deque[Outbound] = field(default_factory=deque)
    on_its_way: bool = False
    failures: int = 0


class Lines:
    """Every ticket that is at hand, with those of its events that were fetched.

    A ticket whose event failed keeps that one alone, and waits; the rest of its line is left to be fetched again, so
    that tickets that wait for long, a partition's without a leader, say, take up little room.
    """

    def __init__(self) -> None:
        self._lines: dict[UUID, _Line] = {}
        self._free: deque[UUID] = deque()
        """Tickets whose head may go out now."""
        self._waiting: list[tuple[float, UUID]] = []
        """After a failure: until when, which ticket. A heap."""
        self._sent_at: dict[UUID, float] = {}
        """When the events that are on their way were handed out, the oldest first."""
        self._leaving: set[int] = set()
        self._events = 0
        self._failing = 0
        """Tickets whose head has failed since it arrived there."""

    @property
    def has_room(self) -> bool:
        """Whether more events may be fetched."""
        return self._events - self._failing < MOST_MOVING and self._failing < MOST_FAILING

    @property
    def tickets(self) -> list[UUID]:
        """The tickets at hand: as long as they are, what is fetched must be of others, or it comes twice."""
        return list(self._lines)

    def take(self, fetched: Iterable[Outbound]) -> None:
        """Adds events, those of a ticket in their order and behind those that it has, of shards that are not left."""
        for event in fetched:
            ticket_id = event.entry.ticket_id
            line = self._lines.get(ticket_id)
            if line is None:
                line = self._lines[ticket_id] = _Line(event.shard)
                self._free.append(ticket_id)
            line.events.append(event)
            self._events += 1

    def next(self, now: float) -> list[Outbound]:
        """What is to be sent now, at most one event of each ticket; it is on its way from here on."""
        while self._waiting and self._waiting[0][0] <= now:
            self._free.append(heapq.heappop(self._waiting)[1])
        heads = []
        while self._free:
            heads.append(self._send(self._lines[self._free.popleft()], now))
        return heads

    def _send(self, line: _Line, now: float) -> Outbound:
        line.on_its_way = True
        event = line.events[0]
        self._sent_at[event.entry.id] = now
        return event

    def acknowledged(self, event: Outbound) -> None:
        """The event has arrived: the ticket's next one may go."""
        line = self._answered(event)
        self._failing -= line.failures > 0
        line.failures = 0
        line.events.popleft()
        self._events -= 1
        if line.events:
            self._free.append(event.entry.ticket_id)
        else:
            del self._lines[event.entry.ticket_id]

    def failed(self, event: Outbound, now: float) -> None:
        """The event may not have arrived: it is sent again after a while, unless its shard is left."""
        line = self._answered(event)
        if line.shard in self._leaving:
            self._drop(event.entry.ticket_id)
            return
        self._trim(line)
        wait = min(SHORTEST_WAIT * 2 ** min(line.failures, _MOST_DOUBLINGS), LONGEST_WAIT)
        self._failing += line.failures == 0
        line.failures += 1
        heapq.heappush(self._waiting, (now + wait, event.entry.ticket_id))

    def _answered(self, event: Outbound) -> _Line:
        del self._sent_at[event.entry.id]
        line = self._lines[event.entry.ticket_id]
        line.on_its_way = False
        return line

    def leave(self, shards: Collection[int]) -> None:
        """From now on these shards are left, and no others: of their tickets only what is on its way stays."""
        self._leaving = set(shards)
        if not shards:
            return
        for ticket_id, line in list(self._lines.items()):
            if line.shard in self._leaving:
                self._trim(line)
                if not line.on_its_way:
                    self._drop(ticket_id)
        self._free = deque(ticket_id for ticket_id in self._free if ticket_id in self._lines)
        self._waiting = [entry for entry in self._waiting if entry[1] in self._lines]
        heapq.heapify(self._waiting)

    def busy(self) -> set[int]:
        """The shards of the tickets at hand."""
        return {line.shard for line in self._lines.values()}

    def _trim(self, line: _Line) -> None:
        while len(line.events) > 1:
            line.events.pop()
            self._events -= 1

    def _drop(self, ticket_id: UUID) -> None:
        line = self._lines.pop(ticket_id)
        self._events -= len(line.events)
        self._failing -= line.failures > 0

    @property
    def are_failing(self) -> bool:
        """Whether a ticket's head has failed since it arrived there."""
        return self._failing > 0

    @property
    def are_quiet(self) -> bool:
        """Whether nothing is on its way."""
        return not self._sent_at

    def sent_before(self, moment: float) -> bool:
        """Whether an event that was handed out before that moment is still on its way."""
        return bool(self._sent_at) and next(iter(self._sent_at.values())) < moment

    def waits_until(self) -> float:
        """When the first of the waiting tickets may go; infinity where none waits."""
        return self._waiting[0][0] if self._waiting else float("inf")
