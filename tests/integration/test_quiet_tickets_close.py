"""Resolved tickets on which nobody says anything are closed, each once, and never one on which somebody has."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import Any, TypeVar

import psycopg
import pytest

from server.db import statements
from server.db.database import PoolLimits
from server.db.statement import Statement
from server.domain.paging import FIRST
from server.domain.tickets import Ticket
from server.usecases import closing
from server.usecases.closing import close_quiet_tickets, quiet_longest_due
from tests.integration.test_concurrent_changes import check_history
from tests.integration.test_query_plans import PAGE, nodes, plan_of, rows_read
from tests.integration.vocabulary import (
    CLOSES_AFTER,
    START,
    CountingDatabase,
    Desk,
    as_agent,
    events_of,
    look_at,
    move,
    note,
    open_ticket,
    owner_of,
    query,
    rate,
    said,
    say,
    types_of,
)

R = TypeVar("R")
SWEEPERS, TICKETS = 8, 500
MOMENT = timedelta(microseconds=1)
# Resolved tickets, each quiet for a second longer than the one before.
PUT = b"""
    INSERT INTO admin_service.support_tickets (
        id, user_id, subject, description, status, priority, created_at, updated_at, version, event_count,
        history_count, unattended_since, resolved_at, quiet_since
    )
    SELECT gen_random_uuid(), gen_random_uuid(), 'Cold soup', 'Cold.', 'resolved', 'low', at, at, 2, 0, 0, at, at, at
    FROM (SELECT %s - n * interval '1 second' AS at FROM generate_series(0, %s - 1) n) AS each
"""
Act = Callable[[Desk, Ticket], Awaitable[object]]


def plenty() -> float:
    return 60.0


async def sweep(desk: Desk) -> int:
    """A round with plenty of time."""
    return await close_quiet_tickets(desk.on, desk.clock(), plenty)


async def put_quiet_tickets(desk: Desk, count: int, newest: datetime = START - CLOSES_AFTER) -> None:
    async with await psycopg.AsyncConnection.connect(desk.dsn, autocommit=True) as connection:
        await connection.execute(PUT, [newest, count])


async def statuses(desk: Desk) -> Counter[str]:
    rows = await query(desk, "SELECT status FROM admin_service.support_tickets")
    return Counter(row["status"] for row in rows)


async def test_a_resolved_ticket_is_closed_by_the_service_itself_when_the_time_is_up(desk: Desk) -> None:
    ticket = await move(desk, await open_ticket(desk), "resolved", notes="Refunded.")
    desk.clock.pass_by(CLOSES_AFTER - MOMENT)
    assert await sweep(desk) == 0
    desk.clock.pass_by(MOMENT)
    assert await sweep(desk) == 1
    closed = await look_at(desk, ticket)
    expected = ticket._replace(status="closed", version=ticket.version + 1, updated_at=desk.clock())
    assert closed == expected
    changed, told = (await events_of(desk, ticket))[-2:]
    assert said(changed) == {"from_status": "resolved", "to_status": "closed", "reason": "auto"}
    assert said(told) == {"reason": "auto"}
    assert {(e["actor_id"].int, e["actor_role"], e["occurred_at"]) for e in (changed, told)} == {
        (0, "service", desk.clock())
    }
    assert changed["change_id"] == told["change_id"]
    assert await sweep(desk) == 0


async def reopen_and_resolve(desk: Desk, ticket: Ticket) -> Ticket:
    """The owner's comment reopens it."""
    await say(desk, ticket)
    return await move(desk, ticket, "resolved")


SAYINGS: dict[str, Act] = {
    "staff's comment": lambda desk, ticket: say(desk, ticket, as_agent()),
    "note": note,
    "resolution after a reopening": reopen_and_resolve,
}


@pytest.mark.parametrize("what", SAYINGS)
async def test_the_clock_starts_again_with_a(desk: Desk, what: str) -> None:
    ticket = await move(desk, await open_ticket(desk), "resolved")
    desk.clock.pass_by(CLOSES_AFTER - MOMENT)
    await SAYINGS[what](desk, ticket)
    desk.clock.pass_by(CLOSES_AFTER - MOMENT)
    assert await sweep(desk) == 0
    desk.clock.pass_by(MOMENT)
    assert await sweep(desk) == 1


async def test_a_rating_says_nothing_that_a_ticket_would_stay_open_for(desk: Desk) -> None:
    ticket = await move(desk, await open_ticket(desk), "resolved")
    desk.clock.pass_by(CLOSES_AFTER)
    await rate(desk, ticket)
    assert await sweep(desk) == 1
    check_history(await events_of(desk, ticket), await look_at(desk, ticket))


# What a process of the version before, which knows nothing of quiet tickets, does to one.
REOPENED_AS_BEFORE = "UPDATE admin_service.support_tickets SET status = 'open', resolved_at = null WHERE id = %s"
RESOLVED_AS_BEFORE = {
    "new": "UPDATE admin_service.support_tickets SET quiet_since = null WHERE id = %s",
    "reopened": "UPDATE admin_service.support_tickets SET quiet_since = quiet_since - interval '1 year' WHERE id = %s",
}


@pytest.mark.parametrize("what", RESOLVED_AS_BEFORE)
async def test_what_a_process_of_the_version_before_has_resolved_is_closed_in_time(desk: Desk, what: str) -> None:
    ticket = await move(desk, await open_ticket(desk), "resolved")
    await query(desk, RESOLVED_AS_BEFORE[what], ticket.id)
    desk.clock.pass_by(CLOSES_AFTER - MOMENT)
    assert await sweep(desk) == 0
    desk.clock.pass_by(MOMENT)
    assert await sweep(desk) == 1


async def test_what_a_process_of_the_version_before_has_reopened_is_not_taken_for_quiet(desk: Desk) -> None:
    ticket = await move(desk, await open_ticket(desk), "resolved")
    await query(desk, REOPENED_AS_BEFORE, ticket.id)
    desk.clock.pass_by(10 * CLOSES_AFTER)
    assert await sweep(desk) == 0
    assert await quiet_longest_due(desk.on, desk.clock()) is None


@pytest.mark.parametrize("status", ["open", "in_progress", "closed"])
async def test_nothing_else_is_closed_however_old(desk: Desk, status: str) -> None:
    ticket = await move(desk, await move(desk, await open_ticket(desk), "in_progress"), status)
    desk.clock.pass_by(10 * CLOSES_AFTER)
    assert await sweep(desk) == 0
    assert await look_at(desk, ticket) == ticket


async def test_where_comments_do_not_reopen_the_owners_starts_the_clock_again(dsn: str) -> None:
    async with Desk.at(dsn, reopen_on_comment=False) as desk:
        ticket = await move(desk, await open_ticket(desk), "resolved")
        desk.clock.pass_by(CLOSES_AFTER)
        await say(desk, ticket)
        assert await sweep(desk) == 0
        desk.clock.pass_by(CLOSES_AFTER)
        assert await sweep(desk) == 1


# --- Together with others ---------------------------------------------------------------------------------------------


class Meddled(CountingDatabase):
    """The real database; just before a ticket is closed something else is done to it."""

    act: Callable[[], Awaitable[object]]

    async def fetch_all(
        self, statement: Statement, values: Mapping[str, object], make: Callable[[tuple[Any, ...]], R]
    ) -> list[R]:
        """As the real one."""
        if statement is statements.CLOSE_QUIET_TICKET:
            await self.act()
        return await super().fetch_all(statement, values, make)


MEANWHILE: dict[str, Act] = {
    "staff's comment": lambda desk, ticket: say(desk, ticket, as_agent()),
    "note": note,
    "owner's comment": say,
    "reopening": lambda desk, ticket: move(desk, ticket, "in_progress"),
    "new resolution": reopen_and_resolve,
}


@pytest.mark.parametrize("what", MEANWHILE)
async def test_what_comes_between_the_look_at_a_ticket_and_its_closing_keeps_it_open(desk: Desk, what: str) -> None:
    ticket = await move(desk, await open_ticket(desk), "resolved")
    desk.clock.pass_by(CLOSES_AFTER)
    db = Meddled(desk.dsn, PoolLimits())
    db.act = lambda: MEANWHILE[what](desk, ticket)
    await db.open()
    try:
        assert await close_quiet_tickets(desk.on._replace(db=db), desk.clock(), plenty) == 0
    finally:
        await db.close()
    assert (await look_at(desk, ticket)).status != "closed"
    assert "ticket_closed" not in types_of(await events_of(desk, ticket))


async def test_comments_amid_eight_sweepers_come_before_the_closing_or_keep_it_off(desk: Desk) -> None:
    tickets = [await move(desk, await open_ticket(desk), "resolved") for _ in range(40)]
    desk.clock.pass_by(CLOSES_AFTER)

    async def speak(ticket: Ticket, number: int) -> None:
        await asyncio.sleep(number * 0.002)
        await note(desk, ticket)

    async with Desk.at(desk.dsn, PoolLimits(size=SWEEPERS)) as sweepers:
        sweepers.clock.now = desk.clock()
        speaking = (speak(ticket, number) for number, ticket in enumerate(reversed(tickets)))
        *_, closed = await asyncio.gather(*speaking, _sweep_together([sweepers] * SWEEPERS))
    for ticket in tickets:
        now, events = await look_at(desk, ticket), await events_of(desk, ticket)
        check_history(events, now)
        noted, closes = types_of(events).index("ticket_commented"), types_of(events).count("ticket_closed")
        assert closes == (now.status == "closed") <= 1
        # A note that came first keeps the ticket open for three days more; one that comes after finds it closed.
        assert (now.status == "closed") == ("ticket_closed" in types_of(events)[:noted])
    assert closed == (await statuses(desk))["closed"]


async def _sweep_together(desks: Sequence[Desk]) -> int:
    return sum(await asyncio.gather(*map(sweep, desks)))


async def test_eight_sweepers_at_once_close_each_ticket_once(desk: Desk) -> None:
    await put_quiet_tickets(desk, TICKETS)
    await put_quiet_tickets(desk, 20, newest=START)
    async with AsyncExitStack() as stack:
        desks = [await stack.enter_async_context(Desk.at(desk.dsn, PoolLimits(size=2))) for _ in range(SWEEPERS)]
        shares = await asyncio.gather(*map(sweep, desks))
    assert sum(shares) == TICKETS
    assert sum(share > TICKETS / SWEEPERS / 8 for share in shares) > 1, shares
    assert await statuses(desk) == {"closed": TICKETS, "resolved": 20}
    events = await query(desk, "SELECT ticket_id, event_type, sequence FROM admin_service.ticket_events")
    assert Counter((event["event_type"], event["sequence"]) for event in events) == {
        ("ticket_status_changed", 1): TICKETS,
        ("ticket_closed", 2): TICKETS,
    }


# --- Its rounds -------------------------------------------------------------------------------------------------------


async def test_batch_by_batch_until_nothing_is_due(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "TICKETS_AT_ONCE", 10)
    await put_quiet_tickets(desk, 30)
    assert await sweep(desk) == 30
    assert desk.db.ran.count(statements.LIST_QUIET_TICKETS) == 4


async def test_when_no_time_is_left_the_rest_waits_for_the_next_round(desk: Desk) -> None:
    await put_quiet_tickets(desk, 5)
    looks = iter([1.0, 1.0, 1.0, 0.0])
    assert await close_quiet_tickets(desk.on, START, lambda: next(looks)) == 3
    assert await sweep(desk) == 2


async def test_it_is_told_since_when_the_oldest_should_have_been_closed(desk: Desk) -> None:
    assert await quiet_longest_due(desk.on, START) is None
    await put_quiet_tickets(desk, 1, newest=START - CLOSES_AFTER + MOMENT)
    assert await quiet_longest_due(desk.on, START) is None
    await put_quiet_tickets(desk, 5)
    assert await quiet_longest_due(desk.on, START) == START - timedelta(seconds=4)


@pytest.mark.parametrize(("statement", "most"), [("LIST_QUIET_TICKETS", PAGE), ("QUIET_LONGEST", 1)])
async def test_due_tickets_are_found_by_how_long_they_have_been_quiet(desk: Desk, statement: str, most: int) -> None:
    await put_quiet_tickets(desk, 10_000)
    values = {"after_time": FIRST.created_at, "after_id": FIRST.id, "quiet_before": START - CLOSES_AFTER, "limit": PAGE}
    with psycopg.connect(desk.dsn, autocommit=True) as connection:
        connection.execute(b"VACUUM ANALYZE admin_service.support_tickets")
        connection.execute(b"SET plan_cache_mode = force_generic_plan")
        plan = plan_of(connection, getattr(statements, statement), values)
    assert {node["Index Name"] for node in nodes(plan) if "Index Name" in node} == {"support_tickets_quiet"}
    assert "Seq Scan" not in {node["Node Type"] for node in nodes(plan)}
    assert rows_read(plan) <= most, plan


async def test_the_owner_may_close_before_the_service_does(desk: Desk) -> None:
    ticket = await move(desk, await open_ticket(desk), "resolved")
    await move(desk, ticket, "closed", owner_of(ticket))
    desk.clock.pass_by(CLOSES_AFTER)
    assert await sweep(desk) == 0
    assert said((await events_of(desk, ticket))[-1]) == {"reason": "by_owner"}
