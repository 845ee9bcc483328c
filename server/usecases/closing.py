"""Closing what is resolved, once nobody has said anything for long enough."""

import random
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, NamedTuple, Self
from uuid import UUID

from server.db import statements
from server.domain import lifecycle
from server.domain.callers import ITSELF
from server.domain.lifecycle import Change
from server.domain.tickets import Ticket
from server.usecases.collaborators import Collaborators
from server.usecases.recording import event_values, ticket_values
from server.usecases.sweeping import TimeLeft

TICKETS_AT_ONCE = 100


class _Quiet(NamedTuple):
    """A resolved ticket, and since when nobody has said anything on it."""

    since: datetime
    ticket: Ticket

    @classmethod
    def of_row(cls, row: tuple[Any, ...]) -> Self:
        since, *ticket = row
        return cls(since, Ticket._make(ticket))


class _Place(NamedTuple):
    """Where a batch begins: after the ticket that has been quiet since then."""

    after_time: datetime = datetime.min.replace(tzinfo=UTC)
    after_id: UUID = UUID(int=0)


async def close_quiet_tickets(on: Collaborators, now: datetime, time_left: TimeLeft) -> int:
    """Sweep: close resolved tickets on which nobody has said anything for long; returns how many.

    Whatever somebody does to a ticket meanwhile counts, and keeps it from being closed: to every ticket goes one
    attempt, guarded by its version and by its still being quiet.
    """
    values = {"quiet_before": now - on.auto_close_after, "limit": TICKETS_AT_ONCE}
    closed, place = 0, _Place()
    while True:
        due = await on.db.fetch_all(statements.LIST_QUIET_TICKETS, values | place._asdict(), _Quiet.of_row)
        # In an order of its own: sweepers that began together would wait for each other's locks, ticket by ticket.
        for quiet in random.sample(due, len(due)):
            change = lifecycle.close_quiet(quiet.ticket, quiet.since, on.auto_close_after, now)
            if change is not None:
                closed += await _close(on, quiet.ticket, change, values)
            if time_left() <= 0:
                return closed
        if len(due) < TICKETS_AT_ONCE:
            return closed
        place = _Place(due[-1].since, due[-1].ticket.id)


async def _close(on: Collaborators, ticket: Ticket, change: Change, guard: dict[str, object]) -> bool:
    # A round takes a while: what it does happens when it is done.
    at = on.clock()
    values = ticket_values(ticket, ITSELF, change, at) | event_values(on, ITSELF, change.events, at) | guard
    return await on.db.fetch_one(statements.CLOSE_QUIET_TICKET, values, Ticket._make) is not None


async def quiet_longest_due(on: Collaborators, now: datetime) -> datetime | None:
    """Since when the first of the tickets that are still to be closed should have been; None where none is."""
    values = {"quiet_before": now - on.auto_close_after}
    longest: datetime | None = await on.db.fetch_one(statements.QUIET_LONGEST, values, itemgetter(0))
    return longest + on.auto_close_after if longest else None
