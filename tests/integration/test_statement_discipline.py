"""How the service speaks to PostgreSQL: prepared statements, a fixed number of them for every call."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from server.db import statements
from server.db.database import PoolLimits, worker_session
from server.db.statement import Statement
from server.domain.callers import Caller
from server.domain.tickets import Ticket
from server.usecases.lists import TicketFilters
from server.usecases.order_context import get_ticket_order
from server.workers.session import session
from tests.integration.privacy_acts import erase, export_of
from tests.integration.staffing import hire, on_the_roster, reassign, set_off, unattended
from tests.integration.vocabulary import (
    Desk,
    all_tickets,
    as_agent,
    as_customer,
    assign,
    assigned_tickets,
    comments_on,
    first_page,
    history_of,
    look_at,
    look_beneath,
    look_beneath_comment,
    move,
    my_tickets,
    note,
    open_ticket,
    owner_of,
    pages,
    query,
    rate,
    say,
    whole,
)

STATEMENTS = {name: value for name, value in vars(statements).items() if isinstance(value, Statement)}
OF_THE_RELAY = {
    "MARK_AND_LIST_UNPUBLISHED", "MEASURE_BACKLOG", "LIST_PUBLISHED_OF_TICKET", "LIST_PUBLISHED_BETWEEN",
    "COUNT_PUBLISHED_OF_TICKET", "COUNT_PUBLISHED_BETWEEN", "DELETE_OLD_EVENTS",
}  # fmt: skip
OF_THE_SWEEPER = {
    "FORGET_EXPIRED_KEYS", "OLDEST_EXPIRED_KEY",
    "LIST_QUIET_TICKETS", "CLOSE_QUIET_TICKET", "QUIET_LONGEST",
    "LIST_UNFINISHED_ERASURES", "OLDEST_UNFINISHED_ERASURE", "FORGET_ERASED_USERS", "OLDEST_TOLD_ERASURE",
    "LIST_UNATTENDED", "FLAG_TICKET", "LIST_TICKETS_OF_AWAY", "LONGEST_AWAY",
    "CLAIM_MISSING_ORDERS", "PUT_OFF_ORDER", "OLDEST_MISSING_ORDER",
}  # fmt: skip
# Run once the Order Service has answered, which is none of this desk's; test_order_context has one.
OF_AN_ANSWER = {"STORE_ORDER"}
PREPARED = Statement("SELECT statement FROM pg_prepared_statements", ())
PLANNED_ANEW = Statement("SELECT statement FROM pg_prepared_statements WHERE custom_plans > 0", ())
JIT = Statement("SHOW jit", ())
READER = as_agent()
NAMES = {statement: name for name, statement in STATEMENTS.items()}


@pytest.fixture
async def desk_on_one_connection(dsn: str) -> AsyncIterator[Desk]:
    """A desk whose every statement runs on the same connection."""
    async with Desk.at(dsn, PoolLimits(size=1)) as desk:
        yield desk


async def every_act(desk: Desk) -> None:
    """Each call once, in each way that has a statement of its own."""
    caller = as_customer()
    ticket = await open_ticket(desk, caller)
    await look_at_order(desk)
    await open_ticket(desk, caller, key="k")
    await open_ticket(desk, caller, key="k")
    await assign(desk, ticket, READER.id)
    await move(desk, ticket, "open")
    await look_beneath_comment(desk, await say(desk, ticket, text="one"))
    await look_beneath(desk, ticket)
    await say(desk, ticket, key="k")
    await say(desk, ticket, key="k")
    await rate(desk, await move(desk, ticket, "resolved"))
    for filters in EVERY_KIND_OF_FILTER.values():
        await first_page(all_tickets(desk, READER, filters))
    await first_page(my_tickets(desk, caller))
    await first_page(assigned_tickets(desk, READER))
    await first_page(comments_on(desk, ticket))
    await first_page(history_of(desk, ticket))
    await first_page(history_of(desk, ticket, owner_of(ticket)))
    await whole(export_of(desk, caller))
    await erase(desk, caller)
    await every_act_of_the_roster(desk)


async def look_at_order(desk: Desk) -> None:
    """Of a ticket that a version without orders has created."""
    ticket = await open_ticket(desk, order_id=str(uuid4()))
    await query(desk, "DELETE FROM admin_service.ticket_orders WHERE ticket_id = %s", ticket.id)
    await get_ticket_order(desk.on, READER, str(ticket.id))


async def every_act_of_the_roster(desk: Desk) -> None:
    """Likewise."""
    agent = await hire(desk)
    await set_off(desk, agent, "busy")
    await first_page(on_the_roster(desk))
    await reassign(desk, await open_ticket(desk))
    await reassign(desk, of=agent, flagged=True)
    await first_page(unattended(desk))


EVERY_KIND_OF_FILTER = {
    "LIST_TICKETS": TicketFilters(),
    "LIST_UNASSIGNED_TICKETS": TicketFilters(unassigned=True),
    "LIST_TICKETS_OF_ASSIGNEE": TicketFilters(assigned_to=str(READER.id)),
    "LIST_TICKETS_OF_USER": TicketFilters(user_id=str(READER.id)),
}


async def test_every_statement_of_the_api_was_run_prepared_and_nothing_else_was(
    desk_on_one_connection: Desk,
) -> None:
    await every_act(desk_on_one_connection)
    rows: list[tuple[Any, ...]] = await desk_on_one_connection.db.fetch_all(PREPARED, {}, tuple)
    prepared = {row[0] for row in rows} - {PREPARED.sql}
    of_no_call = {*OF_THE_RELAY, *OF_THE_SWEEPER, *OF_AN_ANSWER, "PROBE"}
    assert prepared == {statement.sql for name, statement in STATEMENTS.items() if name not in of_no_call}


async def test_no_statement_is_planned_anew_for_its_parameters(desk_on_one_connection: Desk) -> None:
    await every_act(desk_on_one_connection)
    rows: list[tuple[Any, ...]] = await desk_on_one_connection.db.fetch_all(PLANNED_ANEW, {}, tuple)
    assert rows == []


async def test_no_session_has_plans_translated_to_machine_code(desk: Desk) -> None:
    assert await desk.db.fetch_all(JIT, {}, tuple) == [("off",)]
    with psycopg.connect(desk.dsn, options=worker_session()) as worker, session(desk.dsn, "relay") as relay:
        assert [each.execute(JIT.sql).fetchall() for each in (worker, relay)] == [[("off",)]] * 2


@pytest.mark.parametrize("name", STATEMENTS)
def test_postgresql_prepares_every_statement(dsn: str, name: str) -> None:
    with psycopg.connect(dsn, cursor_factory=psycopg.RawCursor) as connection:
        connection.execute(f"PREPARE this AS {STATEMENTS[name].sql}".encode())
        cursor = connection.execute(b"SELECT cardinality(parameter_types) FROM pg_prepared_statements")
        assert cursor.fetchone() == (len(STATEMENTS[name].names),)


Act = Callable[[Desk, Ticket, Caller], Awaitable[object]]


async def rate_another(desk: Desk, owner: Caller) -> None:
    """A ticket that can be rated."""
    ticket = await move(desk, await open_ticket(desk, owner), "resolved")
    desk.db.ran.clear()
    await rate(desk, ticket)


# What each call runs, whatever the number of rows.
COST: dict[str, tuple[Act, list[str]]] = {
    "create": (lambda desk, _, owner: open_ticket(desk, owner), ["CREATE_TICKET"]),
    "create with a key": (lambda desk, _, owner: open_ticket(desk, owner, key="new"), ["CREATE_TICKET_ONCE"]),
    "get": (look_at, ["GET_TICKET"]),
    "move": (lambda desk, ticket, _: move(desk, ticket, "closed"), ["GET_TICKET", "CHANGE_TICKET"]),
    "resolve": (lambda desk, ticket, _: move(desk, ticket, "resolved"), ["GET_TICKET", "RESOLVE_TICKET"]),
    "move nowhere": (lambda desk, ticket, _: move(desk, ticket, "open"), ["GET_TICKET"]),
    "assign": (lambda desk, ticket, _: assign(desk, ticket, uuid4()), ["GET_TICKET", "ASSIGN_TICKET"]),
    "comment": (lambda desk, ticket, _: say(desk, ticket), ["GET_TICKET", "ADD_COMMENT"]),
    "note": (lambda desk, ticket, _: note(desk, ticket), ["GET_TICKET", "ADD_COMMENT"]),
    "comment with a key": (
        lambda desk, ticket, _: say(desk, ticket, key="new"),
        ["GET_TICKET", "FIND_KEY", "ADD_COMMENT_ONCE"],
    ),
    "reveal": (lambda desk, ticket, _: look_beneath(desk, ticket), ["GET_TICKET", "REVEAL_TICKET"]),
    "rate": (lambda desk, _, owner: rate_another(desk, owner), ["GET_TICKET", "GET_FEEDBACK", "RATE_TICKET"]),
}


@pytest.mark.parametrize("act", COST)
async def test_an_act_costs_these_statements(desk: Desk, act: str) -> None:
    owner = as_customer()
    ticket = await open_ticket(desk, owner)
    desk.db.ran.clear()
    work, expected = COST[act]
    await work(desk, ticket, owner)
    assert [NAMES[statement] for statement in desk.db.ran] == expected


@pytest.mark.parametrize("count", [0, 5])
async def test_a_page_costs_one_statement_and_one_more_where_a_ticket_may_be_missing(desk: Desk, count: int) -> None:
    owner = as_customer()
    ticket = await open_ticket(desk, owner)
    for _ in range(count):
        await open_ticket(desk, owner)
        await say(desk, ticket)
    for name, filters in EVERY_KIND_OF_FILTER.items():
        assert await cost(desk, first_page(all_tickets(desk, READER, filters))) == [name]
    assert await cost(desk, first_page(my_tickets(desk, owner))) == ["LIST_MY_TICKETS"]
    assert await cost(desk, first_page(assigned_tickets(desk, READER))) == ["LIST_TICKETS_OF_ASSIGNEE"]
    # Where there are rows, there is a ticket, and the caller may see it.
    comments = ["LIST_COMMENTS"] if count else ["LIST_COMMENTS", "GET_TICKET"]
    assert await cost(desk, first_page(comments_on(desk, ticket))) == comments
    assert await cost(desk, first_page(comments_on(desk, ticket, owner))) == comments
    assert await cost(desk, first_page(unattended(desk))) == ["LIST_FLAGGED_TICKETS"]
    assert await cost(desk, first_page(on_the_roster(desk))) == ["LIST_AGENTS"]
    assert await cost(desk, first_page(history_of(desk, ticket))) == ["LIST_HISTORY"]
    public = first_page(history_of(desk, ticket, owner))
    assert await cost(desk, public) == ["LIST_PUBLIC_HISTORY"]


async def test_every_further_page_costs_what_the_first_costs(desk: Desk) -> None:
    for _ in range(5):
        await open_ticket(desk)
    assert await cost(desk, pages(all_tickets(desk, READER), [2])) == ["LIST_TICKETS"] * 3


async def cost(desk: Desk, work: Awaitable[object]) -> list[str]:
    """The names of the statements that the work runs."""
    desk.db.ran.clear()
    await work
    return [NAMES[statement] for statement in desk.db.ran]
