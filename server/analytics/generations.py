"""Generations of the facts: how all of them are built anew from the topic's beginning, whoever is at work meanwhile.

Each generation has a consumer group of its own, which Kafka has never heard of before, so its consumers begin with the
oldest event. One transaction empties the tables and begins the next generation. It is there or it is not: tables that
are empty while the offsets stand at the topic's end, which would lose every fact, can't come to be. Consumers look at
the generation in each of their transactions; those of the one before change nothing any more, and go over to the next.
"""

from datetime import datetime
from typing import Any

import psycopg
from psycopg import Connection, RawCursor

from server.analytics import statements
from server.analytics.tables import consumed, generations, ticket_events, ticket_facts
from server.db.database import with_liveliness
from server.errors import DependencyUnavailable

# The first two in the order in which a consumer's transaction touches them: it would not be waited for otherwise.
_TABLES = ", ".join(f"{table.schema}.{table.name}" for table in (consumed, generations, ticket_events, ticket_facts))
_EMPTIED = ", ".join(f"{table.schema}.{table.name}" for table in (consumed, ticket_events, ticket_facts))


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

    It holds until the end of the transaction, where that has written to `consumed_events` before: `rebuild` needs
    that table for itself.

    Raises:
        Superseded: there is a newer one.
    """
    if read_generation(connection) != generation:
        raise Superseded(generation=generation)


def rebuild(dsn: str, now: datetime) -> int:
    """Empty the tables and begin a generation, in one transaction; returns its number.

    Raises:
        psycopg.Error: nothing has changed.
    """
    with psycopg.connect(with_liveliness(dsn), cursor_factory=RawCursor) as connection:
        connection.execute(f"LOCK TABLE {_TABLES} IN ACCESS EXCLUSIVE MODE")
        connection.execute(f"TRUNCATE {_EMPTIED}")
        begin = statements.BEGIN_GENERATION
        ((number,),) = connection.execute(begin.sql, begin.bind({"now": now}))
        return int(number)
