"""The order in which the relay sends, whatever Kafka answers, and whichever shards come and go."""

from collections import defaultdict
from typing import Any
from uuid import UUID, uuid5

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from server.workers import lines
from server.workers.lines import LONGEST_WAIT, MOST_FAILING, MOST_MOVING, SHORTEST_WAIT, Lines, Outbound
from tests.unit.vocabulary import an_entry

SHARDS = 4
TICKETS = 8


def an_event(ticket: int, sequence: int) -> Outbound:
    """Event number `sequence` of ticket number `ticket`."""
    ticket_id = UUID(int=ticket)
    entry = an_entry(id=uuid5(ticket_id, str(sequence)), ticket_id=ticket_id, position=sequence, sequence=sequence)
    return Outbound(ticket % SHARDS, entry, {})


def number(event: Outbound) -> int:
    assert event.entry.sequence is not None
    return event.entry.sequence


class RelayedLines(RuleBasedStateMachine):
    """A table of events, a relay that fetches from it, and a Kafka that answers in any order, well or ill."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = Lines()
        self.now = 100.0
        self.unsent: defaultdict[int, list[Outbound]] = defaultdict(list)
        self.written = [0] * TICKETS
        self.on_its_way: list[Outbound] = []
        self.first_deliveries: list[list[int]] = [[] for _ in range(TICKETS)]
        self.left: set[int] = set()

    @rule(ticket=st.integers(0, TICKETS - 1), count=st.integers(1, 4))
    def change(self, ticket: int, count: int) -> None:
        for _ in range(count):
            self.written[ticket] += 1
            self.unsent[ticket].append(an_event(ticket, self.written[ticket]))

    @rule(limit=st.integers(1, 5))
    def fetch(self, limit: int) -> None:
        at_hand = {ticket.int for ticket in self.lines.tickets}
        others = [ticket for ticket in range(TICKETS) if ticket not in at_hand and ticket % SHARDS not in self.left]
        self.lines.take([event for ticket in others for event in self.unsent[ticket][:limit]])

    @rule()
    def send(self) -> None:
        for event in self.lines.next(self.now):
            assert event.entry.ticket_id not in {other.entry.ticket_id for other in self.on_its_way}
            assert event == self.unsent[event.entry.ticket_id.int][0], "not the oldest unsent event of its ticket"
            self.on_its_way.append(event)

    @rule(data=st.data(), arrives=st.booleans(), answer=st.booleans())
    def answer(self, data: st.DataObject, arrives: bool, answer: bool) -> None:
        if not self.on_its_way:
            return
        event = self.on_its_way.pop(data.draw(st.integers(0, len(self.on_its_way) - 1)))
        delivered = self.first_deliveries[event.entry.ticket_id.int]
        # What is said to have failed may have arrived.
        if (arrives or answer) and number(event) > len(delivered):
            delivered.append(number(event))
        if answer:
            self.unsent[event.entry.ticket_id.int].pop(0)
            self.lines.acknowledged(event)
        else:
            self.lines.failed(event, self.now)

    @rule(seconds=st.floats(0.01, 20))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(shards=st.sets(st.integers(0, SHARDS - 1), max_size=SHARDS))
    def leave(self, shards: set[int]) -> None:
        self.left = shards
        self.lines.leave(shards)
        on_its_way = {event.shard for event in self.on_its_way}
        assert self.lines.busy() & shards == on_its_way & shards

    @invariant()
    def first_deliveries_are_in_order_without_a_gap(self) -> None:
        for delivered in self.first_deliveries:
            assert delivered == list(range(1, len(delivered) + 1))

    @invariant()
    def they_know_what_is_on_its_way(self) -> None:
        assert self.lines.are_quiet == (not self.on_its_way)

    def teardown(self) -> None:
        """Where Kafka takes everything in the end, everything arrives."""
        self.leave(set())
        for _ in range(1000):
            self.wait(LONGEST_WAIT)
            self.fetch(5)
            self.send()
            while self.on_its_way:
                event = self.on_its_way.pop()
                self.unsent[event.entry.ticket_id.int].pop(0)
                self.lines.acknowledged(event)
            if not any(self.unsent.values()):
                break
        assert not any(self.unsent.values())
        assert self.lines.tickets == []
        assert self.lines.has_room


TestRelayedLines = RelayedLines.TestCase


def fail(of: Lines, event: Outbound, now: float) -> None:
    """Sends what may go, and lets that one fail."""
    assert event in of.next(now)
    of.failed(event, now)


def test_a_ticket_whose_event_failed_waits_and_the_others_go_on() -> None:
    waiting = Lines()
    waiting.take([an_event(1, 1), an_event(2, 1), an_event(2, 2)])
    first, other = waiting.next(0)
    waiting.failed(first, 0)
    waiting.acknowledged(other)
    assert waiting.next(SHORTEST_WAIT / 2) == [an_event(2, 2)]
    assert waiting.waits_until() == SHORTEST_WAIT
    assert waiting.next(SHORTEST_WAIT) == [an_event(1, 1)]


def test_a_ticket_waits_longer_after_each_failure_up_to_the_longest_wait() -> None:
    waiting, event, now, waits = Lines(), an_event(1, 1), 0.0, []
    waiting.take([event])
    for _ in range(8):
        fail(waiting, event, now)
        waits.append(waiting.waits_until() - now)
        now = waiting.waits_until()
    assert waits[:5] == [0.5, 1, 2, 4, 8]
    assert waits[5:] == [LONGEST_WAIT] * 3


def test_one_event_that_is_not_answered_is_noticed_among_many_that_are() -> None:
    some = Lines()
    some.take([an_event(ticket, 1) for ticket in range(3)])
    lost, *others = some.next(1.0)
    for event in others:
        some.acknowledged(event)
    assert some.sent_before(2.0)
    assert not some.sent_before(1.0)
    some.acknowledged(lost)
    assert not some.sent_before(2.0)


def test_tickets_that_fail_take_no_room_from_those_that_move(monkeypatch: Any) -> None:  # noqa: ANN401
    assert MOST_FAILING > MOST_MOVING
    monkeypatch.setattr(lines, "MOST_MOVING", 3)
    monkeypatch.setattr(lines, "MOST_FAILING", 5)
    some = Lines()
    room = []
    for ticket in range(5):
        room.append(some.has_room)
        some.take([an_event(ticket, 1), an_event(ticket, 2), an_event(ticket, 3)])
        fail(some, an_event(ticket, 1), 0)
    some.acknowledged(some.next(SHORTEST_WAIT)[0])
    for events in ([an_event(5, 1), an_event(5, 2)], [an_event(6, 1)]):
        room.append(some.has_room)
        some.take(events)
    room.append(some.has_room)
    fail(some, an_event(6, 1), SHORTEST_WAIT)
    assert [*room, some.has_room] == [True] * 7 + [False] * 2
