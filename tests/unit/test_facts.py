"""The fact of a ticket depends on the set of its events alone, and says what they say."""

import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.analytics.intake import NotASnapshot, snapshot_of
from server.analytics.rules import Happening, Rating, Snapshot, TicketFact, fold, responder
from tests.ticket_lives import BEGIN, Event, Life, a_life, told

chances = st.randoms(use_true_random=False)
AGENT, OTHER, TICKET = UUID(int=1), UUID(int=2), UUID(int=9)


def fact_of(life: Life) -> TicketFact:
    return fold(snapshot_of(event) for event in life)


def happenings(fact: TicketFact) -> list[tuple[str, Happening | Rating]]:
    """What the fact holds, in the words of the report."""
    one = [("closed", fact.closing), ("first_response_time", fact.response)]
    standing = [("resolution_time", fact.resolutions[-1])] if fact.resolution_stands else []
    return [
        *(("resolved", each) for each in fact.resolutions),
        *(("reopened", each) for each in fact.reopenings),
        *((f"rated_{each.rating}", each) for each in fact.ratings),
        *((figure, each) for figure, each in one if each is not None),
        *standing,
    ]


@given(chances)
def test_order_and_duplicates_make_no_difference(chance: random.Random) -> None:
    life = a_life(chance)
    mixed = [*life, *(chance.choice(life) for _ in range(chance.randrange(5)))]
    chance.shuffle(mixed)
    assert fact_of(mixed) == fact_of(life)


@given(chances)
def test_a_fact_says_what_the_types_of_the_events_say(chance: random.Random) -> None:
    life = a_life(chance)
    fact, expected = fact_of(life), told(life)
    said = [(figure, each.at, str(each.agent) if each.agent else None) for figure, each in happenings(fact)]
    meant = [(each.figure, each.at, each.agent) for each in expected.happenings if each.figure != "created"]
    assert sorted(said, key=repr) == sorted(meant, key=repr)
    assert [(each.at, str(each.agent)) for each in fact.assignments] == expected.assignees[1:]
    assert (fact.created_at, fact.priority) == (expected.statuses[0][0], expected.priority)


@given(chances)
def test_reopenings_follow_resolutions_and_no_time_goes_back(chance: random.Random) -> None:
    fact = fact_of(a_life(chance))
    assert len(fact.resolutions) - len(fact.reopenings) == fact.resolution_stands
    turns = [each for pair in zip(fact.resolutions, [*fact.reopenings, fact.closing], strict=False) for each in pair]
    times = [fact.created_at, *(each.at for each in turns if each is not None)]
    assert all(before <= after for before, after in pairwise(times))
    assert fact.settled_at is None or fact.settled_at >= max(times)


@given(chances)
def test_a_ticket_is_settled_exactly_when_it_is_out_of_the_backlog(chance: random.Random) -> None:
    life = a_life(chance)
    assert (fact_of(life).settled_at is None) == (told(life).statuses[-1][1] in ("open", "in_progress"))


@given(chances)
def test_an_event_that_is_missing_is_made_up_for_by_the_other_of_its_change(chance: random.Random) -> None:
    life = a_life(chance)
    changes = [event.change_id for event in life]
    kept = [
        event
        for event in life
        if event.event_type != Event.ticket_status_changed or changes.count(event.change_id) == 1
    ]
    assert fact_of(kept) == fact_of(life)


def a_snapshot(sequence: int, status: str = "open", **values: Any) -> Snapshot:  # noqa: ANN401
    """Made so many hours after the ticket was created, minus one."""
    at = BEGIN + timedelta(hours=sequence - 1)
    snapshot = Snapshot(TICKET, sequence, at, BEGIN, "high", status, None, None, None)
    return snapshot._replace(**values)


def hour(number: float) -> datetime:
    return BEGIN + timedelta(hours=number)


def test_a_life_that_is_seen_from_its_middle_has_the_resolution_that_stands_and_its_creation() -> None:
    seen = [
        a_snapshot(7, "resolved", assigned_to=AGENT, resolved_at=hour(2.5)),
        a_snapshot(8, "in_progress", assigned_to=AGENT),
    ]
    fact = fold(seen)
    assert fact.created_at == BEGIN
    assert fact.resolutions == (Happening(BEGIN + timedelta(hours=2.5), AGENT),)
    assert fact.reopenings == (Happening(BEGIN + timedelta(hours=7), AGENT),)
    assert not fact.resolution_stands


def test_a_second_resolution_shows_a_reopening_that_nobody_saw() -> None:
    seen = [
        a_snapshot(2, "resolved", resolved_at=hour(1)),
        a_snapshot(6, "resolved", resolved_at=hour(4), assigned_to=AGENT),
    ]
    fact = fold(seen)
    assert [each.at for each in fact.resolutions] == [hour(1), hour(4)]
    assert len(fact.reopenings) == 1
    assert fact.resolution_stands


def test_where_clocks_disagree_the_time_of_the_event_before_counts() -> None:
    seen = [
        a_snapshot(1),
        a_snapshot(2, "resolved", resolved_at=hour(1)),
        a_snapshot(3, "in_progress", occurred_at=hour(0.5)),
        a_snapshot(4, "closed", occurred_at=BEGIN - timedelta(hours=1)),
    ]
    fact = fold(seen)
    assert [each.at for each in (*fact.resolutions, *fact.reopenings, fact.closing) if each] == [hour(1)] * 3


def test_a_changed_rating_takes_the_place_of_the_one_before_and_a_later_resolution_has_its_own() -> None:
    seen = [
        a_snapshot(1, "resolved", assigned_to=AGENT, resolved_at=hour(0)),
        a_snapshot(2, "resolved", assigned_to=AGENT, resolved_at=hour(0), rating=1),
        a_snapshot(3, "closed", assigned_to=AGENT, resolved_at=hour(0), rating=2),
    ]
    assert fold(seen).ratings == (Rating(hour(2), AGENT, 2),)
    again = [
        a_snapshot(4, "in_progress", assigned_to=OTHER),
        a_snapshot(5, "resolved", assigned_to=OTHER, resolved_at=hour(4)),
        a_snapshot(6, "resolved", assigned_to=OTHER, resolved_at=hour(4), rating=5),
    ]
    expected = (Rating(hour(2), AGENT, 2), Rating(hour(5), OTHER, 5))
    assert fold([*seen, *again]).ratings == expected
    # The reopening need not have been seen, nor the resolution: the rating shows which one it is of.
    assert fold([*seen, again[-1]]).ratings == expected


def test_a_ticket_that_was_closed_without_a_resolution_has_one_rating() -> None:
    seen = [a_snapshot(2, "closed"), a_snapshot(3, "closed", rating=4), a_snapshot(4, "closed", rating=5)]
    assert fold(seen).ratings == (Rating(hour(3), None, 5),)


def test_a_rating_that_is_none_is_poison_by_the_name_of_the_field() -> None:
    event = a_creation()
    for rating in (0, 6, -1):
        event.MergeFrom(Event(event_type=Event.ticket_rated, rating=rating))
        with pytest.raises(NotASnapshot, match="rating"):
            snapshot_of(event)
    event.rating = 3
    assert snapshot_of(event).rating == 3
    event.event_type = Event.ticket_commented
    assert snapshot_of(event).rating is None


def test_the_owner_does_not_respond_to_oneself() -> None:
    assert responder(AGENT, "support_agent", OTHER) == AGENT
    assert responder(AGENT, "support_supervisor", OTHER) == AGENT
    assert responder(AGENT, "support_agent", AGENT) is None
    assert responder(AGENT, "customer", OTHER) is None
    assert responder(AGENT, "service", OTHER) is None


def a_creation() -> Event:
    """The first event of a life."""
    return a_life(random.Random(7))[0]  # noqa: S311


def incomplete(**cleared: str) -> Event:
    event = a_creation()
    for part, field in cleared.items():
        (event if part == "event" else event.ticket).ClearField(field)  # type: ignore[arg-type]
    return event


@pytest.mark.parametrize(
    ("part", "field"),
    [("event", "occurred_at"), ("ticket", "created_at"), ("ticket", "status"), ("ticket", "priority")],
)
def test_an_event_that_does_not_show_enough_is_poison_by_the_name_of_the_field(part: str, field: str) -> None:
    with pytest.raises(NotASnapshot, match=field):
        snapshot_of(incomplete(**{part: field}))


def test_times_are_utc() -> None:
    assert snapshot_of(a_creation()).occurred_at.tzinfo is UTC
