"""Generations of the facts: how the topic is read from its beginning again, whoever is at work meanwhile.

Each generation has a consumer group of its own, which Kafka has never heard of before, so its consumers begin with the
oldest event. One transaction forgets what was consumed and begins the next generation. It is there or it is not: an
empty memory beside offsets at the topic's end, or full tables that nobody fills up, can't come to be. Consumers look at
the generation in each of their transactions; those of the one before change nothing any more, and go over to the next.
"""

from datetime import datetime
from typing import Any

import psycopg
from psycopg import Connection, RawCursor

from server.analytics import statements
from server.db.database import with_liveliness
from server.errors import DependencyUnavailable


class Superseded(DependencyUnavailable):
    """These events are for another generation of the facts."""

    template = "the facts are being built anew: generation {generation} is over"


def group_of(generation: int) -> str:
    """The name of the generation's consumer group."""
    return f"nibble-analytics-{generation}"


def read_generation(connection: Connection[Any]) -> int:
    """The newest generation."""
    ((number,),) = connection.execute(statements.GENERATION.sql, prepare=True)
    return int(number)


def newest_generation(dsn: str) -> int:
    """The newest generation, read over a connection of its own.

    Raises:
        psycopg.Error: the database does not tell.
    """
    with psycopg.connect(with_liveliness(dsn), autocommit=True, cursor_factory=RawCursor) as connection:
        return read_generation(connection)


def require_generation(connection: Connection[Any], generation: int) -> None:
    """Let a consumer of the newest generation go on.

    It holds until the end of the transaction, where that has written to `consumed_events` before: `begin_generation`
    needs that table for itself.

    Raises:
        Superseded: there is a newer one.
    """
    if read_generation(connection) != generation:
        raise Superseded(generation=generation)


def begin_generation(dsn: str, now: datetime, *, forget: bool) -> int:
    """Begin the next generation, and return its number.

    Args:
        forget: empty the facts, and the events that they are folded from, too.

    Raises:
        psycopg.Error: nothing has changed.
    """
    with psycopg.connect(with_liveliness(dsn), cursor_factory=RawCursor) as connection:
        connection.execute(statements.LOCK_TABLES.sql)
        connection.execute((statements.FORGET_EVERYTHING if forget else statements.FORGET_CONSUMED).sql)
        begin = statements.BEGIN_GENERATION
        ((number,),) = connection.execute(begin.sql, begin.bind({"now": now}))
        return int(number)
