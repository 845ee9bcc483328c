"""What is known of the order that a ticket is about, how old that is, and when the Order Service is asked again."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from server.domain.orders import Json, Order, from_json

FIRST_PAUSE = timedelta(seconds=5)
LONGEST_PAUSE = timedelta(minutes=5)


class State(StrEnum):
    """How much is known (TicketOrder.State of the protos)."""

    NO_ORDER = "no_order"
    PENDING = "pending"
    CURRENT = "current"
    SNAPSHOT = "snapshot"
    UNKNOWN_ORDER = "unknown_order"


class Kept(StrEnum):
    """What the Order Service has said so far, in the words of the table."""

    PENDING = "pending"
    KNOWN = "known"
    UNKNOWN_ORDER = "unknown_order"


class Held(NamedTuple):
    """A ticket, and what is kept of its order.

    Nothing is where it has none, has lost it to an erasure, or nobody has looked at it that a version without orders
    has created.
    """

    ticket_id: UUID
    user_id: UUID
    order_id: UUID | None
    state: str | None
    snapshot: Json | None
    fetched_at: datetime | None


class TicketOrder(NamedTuple):
    """What staff are told; see the comments of the proto."""

    ticket_id: UUID
    state: State
    order_id: UUID | None
    fetched_at: datetime | None = None
    age: timedelta | None = None
    order: Order | None = None
    owner_takes_part: bool | None = None


def is_worth_asking(held: Held, now: datetime, fresh: timedelta) -> bool:
    """Whether the Order Service may know more than what is kept: not where it has spoken within `fresh`."""
    if held.order_id is None:
        return False
    return held.fetched_at is None or now - held.fetched_at > fresh


def seen(held: Held, now: datetime, fresh: timedelta) -> TicketOrder:
    """What is kept, as it looks at `now`: an order is current for as long as it is `fresh`, then a snapshot."""
    state = _state(held, now, fresh)
    if held.fetched_at is None or held.order_id is None:
        return TicketOrder(held.ticket_id, state, held.order_id)
    # Another machine's clock may be ahead of this one's.
    age = max(now - held.fetched_at, timedelta())
    order = None if held.snapshot is None else from_json(held.snapshot)
    takes_part = None if order is None else held.user_id in participants(order)
    return TicketOrder(held.ticket_id, state, held.order_id, held.fetched_at, age, order, takes_part)


def _state(held: Held, now: datetime, fresh: timedelta) -> State:
    if held.order_id is None:
        return State.NO_ORDER
    if held.state != Kept.KNOWN:
        return State(held.state or State.PENDING)
    return State.SNAPSHOT if is_worth_asking(held, now, fresh) else State.CURRENT


def participants(order: Order) -> set[UUID | None]:
    """Those whose order it is: the customer, the restaurant and the driver, as far as they are known."""
    return {order.customer_id, order.restaurant_id, order.driver_id}


def put_off(attempts: int, *, others_are_answered: bool) -> tuple[int, timedelta]:
    """How often an order counts as having failed that has failed once more, and how long it is left alone now.

    Where no other one is answered either, that is not for anything about the order: it is not counted.
    """
    if not others_are_answered:
        return attempts, FIRST_PAUSE
    # Beyond that the doubling would only make a large number.
    return attempts + 1, min(FIRST_PAUSE * 2 ** min(attempts, 10), LONGEST_PAUSE)
