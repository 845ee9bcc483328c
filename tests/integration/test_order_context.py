"""The order of a ticket and who its owner is: asked of stand-ins, kept in PostgreSQL, shown however these do."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from itertools import pairwise
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import psycopg
import pytest
from prometheus_client import REGISTRY

from devstack.control import Control
from devstack.order_service import CARD, CVV, IBAN
from devstack.ports import Ports
from devstack.stack import Stack
from devstack.user_service import address_of, name_of
from server.clients import order_service, user_service
from server.clients.breaker import FAILURES, PAUSE
from server.clients.order_service import OrderBook
from server.clients.user_service import AsyncUserDirectory
from server.db import statements
from server.db.database import PoolLimits
from server.domain.callers import Caller
from server.domain.requesters import State as RequesterState
from server.domain.ticket_orders import FIRST_PAUSE, LONGEST_PAUSE, State, TicketOrder
from server.domain.tickets import Ticket
from server.domain.users import User
from server.errors import InvalidFields, TicketNotFound
from server.usecases.order_context import (
    ASKED_AT_ONCE,
    LEASE,
    fetch_missing_orders,
    get_ticket_order,
    oldest_missing_order,
)
from server.usecases.requester import get_ticket_requester
from tests.integration.test_query_plans import PAGE, nodes, plan_of, rows_read
from tests.integration.vocabulary import FRESH, START, Desk, Row, as_agent, as_customer, open_ticket, query, until
from tests.stack_folder import stack_folder
from tests.unit.test_circuit_breaker import Clock

TIMEOUT = 0.5
MOMENT = timedelta(microseconds=1)
SWEEPERS = 8
# Ten thousand tickets, each about an order of its own that nobody has asked for.
FILL = """
    INSERT INTO admin_service.support_tickets (
        id, user_id, order_id, subject, description, status, priority, created_at, updated_at, version,
        event_count, history_count, unattended_since
    )
    SELECT lpad(to_hex(n), 32, '0')::uuid, gen_random_uuid(), gen_random_uuid(), 'Cold soup', 'cold', 'open', 'low',
        %(start)s, %(start)s, 1, 1, 1, %(start)s
    FROM generate_series(1, %(count)s) n;

    INSERT INTO admin_service.ticket_orders (ticket_id, order_id, state, next_try_at, attempts)
    SELECT id, order_id, 'pending', %(start)s - row_number() OVER (ORDER BY id) * interval '1 second', 0
    FROM admin_service.support_tickets;
"""


class Counter(NamedTuple):
    """The part of the desk that asks: with the stand-ins at the other end, and how often they were asked."""

    desk: Desk
    orders: Control
    users: Control
    clock: Clock
    """Of the breakers."""
    orders_target: str

    async def ticket(self, order_id: UUID | None = None, caller: Caller | None = None) -> Ticket:
        return await open_ticket(self.desk, caller, order_id=str(order_id or uuid4()))

    async def look(self, ticket: Ticket) -> TicketOrder:
        return await get_ticket_order(self.desk.on, as_agent(), str(ticket.id))

    async def sweep(self) -> int:
        return await fetch_missing_orders(self.desk.on, self.desk.clock(), plenty)

    async def row(self, ticket: Ticket) -> Row:
        (row,) = await query(self.desk, "SELECT * FROM admin_service.ticket_orders WHERE ticket_id = %s", ticket.id)
        return row

    async def states(self) -> list[str]:
        rows = await query(self.desk, "SELECT state FROM admin_service.ticket_orders ORDER BY ticket_id")
        return [row["state"] for row in rows]


def plenty() -> float:
    return 60.0


def asked(outcome: str = "OK") -> float:
    """How often the Order Service was asked to that outcome."""
    return REGISTRY.get_sample_value("nibble_order_service_calls_total", {"outcome": outcome}) or 0.0


@pytest.fixture(scope="module")
def services() -> Iterator[Stack]:
    """The two stand-ins, and nothing else of the stack."""
    with stack_folder() as folder, Stack(folder, Ports.free(), parts={"user-service", "order-service"}) as running:
        yield running


@pytest.fixture
async def counter(desk: Desk, services: Stack) -> AsyncIterator[Counter]:
    services.order_service.give()
    services.user_service.give()
    clock, env = Clock(), services.service_env()
    orders = OrderBook(order_service.connect(env["ORDER_SERVICE_TARGET"]), clock, TIMEOUT)
    users = AsyncUserDirectory(user_service.connect_async(env["USER_SERVICE_TARGET"]), clock, TIMEOUT)
    on = desk.on._replace(orders=orders, users=users)
    try:
        yield Counter(
            desk._replace(on=on), services.order_service, services.user_service, clock, env["ORDER_SERVICE_TARGET"]
        )
    finally:
        await on.close()


async def erase(desk: Desk, ticket: Ticket) -> None:
    """As when the owner's data are erased."""
    await query(desk, "DELETE FROM admin_service.ticket_orders WHERE ticket_id = %s", ticket.id)
    await query(desk, "UPDATE admin_service.support_tickets SET order_id = NULL WHERE id = %s", ticket.id)


# --- GetTicketOrder ---------------------------------------------------------------------------------------------------


async def unawaited(counter: Counter) -> Ticket:
    """A ticket about an order, as a process of the version before creates it."""
    ticket = await counter.ticket()
    await query(counter.desk, "DELETE FROM admin_service.ticket_orders WHERE ticket_id = %s", ticket.id)
    return ticket


async def test_an_order_of_a_ticket_from_before_there_were_any_is_kept_once_somebody_looks(counter: Counter) -> None:
    ticket = await unawaited(counter)
    assert await counter.sweep() == 0
    assert (await counter.look(ticket)).state is State.CURRENT
    assert (await counter.row(ticket))["state"] == "known"


async def test_where_nobody_answers_such_an_order_is_fetched_by_the_sweep(counter: Counter) -> None:
    ticket = await unawaited(counter)
    counter.orders.give(behaviour="failing")
    assert (await counter.look(ticket)).state is State.PENDING
    counter.orders.give()
    assert await counter.sweep() == 1
    assert (await counter.look(ticket)).state is State.CURRENT


async def test_an_erasure_keeps_such_an_order_from_coming_back(counter: Counter) -> None:
    ticket = await unawaited(counter)
    values = {"ticket_id": ticket.id, "order_id": ticket.order_id, "now": counter.desk.clock()}
    async with await psycopg.AsyncConnection.connect(counter.desk.dsn) as eraser:
        await eraser.execute("SELECT FROM admin_service.support_tickets WHERE id = %s FOR NO KEY UPDATE", [ticket.id])
        await eraser.execute("UPDATE admin_service.support_tickets SET order_id = NULL WHERE id = %s", [ticket.id])
        late = asyncio.create_task(counter.desk.db.fetch_all(statements.AWAIT_ORDER, values, tuple))
        await asyncio.wait([late], timeout=0.2)
    await late
    assert await counter.states() == []


async def test_an_order_is_awaited_from_its_tickets_creation_on(counter: Counter) -> None:
    ticket = await counter.ticket()
    before = asked()
    assert await counter.row(ticket) == {
        "ticket_id": ticket.id, "order_id": ticket.order_id, "state": "pending", "snapshot": None, "fetched_at": None,
        "next_try_at": ticket.created_at, "attempts": 0,
    }  # fmt: skip
    assert asked() == before


async def test_a_ticket_about_no_order_has_none(counter: Counter) -> None:
    ticket = await open_ticket(counter.desk)
    assert (await counter.look(ticket)).state is State.NO_ORDER
    assert await counter.states() == []


async def test_an_order_is_asked_for_kept_and_not_asked_for_again_while_it_is_fresh(counter: Counter) -> None:
    ticket = await counter.ticket()
    before = asked()
    current = await counter.look(ticket)
    assert current.order is not None
    assert (current.state, current.age, current.order.id, current.order.status) == (
        State.CURRENT, timedelta(), ticket.order_id, "delivered",
    )  # fmt: skip
    counter.desk.clock.pass_by(FRESH)
    assert await counter.look(ticket) == current._replace(age=FRESH)
    assert asked() == before + 1
    counter.desk.clock.pass_by(MOMENT)
    assert (await counter.look(ticket)).age == timedelta()
    assert asked() == before + 2


async def test_of_what_pays_four_digits_are_kept_in_the_table(counter: Counter) -> None:
    ticket = await counter.ticket()
    await counter.look(ticket)
    row = await counter.row(ticket)
    assert row["snapshot"]["payment"]["card_last_four"] == CARD[-4:]
    kept = json.dumps(row, default=str)
    assert not [
        secret for secret in (CARD, CARD.replace(" ", ""), IBAN, IBAN.replace(" ", ""), f'"{CVV}"') if secret in kept
    ]


async def test_the_owner_is_said_to_take_part_in_their_own_order_alone(counter: Counter) -> None:
    order_id = uuid4()
    customer = f"01920000-0000-7000-8000-{str(order_id)[-12:]}"
    own = await counter.ticket(order_id, as_customer(UUID(customer)))
    others = await counter.ticket(order_id)
    assert [(await counter.look(ticket)).owner_takes_part for ticket in (own, others)] == [True, False]


@pytest.mark.parametrize("behaviour", ["failing", "malformed", "slow"])
async def test_an_order_that_cant_be_asked_for_is_pending_or_a_snapshot_with_its_age(
    counter: Counter, behaviour: str
) -> None:
    seen, unseen = await counter.ticket(), await counter.ticket()
    current = await counter.look(seen)
    counter.desk.clock.pass_by(timedelta(hours=3))
    counter.orders.give(behaviour=behaviour)
    began = time.monotonic()
    assert await counter.look(seen) == current._replace(state=State.SNAPSHOT, age=timedelta(hours=3))
    assert (await counter.look(unseen)).state is State.PENDING
    assert time.monotonic() - began < 3 * TIMEOUT


async def test_without_an_order_service_orders_stay_pending(desk: Desk) -> None:
    ticket = await open_ticket(desk, order_id=str(uuid4()))
    assert (await get_ticket_order(desk.on, as_agent(), str(ticket.id))).state is State.PENDING
    assert await fetch_missing_orders(desk.on, desk.clock(), plenty) == 0


async def test_an_order_that_nobody_knows_is_asked_for_again_when_somebody_looks(counter: Counter) -> None:
    ticket = await counter.ticket()
    counter.orders.give(orders={str(ticket.order_id): None})
    assert (await counter.look(ticket)).state is State.UNKNOWN_ORDER
    counter.orders.give(behaviour="failing")
    counter.desk.clock.pass_by(FRESH + MOMENT)
    unknown = await counter.look(ticket)
    assert (unknown.state, unknown.age) == (State.UNKNOWN_ORDER, FRESH + MOMENT)
    counter.orders.give()
    assert (await counter.look(ticket)).state is State.CURRENT


async def test_an_order_that_is_not_known_any_more_stays_a_snapshot(counter: Counter) -> None:
    ticket = await counter.ticket()
    current = await counter.look(ticket)
    counter.orders.give(orders={str(ticket.order_id): None})
    counter.desk.clock.pass_by(FRESH + MOMENT)
    assert await counter.look(ticket) == current._replace(state=State.SNAPSHOT, age=FRESH + MOMENT)


def a_patient_book(counter: Counter, stack: AsyncExitStack) -> OrderBook:
    """One more that asks the same Order Service, and waits for it however busy the machine is."""
    book = OrderBook(order_service.connect(counter.orders_target), counter.clock, 20 * TIMEOUT)
    stack.push_async_callback(book.close)
    return book


async def test_many_who_look_at_once_ask_once(counter: Counter) -> None:
    """The answer takes longer than it takes all of them to ask."""
    ticket = await counter.ticket()
    before = asked()
    counter.orders.give(behaviour="slow", seconds=2 * TIMEOUT)
    async with AsyncExitStack() as stack:
        on = counter.desk.on._replace(orders=a_patient_book(counter, stack))
        looks = await asyncio.gather(*[get_ticket_order(on, as_agent(), str(ticket.id)) for _ in range(50)])
    assert {look.state for look in looks} == {State.CURRENT}
    assert asked() == before + 1


async def test_an_order_that_is_erased_while_it_is_asked_for_is_neither_kept_nor_shown(counter: Counter) -> None:
    ticket = await counter.ticket()
    counter.orders.give(behaviour="slow", seconds=TIMEOUT / 2)
    look, sweep = asyncio.create_task(counter.look(ticket)), asyncio.create_task(counter.sweep())
    await until(lambda: is_leased(counter, ticket))
    await erase(counter.desk, ticket)
    assert await look == TicketOrder(ticket.id, State.NO_ORDER, None)
    await sweep
    assert await counter.states() == []


async def is_leased(counter: Counter, ticket: Ticket) -> bool:
    return bool((await counter.row(ticket))["next_try_at"] > counter.desk.clock())


async def test_an_answer_for_another_order_than_the_rows_is_not_kept(counter: Counter) -> None:
    ticket, other = await counter.ticket(), uuid4()
    counter.orders.give(behaviour="slow", seconds=TIMEOUT / 2)
    look = asyncio.create_task(counter.sweep())
    await until(lambda: is_leased(counter, ticket))
    await query(counter.desk, "UPDATE admin_service.ticket_orders SET order_id = %s", other)
    await look
    assert await counter.states() == ["pending"]


@pytest.mark.parametrize("ask", [get_ticket_order, get_ticket_requester])
async def test_what_is_no_ticket_has_neither(counter: Counter, ask: Any) -> None:  # noqa: ANN401 - a use case
    with pytest.raises(TicketNotFound):
        await ask(counter.desk.on, as_agent(), str(uuid4()))
    with pytest.raises(InvalidFields):
        await ask(counter.desk.on, as_agent(), "1")


# --- The sweep --------------------------------------------------------------------------------------------------------


async def test_the_sweep_fetches_what_is_missing_once(counter: Counter) -> None:
    tickets = [await counter.ticket() for _ in range(3 * ASKED_AT_ONCE + 1)]
    nobodys = await counter.ticket()
    counter.orders.give(orders={str(nobodys.order_id): None})
    assert await oldest_missing_order(counter.desk.on, counter.desk.clock()) == START
    before = asked()
    assert await counter.sweep() == len(tickets) + 1
    assert await oldest_missing_order(counter.desk.on, counter.desk.clock()) is None
    assert sorted(await counter.states()) == ["known"] * len(tickets) + ["unknown_order"]
    counter.desk.clock.pass_by(timedelta(days=1))
    assert await counter.sweep() == 0
    assert asked() == before + len(tickets) + 1


async def test_a_round_ends_when_no_time_is_left(counter: Counter) -> None:
    for _ in range(3 * ASKED_AT_ONCE):
        await counter.ticket()
    looks = iter([1.0, 0.0])
    assert await fetch_missing_orders(counter.desk.on, START, lambda: next(looks)) == 2 * ASKED_AT_ONCE


async def test_while_the_order_service_is_away_few_are_asked_for_and_none_is_held_to_have_failed(
    counter: Counter,
) -> None:
    tickets = [await counter.ticket() for _ in range(3 * ASKED_AT_ONCE)]
    counter.orders.give(behaviour="failing")
    before = asked("INTERNAL")
    # The breaker opens at once, and then lets one through every ten seconds; a round is every five.
    for _ in range(20):
        assert await counter.sweep() == 0
        counter.desk.clock.pass_by(timedelta(seconds=5))
        counter.clock.now += 5
    assert asked("INTERNAL") - before <= ASKED_AT_ONCE + 10
    assert {(await counter.row(ticket))["attempts"] for ticket in tickets} == {0}
    assert await oldest_missing_order(counter.desk.on, counter.desk.clock()) == START

    counter.orders.give()
    counter.clock.now += PAUSE
    counter.desk.clock.pass_by(FIRST_PAUSE)
    assert await counter.sweep() == len(tickets)


async def test_one_that_fails_while_others_are_answered_waits_longer_each_time(counter: Counter) -> None:
    bad = await counter.ticket()
    counter.orders.give(orders={str(bad.order_id): {"id": str(uuid4())}})
    pauses = []
    for _ in range(9):
        good = await counter.ticket()
        assert await counter.sweep() == 1
        assert (await counter.row(good))["state"] == "known"
        pause = (await counter.row(bad))["next_try_at"] - counter.desk.clock()
        pauses.append(pause)
        counter.desk.clock.pass_by(pause)
    assert pauses[0] == FIRST_PAUSE
    assert all(later == min(2 * sooner, LONGEST_PAUSE) for sooner, later in pairwise(pauses))
    assert pauses[-1] == LONGEST_PAUSE
    counter.orders.give()
    assert await counter.sweep() == 1


async def test_those_that_always_fail_do_not_keep_others_from_their_turn(counter: Counter) -> None:
    bad = [await counter.ticket() for _ in range(2 * ASKED_AT_ONCE)]
    good = [await counter.ticket() for _ in range(5)]
    counter.orders.give(orders={str(ticket.order_id): {"id": str(uuid4())} for ticket in bad})
    rounds = 0
    while (await counter.states()).count("known") < len(good):
        await counter.sweep()
        counter.desk.clock.pass_by(timedelta(seconds=5))
        counter.clock.now += 5
        rounds += 1
        assert rounds < 100
    print(f"{rounds} rounds")  # noqa: T201


async def test_eight_sweepers_at_once_ask_for_each_order_once(counter: Counter) -> None:
    tickets = [await counter.ticket() for _ in range(200)]
    before = asked()
    async with AsyncExitStack() as stack:
        desks = [
            await stack.enter_async_context(Desk.at(counter.desk.dsn, PoolLimits(size=2))) for _ in range(SWEEPERS)
        ]
        # Each has a book of its own, as each process has.
        shares = await asyncio.gather(*(sweep_at(desk, counter, stack) for desk in desks))
    assert sum(shares) == len(tickets)
    assert sum(share > 0 for share in shares) > 1, shares
    assert asked() == before + len(tickets)
    assert await counter.states() == ["known"] * len(tickets)


async def sweep_at(desk: Desk, counter: Counter, stack: AsyncExitStack) -> int:
    book = a_patient_book(counter, stack)
    return await fetch_missing_orders(desk.on._replace(orders=book), desk.clock(), plenty)


async def test_what_a_sweeper_was_cut_off_at_is_asked_for_by_another_one_after_the_lease(counter: Counter) -> None:
    ticket = await counter.ticket()
    counter.orders.give(behaviour="slow")
    cut_off = asyncio.create_task(counter.sweep())
    await until(lambda: is_leased(counter, ticket))
    cut_off.cancel()
    await asyncio.wait([cut_off])
    counter.orders.give()
    counter.desk.clock.pass_by(LEASE - MOMENT)
    assert await counter.sweep() == 0
    counter.desk.clock.pass_by(MOMENT)
    assert await counter.sweep() == 1


@pytest.mark.parametrize(
    ("statement", "most"), [("CLAIM_MISSING_ORDERS", 3 * PAGE), ("OLDEST_MISSING_ORDER", 1), ("GET_TICKET_ORDER", 2)]
)
async def test_missing_orders_are_found_by_when_they_are_due(desk: Desk, statement: str, most: int) -> None:
    values = {"due": START - timedelta(seconds=5_000), "leased_until": START, "limit": PAGE, "ticket_id": UUID(int=5)}
    with psycopg.connect(desk.dsn, autocommit=True) as connection:
        psycopg.ClientCursor(connection).execute(FILL, {"start": START, "count": 10_000})
        connection.execute(b"VACUUM ANALYZE admin_service.ticket_orders, admin_service.support_tickets")
        connection.execute(b"SET plan_cache_mode = force_generic_plan")
        plan = plan_of(connection, getattr(statements, statement), values)
    assert "Seq Scan" not in {node["Node Type"] for node in nodes(plan)}
    assert rows_read(plan) <= most, plan


# --- GetTicketRequester -----------------------------------------------------------------------------------------------


async def test_a_requester_is_known_unknown_or_pending(counter: Counter) -> None:
    known, nobodys, unasked = [await open_ticket(counter.desk) for _ in range(3)]
    on, agent = counter.desk.on, as_agent()
    counter.users.give(users={str(nobodys.user_id): None})
    told = [await get_ticket_requester(on, agent, str(ticket.id)) for ticket in (known, nobodys)]
    counter.users.give(behaviour="malformed")
    told.append(await get_ticket_requester(on, agent, str(unasked.id)))
    assert [it.state for it in told] == [RequesterState.KNOWN, RequesterState.UNKNOWN_USER, RequesterState.PENDING]
    user = User(known.user_id, name_of(known.user_id), address_of(known.user_id))
    assert [it.user for it in told] == [user, None, None]
    assert [it.user_id for it in told] == [known.user_id, nobodys.user_id, unasked.user_id]


async def test_a_slow_user_service_is_waited_for_until_the_deadline_and_then_left_alone(counter: Counter) -> None:
    counter.users.give(behaviour="slow")
    waited = []
    for _ in range(FAILURES + 1):
        ticket = await open_ticket(counter.desk)
        began = time.monotonic()
        requester = await get_ticket_requester(counter.desk.on, as_agent(), str(ticket.id))
        waited.append(time.monotonic() - began)
        assert requester.state is RequesterState.PENDING
    assert max(waited) < 2 * TIMEOUT
    assert waited[-1] < TIMEOUT / 2


async def test_without_a_user_service_requesters_stay_pending(desk: Desk) -> None:
    ticket = await open_ticket(desk)
    assert (await get_ticket_requester(desk.on, as_agent(), str(ticket.id))).state is RequesterState.PENDING
