"""Sending again ends at the first event that fails: what is on its way is waited for, and nothing more is sent."""

from collections import deque

import pytest
from kafka.errors import KafkaTimeoutError

from server.workers.lines import Outbound
from server.workers.republish import Republication
from server.workers.sender import Answer
from tests.unit.test_relay_lines import an_event

FAILURE = KafkaTimeoutError("late")


class Kafka:
    """Acknowledges what is sent, one event at each look, but for one that it lets fail."""

    def __init__(self, but: Outbound | None) -> None:
        self._but = but
        self._queue: deque[Outbound] = deque()
        self.sent: list[Outbound] = []

    def send(self, event: Outbound) -> None:
        """As a sender does."""
        self.sent.append(event)
        self._queue.append(event)

    def answers(self, within: float) -> list[Answer]:
        """As a sender does."""
        assert within
        event = self._queue.popleft()
        return [Answer(event, FAILURE if event == self._but else None)]


def republication() -> Republication:
    return Republication("postgresql:///nobody", "nowhere:1", "topic", print)


EVENTS = [an_event(ticket, sequence) for sequence in range(1, 6) for ticket in range(4)]


def test_where_nothing_fails_everything_is_sent_each_tickets_in_their_order() -> None:
    again, kafka = republication(), Kafka(but=None)
    again._work(iter(EVENTS), kafka)  # type: ignore[arg-type]
    assert again.sent == len(EVENTS)
    assert sorted(kafka.sent) == sorted(EVENTS)
    for ticket in range(4):
        sent = [event for event in kafka.sent if event.entry.ticket_id.int == ticket]
        assert [event.entry.sequence for event in sent] == [1, 2, 3, 4, 5]


def test_the_first_failure_ends_it_and_what_was_acknowledged_meanwhile_counts() -> None:
    again, kafka = republication(), Kafka(but=an_event(2, 3))
    with pytest.raises(KafkaTimeoutError):
        again._work(iter(EVENTS), kafka)  # type: ignore[arg-type]
    assert again.sent == len(kafka.sent) - 1
    assert an_event(2, 4) not in kafka.sent
    assert again.sent < len(EVENTS) - 1
