"""The order that a ticket is about: what the Order Service tells of it is stored, so that there is something to show.

The Order Service is asked when staff look, and by a sweep for what it could not be asked when the ticket was created.
An answer finds its row again by ticket and order: what was erased meanwhile stays so.
"""

import asyncio
import json
from datetime import datetime, timedelta
from operator import itemgetter
from typing import NamedTuple
from uuid import UUID

from server.db import statements
from server.domain import permissions, ticket_orders
from server.domain.callers import Caller
from server.domain.orders import to_json
from server.domain.ticket_orders import Held, Kept, TicketOrder
from server.domain.validation import Fields
from server.errors import OrderServiceUnavailable
from server.usecases.collaborators import Collaborators
from server.usecases.sweeping import TimeLeft

ASKED_AT_ONCE = 8
# Longer than a round of the sweep and the question that it ends with. A sweeper that is killed keeps its rows so long.
LEASE = timedelta(seconds=60)


class _Missing(NamedTuple):
    """An order that could not be asked for so far, and how often it has failed while others were answered."""

    ticket_id: UUID
    order_id: UUID
    attempts: int


async def get_ticket_order(on: Collaborators, caller: Caller, ticket_id: str) -> TicketOrder:
    """What is known of the ticket's order; it waits for the Order Service no longer than a call to it may take.

    Raises:
        InvalidFields: the id is malformed.
        TicketNotFound: there is no such ticket.
    """
    fields = Fields()
    wanted = fields.uuid("ticket_id", ticket_id)
    fields.check()
    held = await _held(on, caller, wanted)
    if held.state is None and held.order_id is not None:
        values = {"ticket_id": held.ticket_id, "order_id": held.order_id, "now": on.clock()}
        await on.db.fetch_all(statements.AWAIT_ORDER, values, tuple)
    if ticket_orders.is_worth_asking(held, on.clock(), on.order_fresh) and await _learn(on, held):
        # Told from what is stored: the ticket may have been erased meanwhile.
        held = await _held(on, caller, wanted)
    return ticket_orders.seen(held, on.clock(), on.order_fresh)


async def _held(on: Collaborators, caller: Caller, ticket_id: UUID) -> Held:
    held = await on.db.fetch_one(statements.GET_TICKET_ORDER, {"ticket_id": ticket_id}, Held._make)
    return permissions.require_sight(caller, held, ticket_id)


async def _learn(on: Collaborators, about: Held | _Missing) -> bool:
    """Ask the Order Service, and store what it says; returns whether it has said anything."""
    if on.orders is None or about.order_id is None:
        return False
    asked_at = on.clock()
    try:
        order = await on.orders.order(about.order_id)
    except OrderServiceUnavailable:
        return False
    values = {
        "ticket_id": about.ticket_id,
        "order_id": about.order_id,
        "new_state": Kept.KNOWN if order else Kept.UNKNOWN_ORDER,
        "snapshot": json.dumps(to_json(order)) if order else None,
        "asked_at": asked_at,
        "now": on.clock(),
    }
    await on.db.fetch_all(statements.STORE_ORDER, values, tuple)
    return True


async def fetch_missing_orders(on: Collaborators, now: datetime, time_left: TimeLeft) -> int:
    """Sweep: ask for the orders that could not be asked for so far, some at a time; returns how many were answered.

    Where none of those that were asked for at once is answered, the Order Service is away: then the round ends, and
    they wait for a moment. One that fails while others are answered waits longer each time.
    """
    total = 0
    while (claimed := await _claim(on, now)) and (answered := await _fetch(on, claimed)):
        total += answered
        if time_left() <= 0:
            break
    return total


async def _claim(on: Collaborators, now: datetime) -> list[_Missing]:
    """Take those that have been due longest, as many as are worth asking for; nobody else does within the lease."""
    room = on.orders.room(ASKED_AT_ONCE) if on.orders else 0
    if not room:
        return []
    values = {"due": now, "leased_until": on.clock() + LEASE, "limit": room}
    return await on.db.fetch_all(statements.CLAIM_MISSING_ORDERS, values, _Missing._make)


async def _fetch(on: Collaborators, claimed: list[_Missing]) -> int:
    """Ask for all of them at once; returns how many were answered."""
    answers = await asyncio.gather(*(_learn(on, missing) for missing in claimed))
    for missing, answered in zip(claimed, answers, strict=True):
        if not answered:
            await _put_off(on, missing, others_are_answered=any(answers))
    return sum(answers)


async def _put_off(on: Collaborators, missing: _Missing, *, others_are_answered: bool) -> None:
    attempts, pause = ticket_orders.put_off(missing.attempts, others_are_answered=others_are_answered)
    values = {**missing._asdict(), "attempts": attempts, "next_try_at": on.clock() + pause}
    await on.db.fetch_all(statements.PUT_OFF_ORDER, values, tuple)


async def oldest_missing_order(on: Collaborators, now: datetime) -> datetime | None:
    """Since when the first of the orders that are due to be asked for has been due; None where none is."""
    oldest: datetime | None = await on.db.fetch_one(statements.OLDEST_MISSING_ORDER, {"due": now}, itemgetter(0))
    return oldest
