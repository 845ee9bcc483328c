"""Who may say how content they are, when, and until when they may change their mind."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain import lifecycle
from server.domain.events import EventType, Reason
from server.domain.feedback import Feedback, Opinion, changeable_until, rate, rated
from server.domain.tickets import Status, Ticket
from server.errors import FeedbackFinal, ServiceError, TicketNotRatable
from tests.unit.vocabulary import AGENT, NOW, SUPERVISOR, a_ticket, after, an_agent, said, the_owner

WEEK = timedelta(days=7)
MOMENT = timedelta(microseconds=1)
GOOD, BAD = Opinion(5, "Quick!"), Opinion(1)


def say(
    ticket: Ticket, opinion: Opinion = GOOD, before: Feedback | None = None, now: datetime = NOW
) -> Feedback | None:
    return rate(ticket, before, opinion, WEEK, now)


def a_resolved_ticket() -> Ticket:
    return a_ticket(status="resolved", assigned_to=AGENT)


def given_feedback(**values: object) -> Feedback:
    """What the owner of `a_resolved_ticket` said an hour after its resolution."""
    ticket, at = a_resolved_ticket(), NOW - timedelta(hours=1)
    return Feedback(ticket.id, 5, "Quick!", AGENT, at, at)._replace(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("status", ["resolved", "closed"])
def test_a_resolved_or_closed_ticket_is_rated_as_the_work_of_whoever_has_it(status: str) -> None:
    ticket = a_ticket(status=status, assigned_to=AGENT)
    assert say(ticket) == Feedback(ticket.id, 5, "Quick!", AGENT, NOW, NOW)


def test_a_ticket_that_was_nobodys_is_rated_as_nobodys_work() -> None:
    feedback = say(a_ticket(status="closed"))
    assert feedback is not None
    assert feedback.resolved_by is None


@pytest.mark.parametrize("status", ["open", "in_progress"])
@pytest.mark.parametrize("before", [None, given_feedback()])
def test_a_ticket_that_is_worked_on_is_not_rated_whatever_was_said_before(status: str, before: Feedback | None) -> None:
    with pytest.raises(TicketNotRatable) as refusal:
        say(a_ticket(status=status), before=before)
    assert refusal.value.facts == {"ticket_id": str(a_ticket().id), "status": status}


def test_a_changed_rating_keeps_the_time_of_the_first_so_that_nobody_has_more_than_a_week() -> None:
    before = given_feedback()
    assert say(a_resolved_ticket(), BAD, before) == before._replace(rating=1, remark=None, updated_at=NOW)


@pytest.mark.parametrize("opinion", [Opinion(4, "Quick!"), Opinion(5, "Slow!"), Opinion(5)])
def test_another_rating_another_remark_and_no_remark_are_changes(opinion: Opinion) -> None:
    assert say(a_resolved_ticket(), opinion, given_feedback()) is not None


@pytest.mark.parametrize("age", [timedelta(0), WEEK, 2 * WEEK])
def test_the_same_again_changes_nothing_even_when_it_could_not_be_changed_any_more(age: timedelta) -> None:
    ticket = a_resolved_ticket()._replace(resolved_at=NOW - 3 * WEEK)
    assert say(ticket, GOOD, given_feedback(rated_at=NOW - age)) is None


def test_a_rating_can_be_changed_for_a_week_and_not_a_moment_longer() -> None:
    before = given_feedback()
    assert say(a_resolved_ticket(), BAD, before, now=before.rated_at + WEEK) is not None
    with pytest.raises(FeedbackFinal) as refusal:
        say(a_resolved_ticket(), BAD, before, now=before.rated_at + WEEK + MOMENT)
    assert refusal.value.facts == {
        "ticket_id": str(before.ticket_id),
        "changeable_until": "2026-03-11T04:06:07.891011Z",
    }


def test_a_later_resolution_is_rated_anew_however_old_the_rating_before_is() -> None:
    ticket = a_resolved_ticket()._replace(assigned_to=SUPERVISOR, resolved_at=NOW - MOMENT)
    before = given_feedback(rated_at=NOW - 2 * WEEK, updated_at=NOW - 2 * WEEK)
    assert say(ticket, GOOD, before) == Feedback(ticket.id, 5, "Quick!", SUPERVISOR, NOW, NOW)


def test_a_ticket_that_was_reopened_and_then_closed_without_a_resolution_is_rated_anew() -> None:
    ticket = a_ticket(status="closed", assigned_to=SUPERVISOR, updated_at=NOW - MOMENT)
    before = given_feedback(rated_at=NOW - 2 * WEEK)
    feedback = say(ticket, BAD, before)
    assert feedback is not None
    assert (feedback.resolved_by, feedback.rated_at) == (SUPERVISOR, NOW)
    assert say(ticket, GOOD, feedback, NOW + WEEK) == feedback._replace(
        rating=5, remark="Quick!", updated_at=NOW + WEEK
    )


def test_a_clock_that_is_behind_that_of_the_resolution_gives_nobody_a_second_week() -> None:
    ticket = a_resolved_ticket()._replace(resolved_at=NOW + timedelta(seconds=1))
    feedback = say(ticket)
    assert feedback is not None
    assert feedback.rated_at == ticket.resolved_at
    changed = say(ticket, BAD, feedback, NOW + timedelta(seconds=2))
    assert changed is not None
    assert changed.rated_at == feedback.rated_at


def test_its_event_tells_the_rating_and_whose_it_is_and_nothing_of_the_remark() -> None:
    event = rated(given_feedback())
    assert said(event) == {"event_type": EventType.TICKET_RATED, "rating": 5, "assigned_to": AGENT}


# --- Any sequence of acts ---------------------------------------------------------------------------------------------


Act = tuple[str, int, float]
"""What is done, with which rating, and how many days after the act before."""


class Rated(NamedTuple):
    """A rating that was taken: the ticket, and what it said before and says now."""

    ticket: Ticket
    before: Feedback | None
    now: Feedback
    at: datetime


_acts = st.lists(
    st.tuples(
        st.sampled_from(["rate", "resolve", "reopen", "close", "take", "give"]),
        st.integers(1, 5),
        st.floats(0.001, 5),
    ),
    max_size=30,
)


def live(acts: Sequence[Act]) -> list[Rated]:
    """The ratings that were taken, of one ticket that these acts are tried on; what is refused changes nothing."""
    ticket, feedback, now = a_ticket(), None, NOW
    found: list[Rated] = []
    for kind, number, days in acts:
        now += timedelta(days=days)
        try:
            if kind == "rate":
                new = rate(ticket, feedback, Opinion(number), WEEK, now)
                found += [Rated(ticket, feedback, new, now)] if new else []
                feedback = new or feedback
            else:
                ticket = after(ticket, _change(ticket, kind, now), now)
        except ServiceError:
            continue
    return found


def _change(ticket: Ticket, kind: str, now: datetime) -> lifecycle.Change | None:
    if kind in ("take", "give"):
        return lifecycle.assign(ticket, AGENT if kind == "take" else SUPERVISOR, Reason.BY_SUPERVISOR)
    wanted = {"resolve": Status.RESOLVED, "reopen": Status.IN_PROGRESS, "close": Status.CLOSED}[kind]
    caller = the_owner() if kind == "close" else an_agent()
    return lifecycle.change_status(ticket, wanted, None, caller, now)


lives = _acts.map(live)


@given(lives)
def test_a_rating_is_about_the_last_resolution_and_is_theirs_who_had_the_ticket_then(ratings: list[Rated]) -> None:
    for ticket, _, now, at in ratings:
        assert ticket.status in ("resolved", "closed")
        assert now.resolved_by == ticket.assigned_to
        assert (ticket.resolved_at or ticket.updated_at) <= now.rated_at <= now.updated_at == at


@given(lives)
def test_nothing_is_changed_later_than_a_week_after_it_was_first_said(ratings: list[Rated]) -> None:
    assert all(at <= changeable_until(now, WEEK) for _, _, now, at in ratings)


@given(lives)
def test_a_rating_that_was_taken_says_something_new_or_is_about_another_resolution(ratings: list[Rated]) -> None:
    for ticket, before, now, _ in ratings:
        if before and before.rated_at == now.rated_at:
            assert before.rating != now.rating
        elif before:
            assert (ticket.resolved_at or ticket.updated_at) > before.rated_at
