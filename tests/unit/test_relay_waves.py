"""The order in which the relay sends: one event per ticket at a time, each ticket's in their order."""

from collections import Counter
from uuid import UUID, uuid5

from hypothesis import given
from hypothesis import strategies as st

from server.workers.event_message import EventMessage
from server.workers.relay import Outbound, _waves

NOTHING = EventMessage(b"", b"", [])


def outbound(tickets: list[int]) -> list[Outbound]:
    """Events of these tickets, numbered in the order in which the database gives them."""
    return [
        Outbound(uuid5(UUID(int=0), str(number)), UUID(int=ticket), NOTHING) for number, ticket in enumerate(tickets)
    ]


batches = st.lists(st.integers(0, 5), max_size=40).map(outbound)


@given(batches)
def test_every_event_is_in_exactly_one_wave(events: list[Outbound]) -> None:
    assert Counter(event.event_id for wave in _waves(events) for event in wave) == Counter(e.event_id for e in events)


@given(batches)
def test_a_wave_holds_at_most_one_event_of_a_ticket(events: list[Outbound]) -> None:
    for wave in _waves(events):
        assert len({event.ticket_id for event in wave}) == len(wave) > 0


@given(batches)
def test_a_tickets_events_keep_their_order(events: list[Outbound]) -> None:
    sent = [event for wave in _waves(events) for event in wave]
    for ticket in {event.ticket_id for event in events}:
        assert [e for e in sent if e.ticket_id == ticket] == [e for e in events if e.ticket_id == ticket]


@given(batches)
def test_no_ticket_waits_for_longer_than_its_own_events_need(events: list[Outbound]) -> None:
    most = max(Counter(event.ticket_id for event in events).values(), default=0)
    assert len(list(_waves(events))) == most
