"""Closing what is resolved, once nobody has said anything for long enough."""

from collections.abc import Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, NamedTuple, Self

from server.db import statements
from server.domain import lifecycle
from server.domain.callers import ITSELF
from server.domain.lifecycle import Change
from server.domain.paging import FIRST
from server.domain.tickets import Ticket
from server.usecases.collaborators import Collaborators
from server.usecases.recording import event_values, ticket_values
from server.usecases.sweeping import TimeLeft, one_by_one

TICKETS_AT_ONCE = 100


class _Quiet(NamedTuple):
    """A resolved ticket, and since when nobody has said anything on it."""

    since: datetime
    ticket: Ticket

    @classmethod
    def of_row(cls, row: tuple[Any, ...]) -> Self:
        since, *ticket = row
        return cls(since, Ticket._make(ticket))


async def close_quiet_tickets(on: Collaborators, now: datetime, time_left: TimeLeft) -> int:
    """Sweep: close resolved tickets on which nobody has said anything for long; returns how many.

    Whatever somebody does to a ticket meanwhile counts, and keeps it from being closed: to every ticket goes one
    attempt, guarded by its version and by its still being quiet.
    """
    guard = {"quiet_before": now - on.auto_close_after}

    async def due(last: _Quiet | None) -> Sequence[_Quiet]:
        after = (last.since, last.ticket.id) if last else (FIRST.created_at, FIRST.id)
        values = {**guard, "after_time": after[0], "after_id": after[1], "limit": TICKETS_AT_ONCE}
        return await on.db.fetch_all(statements.LIST_QUIET_TICKETS, values, _Quiet.of_row)

    async def close(quiet: _Quiet) -> bool:
        change = lifecycle.close_quiet(quiet.ticket, quiet.since, on.auto_close_after, now)
        return change is not None and await _close(on, quiet.ticket, change, guard)

    return await one_by_one(due, close, TICKETS_AT_ONCE, time_left)


async def _close(on: Collaborators, ticket: Ticket, change: Change, guard: dict[str, datetime]) -> bool:
    # A round takes a while: what it does happens when it is done.
    at = on.clock()
    values = ticket_values(ticket, ITSELF, change, at) | event_values(on, ITSELF, change.events, at) | guard
    return await on.db.fetch_one(statements.CLOSE_QUIET_TICKET, values, Ticket._make) is not None


async def quiet_longest_due(on: Collaborators, now: datetime) -> datetime | None:
    """Since when the first of the tickets that are still to be closed should have been; None where none is."""
    values = {"quiet_before": now - on.auto_close_after}
    longest: datetime | None = await on.db.fetch_one(statements.QUIET_LONGEST, values, itemgetter(0))
    return longest + on.auto_close_after if longest else None
