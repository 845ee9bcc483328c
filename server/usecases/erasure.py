"""Erasing a person's data: every text of the person's tickets, and the person's id, ticket by ticket.

Whoever asks for it begins, and does as much as a call has time for; sweeps do the rest. However many are at it, each
ticket is erased once, as a whole and with its event; where one of them is killed another goes on.
"""

import asyncio
import random
import time
from datetime import datetime
from uuid import UUID, uuid4

from server.db import statements
from server.db.statement import Statement
from server.domain.callers import Caller
from server.domain.paging import FIRST
from server.domain.privacy import Erasable, Erasure, Progress, erased
from server.domain.validation import Fields
from server.usecases.collaborators import Collaborators
from server.usecases.recording import event_values
from server.usecases.sweeping import TimeLeft, in_batches

# Well within every deadline that is set where none is.
CALL_SECONDS = 3.0
# More than one worker takes at once, so that many at one erasure find tickets of their own.
TICKETS_LISTED = 200
TICKETS_AT_ONCE = 20
# Tickets that others were just writing are tried again after a pause, in seconds, so often.
PAUSE = 0.05
MOST_PAUSES = 20
ERASURES_AT_ONCE = 100
EVENTS_AT_ONCE = 1_000


async def erase_personal_data(on: Collaborators, caller: Caller, *, user_id: str) -> Progress:
    """Begin to erase the user's data, or go on with it; how far it is when the time of the call is over.

    Raises:
        InvalidFields: the id is malformed.
    """
    fields = Fields()
    wanted = fields.uuid("user_id", user_id)
    fields.check()
    end = time.monotonic() + CALL_SECONDS
    erasure = await _begin(on, caller, wanted)
    await _go_on(on, erasure, lambda: end - time.monotonic())
    return await _progress(on, erasure)


async def _begin(on: Collaborators, caller: Caller, user_id: UUID) -> Erasure:
    values = {
        # Not of version 7, which would tell when it was made, and not made of the id that it stands for.
        "pseudonym": uuid4(),
        "user_id": user_id,
        "actor_id": caller.id,
        "actor_role": caller.role,
        "now": on.clock(),
    }
    (erasure,) = await on.db.fetch_all(statements.BEGIN_ERASURE, values, Erasure._make)
    return erasure


async def _progress(on: Collaborators, erasure: Erasure) -> Progress:
    (progress,) = await on.db.fetch_all(statements.GET_PROGRESS, {"pseudonym": erasure.id}, Progress._make)
    return progress


async def _go_on(on: Collaborators, erasure: Erasure, time_left: TimeLeft) -> int:
    """Erase until nothing is left or the time is over; returns how many tickets were erased here."""
    done = pauses = 0
    while True:
        listed = await _list(on, erasure)
        if not listed and await _finish(on, erasure):
            return done
        count = await _erase_some(on, erasure, listed, time_left)
        done += count
        pauses += not count
        if time_left() <= 0 or pauses > MOST_PAUSES:
            return done
        if not count:
            await asyncio.sleep(PAUSE * random.random())  # noqa: S311 - so that those at one erasure part


async def _list(on: Collaborators, erasure: Erasure) -> list[Erasable]:
    values = {"user_id": erasure.user_id, "limit": TICKETS_LISTED}
    return await on.db.fetch_all(statements.LIST_ERASABLE, values, Erasable._make)


async def _erase_some(on: Collaborators, erasure: Erasure, listed: list[Erasable], time_left: TimeLeft) -> int:
    done = 0
    for ticket in random.sample(listed, min(TICKETS_AT_ONCE, len(listed))):
        done += await _erase(on, erasure, ticket)
        if time_left() <= 0:
            break
    return done


async def _erase(on: Collaborators, erasure: Erasure, ticket: Erasable) -> bool:
    """Whether it was done: not where others are at the ticket, or have written on it since it was listed."""
    if erasure.user_id is None:
        raise ValueError("the erasure is finished")
    values = {
        "pseudonym": erasure.id,
        "erased_user_id": erasure.user_id,
        "ticket_id": ticket.id,
        "history_count": ticket.history_count,
        **event_values(on, erasure.requester, (erased(erasure.user_id),), on.clock()),
    }
    return await on.db.fetch_one(statements.ERASE_TICKET, values, tuple) is not None


async def _finish(on: Collaborators, erasure: Erasure) -> bool:
    """Whether it is finished, by whomever; not where a ticket of the user has come up meanwhile."""
    values = {"pseudonym": erasure.id, "user_id": erasure.user_id, "now": on.clock()}
    await on.db.fetch_all(statements.FINISH_ERASURE, values, tuple)
    return (await _progress(on, erasure)).finished


async def go_on_erasing(on: Collaborators, _now: datetime, time_left: TimeLeft) -> int:
    """The sweep of erasures that are under way, the oldest first; returns how many tickets were erased."""
    done, after = 0, FIRST
    while True:
        values = {"after_created_at": after.created_at, "after_id": after.id, "limit": ERASURES_AT_ONCE}
        under_way = await on.db.fetch_all(statements.LIST_UNFINISHED_ERASURES, values, Erasure._make)
        for erasure in under_way:
            done += await _go_on(on, erasure, time_left)
            if time_left() <= 0:
                return done
        if len(under_way) < ERASURES_AT_ONCE:
            return done
        after = after._replace(created_at=under_way[-1].requested_at, id=under_way[-1].id)


async def oldest_erasure(on: Collaborators, _now: datetime) -> datetime | None:
    """Since when the oldest erasure that is not finished has been under way."""
    return await _moment(on, statements.OLDEST_UNFINISHED_ERASURE)


async def forget_erased_users(on: Collaborators, _now: datetime, time_left: TimeLeft) -> int:
    """The sweep that takes users' ids from the events that have told them; returns how many events those were."""

    async def batch() -> int:
        return len(await on.db.fetch_all(statements.FORGET_ERASED_USERS, {"limit": EVENTS_AT_ONCE}, tuple))

    return await in_batches(batch, EVENTS_AT_ONCE, time_left)


async def oldest_told_erasure(on: Collaborators, _now: datetime) -> datetime | None:
    """Since when the oldest event that still names an erased user has been published."""
    return await _moment(on, statements.OLDEST_TOLD_ERASURE)


async def _moment(on: Collaborators, statement: Statement) -> datetime | None:
    (row,) = await on.db.fetch_all(statement, {}, tuple)
    moment: datetime | None = row[0]
    return moment
