"""A ticket's row held by somebody else, so that whoever wants to change it waits."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from tests.system.stage import Stage


@contextmanager
def held(stage: Stage, ticket: dict[str, Any]) -> Iterator[psycopg.Connection[Any]]:
    """Holds the ticket's row, so that whoever wants to change it waits; rolling back lets go."""
    with psycopg.connect(stage.stack.dsn) as connection:
        connection.execute("SELECT FROM admin_service.support_tickets WHERE id = %s FOR UPDATE", [ticket["id"]])
        yield connection


def waiting(stage: Stage) -> int:
    """How many statements wait for a lock."""
    ((count,),) = stage.query(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return int(count)
