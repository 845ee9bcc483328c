"""How all facts are made anew: from the events that are kept, and from the topic's beginning on."""

from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg import Connection, RawCursor

from server.analytics import statements
from server.analytics.generations import begin_generation
from server.analytics.intake import put_facts
from server.db.database import with_liveliness

BATCH = 500
_BEFORE_ALL = UUID(int=0)


def rebuild(dsn: str, now: datetime, *, forget: bool) -> int:
    """Have the topic read from its beginning again, and fold the facts of all tickets; returns the generation.

    Whoever is cut off in the middle leaves facts that are as true as before, and may begin anew.

    Args:
        forget: rest on the topic alone. What it no longer holds is lost then; else reports stay whole meanwhile.

    Raises:
        psycopg.Error: the database can't be reached, or refuses.
    """
    generation = begin_generation(dsn, now, forget=forget)
    with psycopg.connect(with_liveliness(dsn), autocommit=True, cursor_factory=RawCursor) as connection:
        last: UUID | None = _BEFORE_ALL
        while last is not None:
            last = _fold_batch(connection, last)
    return generation


def _fold_batch(connection: Connection[Any], after: UUID) -> UUID | None:
    """Fold the facts of the tickets that come next after an id; returns the last one's id, None where there is none."""
    with connection.transaction():
        listing = statements.LOCK_FACTS
        # Before their events are read: a consumer that adds one waits now, or was waited for, and puts a newer fact.
        rows = connection.execute(listing.sql, listing.bind({"after": after, "limit": BATCH}))
        ticket_ids = [ticket_id for (ticket_id,) in rows]
        put_facts(connection, ticket_ids)
    return ticket_ids[-1] if ticket_ids else None
