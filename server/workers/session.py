"""A relay's session with PostgreSQL: it ends when its relay does, however that ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import Connection, RawCursor

from server.db.database import with_liveliness

# PostgreSQL ends the session, and with it the hold of the shards, of a relay that says nothing for so long: one that
# is frozen. At work it speaks ten times a second; it is silent while it looks for Kafka, or closes a producer.
SILENCE_MS = 10_000
SESSION = " ".join(
    f"-c {name}={value}"
    for name, value in {
        "timezone": "UTC",
        "statement_timeout": 30_000,
        "idle_session_timeout": SILENCE_MS,
        "tcp_user_timeout": SILENCE_MS,
        # Of a relay that died while its statement waited for somebody's lock, PostgreSQL would not notice before.
        "client_connection_check_interval": 200,
        "plan_cache_mode": "force_generic_plan",
        "jit": "off",
        # A mark that PostgreSQL loses in a crash costs a duplicate, and waiting for each costs the API its disk.
        "synchronous_commit": "off",
    }.items()
)


@contextmanager
def session(dsn: str, name: str) -> Iterator[Connection[Any]]:
    """A session with PostgreSQL, known there by that name, as the relay needs it; it ends with the block."""
    with psycopg.connect(
        with_liveliness(dsn), autocommit=True, cursor_factory=RawCursor, options=SESSION, application_name=name
    ) as connection:
        yield connection
