"""What staff are told of a ticket's order, by what is kept of it and how old that is; when it is asked for again."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st

from devstack.order_service import usual_order
from server.clients.order_service import read_order
from server.domain.orders import Order, to_json
from server.domain.ticket_orders import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    Held,
    Kept,
    State,
    TicketOrder,
    is_worth_asking,
    put_off,
    seen,
)

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
FRESH = timedelta(seconds=30)
MOMENT = timedelta(microseconds=1)
TICKET, OWNER, ORDER_ID = uuid4(), uuid4(), uuid4()


def order() -> Order:
    return read_order(ORDER_ID, usual_order(str(ORDER_ID)))


def held(
    state: Kept | None, age: timedelta | None = None, owner: UUID = OWNER, order_id: UUID | None = ORDER_ID
) -> Held:
    snapshot = to_json(order()) if state is Kept.KNOWN else None
    return Held(TICKET, owner, order_id, state, snapshot, None if age is None else NOW - age)


def test_a_ticket_without_an_order_says_so_and_nobody_is_asked() -> None:
    nothing = held(None, order_id=None)
    assert seen(nothing, NOW, FRESH) == TicketOrder(TICKET, State.NO_ORDER, None)
    assert not is_worth_asking(nothing, NOW, FRESH)


def test_an_order_that_nobody_has_looked_at_is_pending_and_worth_asking() -> None:
    assert seen(held(None), NOW, FRESH) == TicketOrder(TICKET, State.PENDING, ORDER_ID)
    assert is_worth_asking(held(None), NOW, FRESH)


def test_what_was_never_told_is_pending_and_worth_asking() -> None:
    assert seen(held(Kept.PENDING), NOW, FRESH) == TicketOrder(TICKET, State.PENDING, ORDER_ID)
    assert is_worth_asking(held(Kept.PENDING), NOW, FRESH)


def test_an_order_is_current_while_it_is_fresh_and_then_a_snapshot() -> None:
    for age, state in ((timedelta(), State.CURRENT), (FRESH, State.CURRENT), (FRESH + MOMENT, State.SNAPSHOT)):
        known = held(Kept.KNOWN, age)
        assert seen(known, NOW, FRESH) == TicketOrder(TICKET, state, ORDER_ID, NOW - age, age, order(), False)
        assert is_worth_asking(known, NOW, FRESH) == (state is State.SNAPSHOT)


def test_an_unknown_order_has_no_order_and_is_worth_asking_after_a_while() -> None:
    for age in (FRESH, FRESH + MOMENT):
        unknown = held(Kept.UNKNOWN_ORDER, age)
        assert seen(unknown, NOW, FRESH) == TicketOrder(TICKET, State.UNKNOWN_ORDER, ORDER_ID, NOW - age, age)
        assert is_worth_asking(unknown, NOW, FRESH) == (age > FRESH)


def test_what_another_clock_dates_in_the_future_is_new() -> None:
    ahead = seen(held(Kept.KNOWN, timedelta(seconds=-3)), NOW, FRESH)
    assert (ahead.state, ahead.age) == (State.CURRENT, timedelta())


def test_the_owner_takes_part_as_customer_restaurant_or_driver() -> None:
    known = order()
    for somebody in (known.customer_id, known.restaurant_id, known.driver_id):
        assert somebody is not None
        assert seen(held(Kept.KNOWN, timedelta(), somebody), NOW, FRESH).owner_takes_part
    assert seen(held(Kept.KNOWN, timedelta(), uuid4()), NOW, FRESH).owner_takes_part is False


@given(st.integers(0, 10_000))
def test_an_order_that_fails_while_others_are_answered_waits_longer_each_time_up_to_five_minutes(attempts: int) -> None:
    counted, pause = put_off(attempts, others_are_answered=True)
    _, next_pause = put_off(counted, others_are_answered=True)
    assert counted == attempts + 1
    assert FIRST_PAUSE <= pause <= next_pause <= LONGEST_PAUSE
    assert next_pause == min(2 * pause, LONGEST_PAUSE)


@given(st.integers(0, 10_000))
def test_where_no_order_is_answered_nothing_is_held_against_one(attempts: int) -> None:
    assert put_off(attempts, others_are_answered=False) == (attempts, FIRST_PAUSE)
