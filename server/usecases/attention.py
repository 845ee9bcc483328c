"""The sweep that flags tickets which staff have left alone for too long."""

from collections.abc import Sequence
from datetime import datetime

from server.db import statements
from server.domain.attention import FLAGGED, Patience, Unattended, last_due
from server.domain.callers import ITSELF
from server.domain.paging import FIRST
from server.domain.tickets import TRIAGE_RANK, Priority, Ticket
from server.usecases.collaborators import Collaborators
from server.usecases.recording import event_values
from server.usecases.sweeping import TimeLeft, one_by_one

TICKETS_AT_ONCE = 100


async def flag_unattended(on: Collaborators, patience: Patience, now: datetime, time_left: TimeLeft) -> int:
    """Sweep: flag what staff have left alone for longer than the patience, the most urgent first; returns how many."""
    total = 0
    for priority in TRIAGE_RANK:
        total += await _flag_of(on, priority, last_due(patience, priority, now), time_left)
    return total


async def _flag_of(on: Collaborators, priority: Priority, due: datetime, time_left: TimeLeft) -> int:
    async def waiting(after: Unattended | None) -> Sequence[Unattended]:
        return await _unattended(on, priority, due, after, TICKETS_AT_ONCE)

    async def flag(ticket: Unattended) -> bool:
        """Whether it was flagged here: staff may have come to it meanwhile, or another sweeper."""
        values = {"ticket_id": ticket.id, **ticket._asdict(), **event_values(on, ITSELF, FLAGGED, on.clock())}
        return await on.db.fetch_one(statements.FLAG_TICKET, values, Ticket._make) is not None

    return await one_by_one(waiting, flag, TICKETS_AT_ONCE, time_left)


async def oldest_unflagged(on: Collaborators, patience: Patience, now: datetime) -> datetime | None:
    """Since when the first of the tickets has been due that are to be flagged; None where none is."""
    waiting = [
        first.unattended_since + patience[priority]
        for priority in TRIAGE_RANK
        for first in await _unattended(on, priority, last_due(patience, priority, now), None, 1)
    ]
    return min(waiting, default=None)


async def _unattended(
    on: Collaborators, priority: Priority, due: datetime, after: Unattended | None, limit: int
) -> list[Unattended]:
    values = {
        "rank": TRIAGE_RANK[priority],
        "last_due": due,
        "after_since": after.unattended_since if after else FIRST.created_at,
        "after_id": after.id if after else FIRST.id,
        "limit": limit,
    }
    return await on.db.fetch_all(statements.LIST_UNATTENDED, values, Unattended._make)
