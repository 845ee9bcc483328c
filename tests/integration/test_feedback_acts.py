"""Rating a ticket: one row, an event for each change of it, and nothing else of the ticket."""

import asyncio
from datetime import timedelta
from itertools import pairwise
from uuid import uuid4

import pytest

from server.domain.events import HistoryEntry
from server.domain.feedback import Feedback
from server.domain.tickets import Ticket
from server.errors import FeedbackFinal, FeedbackNotFound, InvalidFields, ServiceError, TicketNotFound, TicketNotRatable
from server.usecases.feedback import get_ticket_feedback, rate_ticket
from tests.integration.test_concurrent_changes import check_history
from tests.integration.vocabulary import (
    CHANGEABLE_FOR,
    START,
    Desk,
    as_agent,
    as_customer,
    assign,
    events_of,
    history_of,
    look_at,
    move,
    open_ticket,
    owner_of,
    query,
    rate,
    said,
    say,
    types_of,
    whole,
)

AGENT = uuid4()
AN_HOUR = timedelta(hours=1)


async def a_resolved_ticket(desk: Desk) -> Ticket:
    """One that was the agent's when it was resolved, an hour ago."""
    ticket = await move(desk, await assign(desk, await open_ticket(desk), AGENT), "resolved")
    desk.clock.pass_by(AN_HOUR)
    return ticket


async def feedback_rows(desk: Desk) -> list[Feedback]:
    return [Feedback(**row) for row in await query(desk, "SELECT * FROM admin_service.ticket_feedback")]


async def test_a_rating_is_a_row_and_an_event_and_no_change_of_the_ticket(desk: Desk) -> None:
    ticket = await a_resolved_ticket(desk)
    now = START + AN_HOUR
    given = await rate(desk, ticket, 4, " Quick,\r\nbut cold. ")
    assert given == Feedback(ticket.id, 4, "Quick,\nbut cold.", AGENT, now, now)
    assert await feedback_rows(desk) == [given]
    event = (await events_of(desk, ticket))[-1]
    assert said(event) == {"rating": 4, "assigned_to": AGENT}
    assert (event["event_type"], event["is_internal"]) == ("ticket_rated", False)
    assert (event["actor_id"], event["actor_role"], event["occurred_at"]) == (ticket.user_id, "customer", now)
    assert "Quick" not in repr(event)
    assert await look_at(desk, ticket) == ticket


async def test_it_is_history_for_the_owner_and_for_staff(desk: Desk) -> None:
    ticket = await a_resolved_ticket(desk)
    await rate(desk, ticket, 4)
    seen: list[HistoryEntry] = []
    for caller in (owner_of(ticket), as_agent()):
        seen.append((await whole(history_of(desk, ticket, caller)))[-1])
    assert [(entry.event_type, entry.rating, entry.assigned_to) for entry in seen] == [("ticket_rated", 4, AGENT)] * 2


async def test_a_change_of_the_rating_takes_the_place_of_what_was_said(desk: Desk) -> None:
    ticket = await a_resolved_ticket(desk)
    first = await rate(desk, ticket, 1, "Cold.")
    desk.clock.pass_by(CHANGEABLE_FOR)
    changed = await rate(desk, ticket, 5)
    assert changed == first._replace(rating=5, remark=None, updated_at=desk.clock())
    assert await feedback_rows(desk) == [changed]
    desk.clock.pass_by(timedelta(microseconds=1))
    with pytest.raises(FeedbackFinal):
        await rate(desk, ticket, 4)
    events = await events_of(desk, ticket)
    assert [event["rating"] for event in events if event["event_type"] == "ticket_rated"] == [1, 5]
    check_history(events, ticket)


async def test_the_same_again_writes_nothing(desk: Desk) -> None:
    ticket = await a_resolved_ticket(desk)
    given = await rate(desk, ticket, 3, "So-so.")
    events = await events_of(desk, ticket)
    desk.clock.pass_by(10 * CHANGEABLE_FOR)
    assert await rate(desk, ticket, 3, "So-so. ") == given
    assert await events_of(desk, ticket) == events


async def test_a_later_resolution_is_rated_anew_as_the_work_of_who_has_it_then(desk: Desk) -> None:
    ticket = await a_resolved_ticket(desk)
    await rate(desk, ticket, 1)
    await say(desk, ticket)  # which reopens it
    with pytest.raises(TicketNotRatable):
        await rate(desk, ticket, 2)
    other = uuid4()
    await assign(desk, ticket, other)
    desk.clock.pass_by(10 * CHANGEABLE_FOR)
    await move(desk, ticket, "resolved")
    desk.clock.pass_by(AN_HOUR)
    given = await rate(desk, ticket, 5)
    assert given == Feedback(ticket.id, 5, None, other, desk.clock(), desk.clock())
    assert await feedback_rows(desk) == [given]


async def test_a_ticket_that_was_closed_without_a_resolution_can_be_rated(desk: Desk) -> None:
    ticket = await open_ticket(desk)
    await move(desk, ticket, "closed", owner_of(ticket))
    assert (await rate(desk, ticket, 2)).resolved_by is None


async def test_feedback_is_read_by_the_owner_and_by_staff_and_a_stranger_learns_nothing(desk: Desk) -> None:
    ticket = await a_resolved_ticket(desk)
    for caller in (owner_of(ticket), as_agent()):
        with pytest.raises(FeedbackNotFound):
            await get_ticket_feedback(desk.on, caller, str(ticket.id))
    given = await rate(desk, ticket, 4, "Quick.")
    for caller in (owner_of(ticket), as_agent()):
        assert await get_ticket_feedback(desk.on, caller, str(ticket.id)) == given
    with pytest.raises(TicketNotFound):
        await get_ticket_feedback(desk.on, as_customer(), str(ticket.id))
    with pytest.raises(TicketNotFound):
        await rate(desk, ticket, 1, caller=as_customer())


async def test_bad_fields_are_all_named(desk: Desk) -> None:
    for rating, remark in ((0, " "), (6, "x" * 2_001), (-1, "a\x00b")):
        with pytest.raises(InvalidFields) as refusal:
            await rate_ticket(desk.on, as_customer(), ticket_id="x", rating=rating, remark=remark)
        assert [each.field for each in refusal.value.violations] == ["ticket_id", "rating", "remark"]
    with pytest.raises(InvalidFields):
        await get_ticket_feedback(desk.on, as_customer(), "x")


# --- Many at once -----------------------------------------------------------------------------------------------------


async def test_fifty_ratings_at_once_are_one_row_and_as_many_events_as_changes(desk: Desk) -> None:
    ticket = await a_resolved_ticket(desk)
    # The clock stands still, and few say something else: only what the row says can tell who came first.
    answers = await asyncio.gather(*(rate(desk, ticket, 1 + n % 5) for n in range(50)))
    assert [answer.rating for answer in answers] == [1 + n % 5 for n in range(50)]
    events = await events_of(desk, ticket)
    ratings = [event["rating"] for event in events if event["event_type"] == "ticket_rated"]
    assert 5 <= len(ratings) <= 50
    assert all(before != now for before, now in pairwise(ratings)), ratings
    assert [row.rating for row in await feedback_rows(desk)] == ratings[-1:]
    check_history(events, await look_at(desk, ticket))


async def test_fifty_times_the_same_rating_at_once_is_one_event(desk: Desk) -> None:
    ticket = await a_resolved_ticket(desk)
    answers = await asyncio.gather(*(rate(desk, ticket, 3, "So-so.") for _ in range(50)))
    assert set(map(repr, answers)) == {repr(answers[0])}
    assert types_of(await events_of(desk, ticket)).count("ticket_rated") == 1


async def test_a_rating_never_follows_the_reopening_of_its_ticket(desk: Desk) -> None:
    for _ in range(5):
        ticket = await a_resolved_ticket(desk)
        ratings = (rate(desk, ticket, 1 + n % 5) for n in range(10))
        answers = await asyncio.gather(*ratings, move(desk, ticket, "in_progress"), return_exceptions=True)
        assert all(isinstance(each, TicketNotRatable) for each in answers if isinstance(each, ServiceError)), answers
        events = await events_of(desk, ticket)
        assert all(e["ticket"]["status"] == "resolved" for e in events if e["event_type"] == "ticket_rated")
        assert types_of(events)[-1] == "ticket_status_changed"
        check_history(events, await look_at(desk, ticket))
