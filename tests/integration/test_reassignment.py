"""Tickets change hands, each by itself: a supervisor's many at once, and those of whoever is away for too long."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from server.db import statements
from server.db.database import PoolLimits
from server.domain.roster import Agent
from server.domain.tickets import Ticket
from server.errors import InvalidFields
from server.usecases import reassignment
from tests.integration.staffing import (
    AWAY_TOO_LONG,
    MOMENT,
    give_away,
    hire,
    look_up,
    plenty,
    reasons_in,
    reassign,
    set_off,
    ticket_of,
)
from tests.integration.vocabulary import (
    START,
    Desk,
    as_supervisor,
    assign,
    events_of,
    look_at,
    move,
    open_ticket,
    said,
    types_of,
)

SWEEPERS = 8


async def holders_of(desk: Desk, tickets: list[Ticket]) -> list[UUID | None]:
    return [(await look_at(desk, ticket)).assigned_to for ticket in tickets]


async def away_with(desk: Desk, count: int, priority: str | None = None) -> tuple[Agent, list[Ticket]]:
    """Somebody who goes away, and the tickets that they leave."""
    agent = await hire(desk, capacity=count)
    tickets = [await ticket_of(desk, agent, priority) for _ in range(count)]
    return await set_off(desk, agent), tickets


# --- By a supervisor --------------------------------------------------------------------------------------------------


async def test_named_tickets_go_to_whom_the_supervisor_names_each_as_one_change(desk: Desk) -> None:
    agent, boss = await hire(desk), as_supervisor()
    taken, fresh = await assign(desk, await open_ticket(desk), uuid4()), await open_ticket(desk)
    results = await reassign(desk, taken, str(fresh.id).upper(), to=agent.id, by=boss)
    assert [row.ticket_id for row in results.rows] == [str(taken.id), str(fresh.id).upper()]
    assert [(row.assigned_to, row.reassigned, row.error) for row in results.rows] == [(agent.id, True, None)] * 2
    assert not results.more
    *_, event = await events_of(desk, taken)
    told = {"assigned_to": agent.id, "previous_assignee": taken.assigned_to, "reason": "by_supervisor"}
    assert (said(event), event["actor_id"]) == (told, boss.id)
    assert types_of(await events_of(desk, fresh)) == ["ticket_created", "ticket_assigned", "ticket_status_changed"]


async def test_what_one_ticket_fails_with_keeps_no_other_one(desk: Desk) -> None:
    full, former = await hire(desk, capacity=1), await hire(desk, active=False)
    tickets = [await open_ticket(desk) for _ in range(2)]
    solved = await move(desk, await open_ticket(desk), "resolved")
    missing = str(uuid4())
    results = await reassign(desk, missing, solved, *tickets, to=full.id)
    assert reasons_in(results) == ["TICKET_NOT_FOUND", "TICKET_NOT_ASSIGNABLE", None, "AGENT_AT_CAPACITY"]
    assert [row.reassigned for row in results.rows] == [False, False, True, False]
    assert [row.assigned_to for row in results.rows] == [None, None, full.id, None]
    assert reasons_in(await reassign(desk, tickets[1], to=former.id)) == ["AGENT_NOT_ACTIVE"]
    assert await holders_of(desk, tickets) == [full.id, None]


async def test_a_ticket_that_is_theirs_already_is_not_changed(desk: Desk) -> None:
    agent = await hire(desk, capacity=1)
    ticket = await ticket_of(desk, agent)
    (row,) = (await reassign(desk, ticket, to=agent.id)).rows
    assert (row.assigned_to, row.reassigned, row.error) == (agent.id, False, None)
    assert await look_at(desk, ticket) == ticket


async def test_with_nobody_named_each_goes_to_whoever_can_bear_most_then(desk: Desk) -> None:
    two, five, six = [await hire(desk, capacity=capacity) for capacity in (2, 5, 6)]
    tickets = [await open_ticket(desk) for _ in range(13)]
    results = await reassign(desk, *tickets)
    first, second = sorted([five.id, six.id])
    # 2, 5 and 6 to spare: six comes to five, then they take turns, by their ids, until two can bear as much.
    assert [row.assigned_to for row in results.rows[:7]] == [six.id, first, second, first, second, first, second]
    assert reasons_in(results) == [None] * 13
    assert [(await look_up(desk, agent)).spare for agent in (two, five, six)] == [0, 0, 0]
    assert reasons_in(await reassign(desk, await open_ticket(desk))) == ["NO_AGENT_AVAILABLE"]


async def test_nobody_gets_a_ticket_back_nor_one_who_does_not_take_on_work(desk: Desk) -> None:
    holder, busy, away, former = [await hire(desk) for _ in range(4)]
    await set_off(desk, busy, "busy")
    await set_off(desk, away, until=START + timedelta(hours=1))
    await hire(desk, former.id, active=False)
    await hire(desk, capacity=0)
    ticket = await ticket_of(desk, holder)
    assert reasons_in(await reassign(desk, ticket)) == ["NO_AGENT_AVAILABLE"]
    assert await look_at(desk, ticket) == ticket
    desk.clock.pass_by(timedelta(hours=1))
    (row,) = (await reassign(desk, ticket)).rows
    assert row.assigned_to == away.id


async def test_all_tickets_of_one_person_go_in_triage_order_and_what_is_done_stays(desk: Desk) -> None:
    agent, heir = await hire(desk), await hire(desk)
    low, urgent = await ticket_of(desk, agent, "low"), await ticket_of(desk, agent, "urgent")
    back = await move(desk, await ticket_of(desk, agent), "open")
    solved = await move(desk, await ticket_of(desk, agent), "resolved")
    results = await reassign(desk, of=agent)
    assert [row.ticket_id for row in results.rows] == [str(ticket.id) for ticket in (urgent, back, low)]
    assert await holders_of(desk, [low, urgent, back, solved]) == [heir.id] * 3 + [agent.id]


async def test_of_one_persons_tickets_so_many_are_looked_at_and_the_answer_says_whether_there_are_more(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reassignment, "MOST_OF_ONE", 3)
    agent, heir = await hire(desk), await hire(desk)
    for _ in range(5):
        await ticket_of(desk, agent)
    assert [(len(r.rows), r.more) for r in [await reassign(desk, of=agent) for _ in range(3)]] == [
        (3, True),
        (2, False),
        (0, False),
    ]
    assert (await look_up(desk, heir)).open_tickets == 5


async def test_only_flagged_leaves_the_others_out(desk: Desk) -> None:
    agent = await hire(desk)
    ticket = await ticket_of(desk, agent)
    (row,) = (await reassign(desk, ticket, to=uuid4(), flagged=True)).rows
    assert (row.assigned_to, row.reassigned, row.error) == (agent.id, False, None)


async def test_bad_fields_are_named_before_anything_is_moved(desk: Desk) -> None:
    ticket = await open_ticket(desk)
    for tickets, of, to in [
        ([], None, None),
        ([str(ticket.id)], "5", None),
        ([str(ticket.id), "x"], None, None),
        ([str(ticket.id), str(ticket.id).upper()], None, None),
        ([str(uuid4()) for _ in range(101)], None, None),
    ]:
        with pytest.raises(InvalidFields, match="ticket_ids"):
            await reassignment.reassign_tickets(
                desk.on, as_supervisor(), ticket_ids=tickets, from_agent=of, only_flagged=False, assigned_to=to
            )
    with pytest.raises(InvalidFields) as refused:
        await reassignment.reassign_tickets(
            desk.on, as_supervisor(), ticket_ids=[], from_agent="x", only_flagged=True, assigned_to="y"
        )
    assert [v.field for v in refused.value.violations] == ["assigned_to", "from_agent"]
    assert await look_at(desk, ticket) == ticket


async def test_the_roster_is_looked_up_once_for_a_few_tickets(desk: Desk) -> None:
    await hire(desk)
    tickets = [await open_ticket(desk) for _ in range(20)]
    desk.db.ran.clear()
    await reassign(desk, *tickets)
    looks = [one for one in desk.db.ran if one is statements.LIST_WILLING_AGENTS]
    assert len(looks) == 20 / reassignment.USES_OF_A_LOOK


# --- By the sweep -----------------------------------------------------------------------------------------------------


async def test_the_tickets_of_whoever_is_away_for_too_long_are_given_away_and_not_sooner(desk: Desk) -> None:
    heir = await hire(desk)
    agent, (ticket,) = await away_with(desk, 1)
    desk.clock.pass_by(AWAY_TOO_LONG - MOMENT)
    assert await give_away(desk) == 0
    assert await reassignment.oldest_kept_by_away(desk.on, AWAY_TOO_LONG, desk.clock()) is None
    desk.clock.pass_by(MOMENT)
    assert await reassignment.oldest_kept_by_away(desk.on, AWAY_TOO_LONG, desk.clock()) == desk.clock()
    assert await give_away(desk) == 1
    *_, event = await events_of(desk, ticket)
    assert said(event) == {"assigned_to": heir.id, "previous_assignee": agent.id, "reason": "assignee_away"}
    assert (event["actor_role"], event["actor_id"].int) == ("service", 0)
    assert await give_away(desk) == 0
    assert await reassignment.oldest_kept_by_away(desk.on, AWAY_TOO_LONG, desk.clock()) is None


async def test_whoever_is_back_or_only_busy_keeps_theirs(desk: Desk) -> None:
    await hire(desk)
    back, (first,) = await away_with(desk, 1)
    ended, (second,) = await away_with(desk, 1)
    busy, (third,) = await away_with(desk, 1)
    await set_off(desk, busy, "busy")
    await set_off(desk, ended, until=desk.clock() + AWAY_TOO_LONG)
    desk.clock.pass_by(AWAY_TOO_LONG)
    await set_off(desk, back, "available")
    desk.clock.pass_by(timedelta(days=1))
    assert await give_away(desk) == 0
    assert await holders_of(desk, [first, second, third]) == [back.id, ended.id, busy.id]


async def test_the_most_urgent_go_first_and_what_nobody_can_bear_waits_for_the_next_round(desk: Desk) -> None:
    heir = await hire(desk, capacity=3)
    away, low = await away_with(desk, 3, "low")
    other, urgent = await away_with(desk, 2, "urgent")
    desk.clock.pass_by(AWAY_TOO_LONG)
    assert await give_away(desk) == 3
    assert await holders_of(desk, urgent) == [heir.id] * 2
    assert sorted(await holders_of(desk, low), key=str) == sorted([heir.id, away.id, away.id], key=str)
    assert await give_away(desk) == 0
    assert await reassignment.oldest_kept_by_away(desk.on, AWAY_TOO_LONG, desk.clock()) is not None
    await hire(desk, heir.id, capacity=5)
    assert await give_away(desk) == 2
    assert (await look_up(desk, other)).open_tickets == (await look_up(desk, away)).open_tickets == 0


async def test_a_round_goes_batch_by_batch_until_its_time_is_over(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reassignment, "TICKETS_AT_ONCE", 3)
    await hire(desk, capacity=100)
    for _ in range(3):
        await away_with(desk, 4)
    desk.clock.pass_by(AWAY_TOO_LONG)
    looks = iter([1.0] * 7 + [0.0] * 10)
    assert await reassignment.reassign_away(desk.on, AWAY_TOO_LONG, desk.clock(), lambda: next(looks)) == 7
    assert await reassignment.reassign_away(desk.on, AWAY_TOO_LONG, desk.clock(), plenty) == 5


async def test_eight_sweepers_at_once_give_each_ticket_away_once_and_fill_nobody_up_beyond_what_they_can_bear(
    desk: Desk,
) -> None:
    heirs = [await hire(desk, capacity=capacity) for capacity in (3, 7, 11, 30)]
    tickets = [ticket for _ in range(3) for ticket in (await away_with(desk, 20))[1]]
    desk.clock.pass_by(AWAY_TOO_LONG)
    async with AsyncExitStack() as stack:
        desks = [await stack.enter_async_context(Desk.at(desk.dsn, PoolLimits(size=1))) for _ in range(SWEEPERS)]
        for one in desks:
            one.clock.pass_by(AWAY_TOO_LONG)
        shares = await asyncio.gather(*map(give_away, desks))
    assert sum(shares) == 51
    assert sum(share > 0 for share in shares) > 1, shares
    assert [(await look_up(desk, heir)).spare for heir in heirs] == [0, 0, 0, 0]
    for ticket in tickets:
        assert types_of(await events_of(desk, ticket)).count("ticket_assigned") <= 2
