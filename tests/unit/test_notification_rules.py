"""Who is told of what: held against tickets that live by the support service's own rules."""

import random
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.callers import STAFF, Caller, Role
from server.domain.tickets import Priority, Status
from server.notification import rules
from server.notification.intake import event_of
from server.notification.rules import Audience, Event, Mutes
from server.notification.words import Channel, Rank, Type
from tests.unit.ticket_story import TicketStory, agent, customer, supervisor
from tests.unit.vocabulary import NOW, a_caller

OWNER, WORKER, BOSS, COLLEAGUE = customer(), agent(), supervisor(), agent()
ALL_STAFF = [WORKER.id, BOSS.id, COLLEAGUE.id]


def a_story(owner: Caller = OWNER, **fields: object) -> TicketStory:
    """A ticket that was just opened."""
    return TicketStory(owner, NOW, **fields)  # type: ignore[arg-type]


def events_of(story: TicketStory) -> list[Event]:
    """The ticket's events as the rules see them."""
    return [event_of(message) for message in story.events]


def told_of(story: TicketStory, staff: Sequence[UUID] = ALL_STAFF) -> list[tuple[Type, set[UUID]]]:
    """What is told of the ticket's last change, and to whom."""
    events = events_of(story)
    last = [event for event in events if event.change_id == events[-1].change_id and rules.tells(event)]
    return [(event.type, set(rules.told(event, staff))) for event in last]


# --- The table of Notification.Type, row by row -----------------------------------------------------------------------


def test_a_new_ticket_is_told_to_all_staff() -> None:
    assert told_of(a_story()) == [(Type.TICKET_CREATED, set(ALL_STAFF))]


def test_a_ticket_that_a_staff_member_opens_is_told_to_the_others() -> None:
    assert told_of(a_story(by=BOSS)) == [(Type.TICKET_CREATED, {WORKER.id, COLLEAGUE.id})]
    assert told_of(a_story(BOSS)) == [(Type.TICKET_CREATED, {WORKER.id, COLLEAGUE.id})]


def test_an_assignment_is_told_to_the_owner_once_though_the_status_changes_too() -> None:
    assert told_of(a_story().assign(WORKER)) == [(Type.TICKET_ASSIGNED, {OWNER.id})]
    assert told_of(a_story().assign(WORKER).assign(BOSS, COLLEAGUE)) == [(Type.TICKET_ASSIGNED, {OWNER.id})]


def test_a_comment_by_staff_is_told_to_the_owner() -> None:
    assert told_of(a_story().comment(WORKER)) == [(Type.TICKET_COMMENTED, {OWNER.id})]


def test_a_comment_by_the_owner_is_told_to_the_assignee_or_to_all_staff_while_there_is_none() -> None:
    assert told_of(a_story().comment(OWNER)) == [(Type.TICKET_COMMENTED, set(ALL_STAFF))]
    assert told_of(a_story().assign(WORKER).comment(OWNER)) == [(Type.TICKET_COMMENTED, {WORKER.id})]


def test_a_comment_that_reopens_is_told_once() -> None:
    reopened = a_story().assign(WORKER).move(WORKER, Status.RESOLVED).comment(OWNER)
    assert len(reopened.events) == 7
    assert told_of(reopened) == [(Type.TICKET_COMMENTED, {WORKER.id})]


def test_a_change_of_status_a_resolution_and_a_closing_are_told_to_the_owner() -> None:
    story = a_story().move(WORKER, Status.IN_PROGRESS)
    assert told_of(story) == [(Type.TICKET_STATUS_CHANGED, {OWNER.id})]
    assert told_of(story.move(WORKER, Status.RESOLVED)) == [(Type.TICKET_RESOLVED, {OWNER.id})]
    assert told_of(story.move(BOSS, Status.CLOSED)) == [(Type.TICKET_CLOSED, {OWNER.id})]


def test_nobody_is_told_what_they_did_themselves() -> None:
    assert told_of(a_story().move(OWNER, Status.CLOSED)) == [(Type.TICKET_CLOSED, set())]


def test_staff_who_own_a_ticket_are_told_as_its_owner() -> None:
    assert told_of(a_story(BOSS).comment(WORKER)) == [(Type.TICKET_COMMENTED, {BOSS.id})]
    assert told_of(a_story(BOSS).assign(WORKER).comment(BOSS)) == [(Type.TICKET_COMMENTED, {WORKER.id})]


def test_an_owner_who_is_the_assignee_tells_nobody_by_commenting() -> None:
    assert told_of(a_story(BOSS).assign(BOSS).comment(BOSS)) == [(Type.TICKET_COMMENTED, set())]


def test_a_comment_by_a_service_is_told_to_the_owner() -> None:
    assert told_of(a_story().comment(a_caller("service"))) == [(Type.TICKET_COMMENTED, {OWNER.id})]


def test_a_closing_by_the_service_itself_is_told_to_the_owner() -> None:
    itself = Caller(UUID(int=0), Role.SERVICE)
    story = a_story().move(WORKER, Status.RESOLVED).move(itself, Status.CLOSED)
    assert told_of(story) == [(Type.TICKET_CLOSED, {OWNER.id})]


# --- Whatever happens to a ticket -------------------------------------------------------------------------------------


@st.composite
def stories(draw: st.DrawFn) -> TicketStory:
    """A ticket with any acts that the support service allows."""
    owner = draw(st.sampled_from([OWNER, BOSS]))
    story = a_story(owner, priority=draw(st.sampled_from(Priority)))
    chance = random.Random(draw(st.integers(0, 2**32)))  # noqa: S311
    for _ in range(draw(st.integers(0, 12))):
        story.live(chance, owner, [WORKER, BOSS, COLLEAGUE])
    return story


@given(stories())
def test_each_change_has_one_event_that_tells_it(story: TicketStory) -> None:
    events = events_of(story)
    assert Counter(event.change_id for event in events if rules.tells(event)) == dict.fromkeys(
        (event.change_id for event in events), 1
    )


@given(stories(), st.sets(st.sampled_from(ALL_STAFF)))
def test_whoever_is_told_is_concerned_and_did_not_do_it(story: TicketStory, staff: set[UUID]) -> None:
    for event in events_of(story):
        told = rules.told(event, staff)
        assert len(told) == len(set(told))
        assert event.actor_id not in told
        assert set(told) <= {event.owner_id, event.assignee_id, *staff}
        if rules.audience(event) is Audience.OWNER:
            assert set(told) <= {event.owner_id}


@given(stories())
def test_staff_are_known_from_what_they_do_and_nobody_by_being_assigned_a_ticket(story: TicketStory) -> None:
    for event in events_of(story):
        seen = rules.sighting(event)
        assert (seen.user_id, seen.at) == (event.actor_id, event.occurred_at)
        assert seen.role is (event.actor_role if event.actor_role in STAFF else None)


@given(st.sampled_from(Type), st.sets(st.sampled_from(Channel)), st.sets(st.sampled_from(Type)))
def test_what_is_muted_does_not_come_and_the_rest_does(type_: Type, channels: set[Channel], types: set[Type]) -> None:
    open_ = rules.channels(type_, Mutes(frozenset(channels), frozenset(types)))
    assert open_ == (set() if type_ in types else set(Channel) - channels)


@pytest.mark.parametrize("priority", Priority)
def test_staff_get_at_once_what_presses_and_owners_everything(priority: Priority) -> None:
    (event,) = events_of(a_story(priority=priority))
    assert rules.rank(event, OWNER.id) is Rank.SINGLE
    presses = priority in (Priority.HIGH, Priority.URGENT)
    assert rules.rank(event, WORKER.id) is (Rank.PRESSING if presses else Rank.DIGEST)


def test_news_are_news_until_they_are_too_old() -> None:
    (event,) = events_of(a_story())
    week = timedelta(days=7)
    assert rules.is_news(event, NOW + week, week)
    assert not rules.is_news(event, NOW + week + timedelta(microseconds=1), week)
    # Its clock may be ahead of this one.
    assert rules.is_news(event, NOW - timedelta(minutes=5), week)


def test_staff_count_as_such_until_they_were_not_seen_for_long() -> None:
    person, within = uuid4(), timedelta(days=30)
    assert rules.staff_at({person: NOW}, NOW + within, within) == [person]
    assert rules.staff_at({person: NOW}, NOW + within + timedelta(microseconds=1), within) == []
