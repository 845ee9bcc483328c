"""Tickets that staff leave alone are flagged once, in time; what staff do next takes the flag away."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from server.db.database import PoolLimits
from server.db.statement import Statement
from server.domain.tickets import Priority, Ticket
from server.errors import InvalidFields
from server.usecases import attention
from server.usecases.lists import PageRequest
from tests.integration.staffing import (
    AWAY_TOO_LONG,
    MOMENT,
    PATIENCE,
    flag,
    give_away,
    hire,
    plenty,
    reassign,
    set_off,
    ticket_of,
    unattended,
)
from tests.integration.vocabulary import (
    START,
    Desk,
    as_agent,
    assign,
    by_triage,
    events_of,
    history_of,
    look_at,
    move,
    note,
    open_ticket,
    owner_of,
    put_tickets,
    query,
    said,
    say,
    stored_ticket,
    types_of,
    until,
    whole,
)

PRIORITIES = pytest.mark.parametrize("priority", list(Priority))
SWEEPERS = 8


async def flagged_ticket(desk: Desk) -> Ticket:
    """Opened, given to an agent and then left alone."""
    ticket = await assign(desk, await open_ticket(desk, priority="urgent"), uuid4())
    desk.clock.pass_by(PATIENCE[Priority.URGENT])
    assert await flag(desk) == 1
    return await look_at(desk, ticket)


async def test_a_ticket_that_somebody_holds_keeps_no_less_urgent_one_from_being_flagged(desk: Desk) -> None:
    held, free = await open_ticket(desk, priority="urgent"), await open_ticket(desk, priority="high")
    desk.clock.pass_by(PATIENCE[Priority.HIGH])
    async with (
        await psycopg.AsyncConnection.connect(desk.dsn) as holder,
        Desk.at(desk.dsn, PoolLimits(statement_timeout=0.2)) as impatient,
    ):
        impatient.clock.now = desk.clock()
        await holder.execute("SELECT FROM admin_service.support_tickets WHERE id = %s FOR UPDATE", [held.id])
        assert await flag(impatient) == 1
    assert (await look_at(desk, free)).flagged_at == desk.clock()
    assert await flag(desk) == 1


# --- When -------------------------------------------------------------------------------------------------------------


@PRIORITIES
async def test_a_ticket_is_flagged_when_the_patience_of_its_priority_is_over_and_not_sooner(
    desk: Desk, priority: Priority
) -> None:
    ticket = await open_ticket(desk, priority=priority)
    desk.clock.pass_by(PATIENCE[priority] - MOMENT)
    assert await flag(desk) == 0
    assert await attention.oldest_unflagged(desk.on, PATIENCE, desk.clock()) is None
    desk.clock.pass_by(MOMENT)
    assert await attention.oldest_unflagged(desk.on, PATIENCE, desk.clock()) == desk.clock()
    assert await flag(desk) == 1
    assert (await look_at(desk, ticket)).flagged_at == desk.clock()
    assert await flag(desk) == 0
    assert await attention.oldest_unflagged(desk.on, PATIENCE, desk.clock()) is None


async def test_a_flag_moves_neither_version_nor_update_and_is_told_by_the_service_itself(desk: Desk) -> None:
    before = await open_ticket(desk)
    desk.clock.pass_by(PATIENCE[Priority.MEDIUM])
    await flag(desk)
    after = await look_at(desk, before)
    assert after == before._replace(flagged_at=desk.clock())
    *_, event = await events_of(desk, after)
    assert (event["event_type"], said(event)) == ("ticket_flagged", {"reason": "unattended"})
    assert (event["sequence"], event["position"], event["actor_role"], event["actor_id"].int) == (2, 2, "service", 0)
    assert event["ticket"]["flagged_at"] is not None
    assert [entry.event_type for entry in await whole(history_of(desk, after, owner_of(after)))][-1] == "ticket_flagged"


@pytest.mark.parametrize("status", ["resolved", "closed"])
async def test_what_is_done_is_not_flagged(desk: Desk, status: str) -> None:
    await move(desk, await open_ticket(desk), status)
    desk.clock.pass_by(timedelta(days=30))
    assert await flag(desk) == 0


# --- Activity ---------------------------------------------------------------------------------------------------------

Act = Callable[[Desk, Ticket], Awaitable[object]]


async def resolve_and_hear_from_the_owner(desk: Desk, ticket: Ticket) -> None:
    await move(desk, ticket, "resolved")
    desk.clock.pass_by(timedelta(days=1))
    await say(desk, ticket)


async def give_it_away(desk: Desk, ticket: Ticket) -> None:
    assert ticket.assigned_to is not None
    await hire(desk)
    await set_off(desk, await hire(desk, ticket.assigned_to))
    desk.clock.pass_by(AWAY_TOO_LONG)
    assert await give_away(desk) == 1


ACTIVITY: dict[str, Act] = {
    "an answer": lambda desk, ticket: say(desk, ticket, as_agent()),
    "an internal note": note,
    "a status": lambda desk, ticket: move(desk, ticket, "open"),
    "an assignment": lambda desk, ticket: assign(desk, ticket, uuid4()),
    "a reassignment": lambda desk, ticket: reassign(desk, ticket, to=uuid4()),
    "a reassignment by the sweep": give_it_away,
    "a resolution": lambda desk, ticket: move(desk, ticket, "resolved"),
    "a reopening by the owner": resolve_and_hear_from_the_owner,
    "a closing by the owner": lambda desk, ticket: move(desk, ticket, "closed", owner_of(ticket)),
}
NO_ACTIVITY: dict[str, Act] = {
    "the owner's comment": say,
    "the status that it has": lambda desk, ticket: move(desk, ticket, "in_progress"),
    "the assignee that it has": lambda desk, ticket: assign(desk, ticket, ticket.assigned_to or uuid4()),
}


@pytest.mark.parametrize("act", ACTIVITY)
async def test_activity_takes_the_flag_away_and_the_waiting_begins_anew(desk: Desk, act: str) -> None:
    ticket = await flagged_ticket(desk)
    await ACTIVITY[act](desk, ticket)
    after = await look_at(desk, ticket)
    assert after.flagged_at is None
    assert await whole(unattended(desk)) == []
    (row,) = await query(desk, "SELECT unattended_since FROM admin_service.support_tickets WHERE id = %s", ticket.id)
    assert row["unattended_since"] == desk.clock()
    desk.clock.pass_by(PATIENCE[Priority.URGENT])
    assert await flag(desk) == (after.status in {"open", "in_progress"})


@pytest.mark.parametrize("act", NO_ACTIVITY)
async def test_what_is_no_activity_leaves_the_flag(desk: Desk, act: str) -> None:
    ticket = await flagged_ticket(desk)
    await NO_ACTIVITY[act](desk, ticket)
    assert (await look_at(desk, ticket)).flagged_at == ticket.flagged_at
    assert await whole(unattended(desk)) == [ticket]


async def test_the_owners_comments_do_not_put_the_flag_off(desk: Desk) -> None:
    ticket = await open_ticket(desk)
    desk.clock.pass_by(PATIENCE[Priority.MEDIUM] - MOMENT)
    await say(desk, ticket)
    desk.clock.pass_by(MOMENT)
    assert await flag(desk) == 1


# --- Races ------------------------------------------------------------------------------------------------------------


class Interrupted(Desk):
    """A desk at which something happens between the sweep's look and its flag."""

    async def sweeping(self, meanwhile: Callable[[], Awaitable[object]]) -> int:
        """How many the sweep flags then."""
        fetch_one = self.db.fetch_one

        async def late(statement: Statement, values: Any, make: Any) -> Any:  # noqa: ANN401
            await meanwhile()
            return await fetch_one(statement, values, make)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.db, "fetch_one", late)
            return await flag(self)


@pytest.mark.parametrize(
    "act", ["an answer", "an internal note", "a status", "an assignment", "a closing by the owner"]
)
async def test_activity_that_arrives_meanwhile_wins(desk: Desk, act: str) -> None:
    ticket = await assign(desk, await open_ticket(desk, priority="urgent"), uuid4())
    desk.clock.pass_by(PATIENCE[Priority.URGENT])
    async with Desk.at(desk.dsn) as another:
        another.clock.pass_by(desk.clock() - START)
        assert await Interrupted(*desk).sweeping(lambda: ACTIVITY[act](another, ticket)) == 0
    assert "ticket_flagged" not in types_of(await events_of(desk, ticket))
    assert (await look_at(desk, ticket)).flagged_at is None


async def is_waiting(desk: Desk) -> bool:
    """Whether somebody waits for a lock."""
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    return bool(await query(desk, waiting))


async def test_an_answer_that_is_being_written_wins_too(desk: Desk) -> None:
    """The sweep waits for the ticket's lock, and looks again at what is there then."""
    ticket = await open_ticket(desk, priority="urgent")
    desk.clock.pass_by(PATIENCE[Priority.URGENT])
    answering = b"UPDATE admin_service.support_tickets SET unattended_since = %s WHERE id = %s"
    async with await psycopg.AsyncConnection.connect(desk.dsn) as writer:
        await writer.execute(answering, [desk.clock(), ticket.id])
        sweeping = asyncio.create_task(flag(desk))
        await until(partial(is_waiting, desk))
    assert await sweeping == 0
    assert types_of(await events_of(desk, ticket)) == ["ticket_created"]


async def test_eight_sweepers_at_once_flag_each_ticket_once_among_owners_who_comment(desk: Desk) -> None:
    tickets = [await open_ticket(desk, priority=priority) for priority in Priority for _ in range(30)]
    desk.clock.pass_by(timedelta(days=1))
    async with AsyncExitStack() as stack:
        desks = [await stack.enter_async_context(Desk.at(desk.dsn, PoolLimits(size=1))) for _ in range(SWEEPERS)]
        for one in desks:
            one.clock.pass_by(timedelta(days=1))
        shares, _ = await asyncio.gather(
            asyncio.gather(*map(flag, desks)), asyncio.gather(*(say(desk, ticket) for ticket in tickets))
        )
    assert sum(shares) == len(tickets)
    assert sum(share > 0 for share in shares) > 1, shares
    for ticket in tickets:
        events = await events_of(desk, ticket)
        assert sorted(types_of(events)) == ["ticket_commented", "ticket_created", "ticket_flagged"]
        assert [event["sequence"] for event in events] == [event["position"] for event in events] == [1, 2, 3]


async def test_a_round_ends_when_its_time_is_over_the_most_urgent_first(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "TICKETS_AT_ONCE", 3)
    for priority in [*Priority] * 4:
        await open_ticket(desk, priority=priority)
    desk.clock.pass_by(timedelta(days=1))
    looks = iter([1.0] * 5 + [0.0] * 10)
    assert await attention.flag_unattended(desk.on, PATIENCE, desk.clock(), lambda: next(looks)) == 5
    assert [ticket.priority for ticket in await whole(unattended(desk))] == ["urgent"] * 4 + ["high"]
    assert await attention.flag_unattended(desk.on, PATIENCE, desk.clock(), plenty) == 11


# --- The list ---------------------------------------------------------------------------------------------------------


async def test_the_list_has_the_flagged_in_triage_order_page_by_page(desk: Desk) -> None:
    agent = uuid4()
    rows = [
        stored_ticket(
            priority=priority,
            flagged_at=START if number % 3 else None,
            assigned_to=agent if number % 2 else None,
            created_at=START + timedelta(minutes=37 * number % 11),
            status="in_progress" if number % 2 else "open",
        )
        for number in range(12)
        for priority in Priority
    ]
    await put_tickets(desk, rows)
    flagged = by_triage([row for row in rows if row.flagged_at])
    assert await whole(unattended(desk), [3, 5]) == flagged
    some = [row for row in flagged if row.priority in {"urgent", "low"}]
    assert await whole(unattended(desk, "urgent", "low"), [2, 7]) == some
    theirs = [row for row in flagged if row.assigned_to == agent]
    assert await whole(unattended(desk, assigned_to=str(agent)), [4]) == theirs


async def test_bad_filters_of_the_list_are_named(desk: Desk) -> None:
    with pytest.raises(InvalidFields) as refused:
        await unattended(desk, "soon", assigned_to="x")(PageRequest(-1, "x"))
    assert {v.field for v in refused.value.violations} == {"priority", "assigned_to", "page_size", "page_token"}


async def test_somebodys_flagged_tickets_go_with_one_call(desk: Desk) -> None:
    agent = await hire(desk)
    left = [await ticket_of(desk, agent, "urgent") for _ in range(3)]
    desk.clock.pass_by(PATIENCE[Priority.URGENT])
    assert await flag(desk) == 3
    fresh = await ticket_of(desk, agent, "urgent")
    somebody = uuid4()
    results = await reassign(desk, of=agent, to=somebody, flagged=True)
    assert {row.ticket_id for row in results.rows} == {str(ticket.id) for ticket in left}
    assert (await look_at(desk, fresh)).assigned_to == agent.id
