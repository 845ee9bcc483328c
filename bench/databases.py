"""Databases of invented tickets, side by side in one PostgreSQL, and what is in them."""

import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import psutil
import psycopg
from psycopg import Connection, sql

from bench.loader import load
from devstack.errors import StackError
from devstack.postgres import DATABASE
from devstack.stack import Stack
from server.analytics.migrations import MIGRATIONS as ANALYTICS
from server.db.migrations import MIGRATIONS as SUPPORT
from server.db.migrator import migrate
from server.db.schema import SCHEMA
from server.notification.migrations import MIGRATIONS as NOTIFICATION

# Nobody works with the server while it is filled: no log of what is in the files anyway, and no checkpoint amid it.
FILLING = {
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
    "shared_buffers": "1GB",
    "autovacuum": "off",
}
# What those who run PostgreSQL give it: by itself it takes 128 MB.
SHARE_OF_MEMORY = 4
BYTES_PER_TICKET = 4_000
"""What a ticket takes, with all that belongs to it and what sorting for the indexes takes meanwhile."""

_SIZES = """
    SELECT c.relname, pg_table_size(c.oid), c.reltuples::bigint FROM pg_class c
    WHERE c.relnamespace = %s::regnamespace AND c.relkind = 'r' AND c.relname <> 'alembic_version'
    ORDER BY 2 DESC, 1
"""
_INDEX_SIZES = """
    SELECT t.relname, c.relname, pg_relation_size(c.oid) FROM pg_index i
    JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
    WHERE c.relnamespace = %s::regnamespace ORDER BY 1, 2
"""
# The largest last, which are then in memory for certain.
_PREWARM = """
    SELECT sum(pg_prewarm(c.oid)) FROM (
        SELECT oid FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind = 'i' ORDER BY pg_relation_size(oid)
    ) AS c
"""


class Sizes(NamedTuple):
    """Bytes of each table (without indexes), about how many rows it has, and bytes of each index, by table and name."""

    tables: Mapping[str, int]
    rows: Mapping[str, int]
    indexes: Mapping[tuple[str, str], int]


def name_of(tickets: int) -> str:
    """The database of so many tickets."""
    return f"{DATABASE}_{tickets}"


def require_room(stack: Stack, tickets: Sequence[int]) -> None:
    """Refuse before anything is filled what the disk has no room for.

    Raises:
        StackError: saying how much is needed.
    """
    missing = [each for each in tickets if not _exists(stack, each)]
    needed, free = sum(missing) * BYTES_PER_TICKET, shutil.disk_usage(stack.run_dir).free
    if needed > free:
        raise StackError(
            f"{sum(missing)} tickets take {needed / 1e9:.0f} GB in {stack.run_dir}, where {free / 1e9:.0f} GB are free;"
            " name another folder (--folder), or fewer (--sizes 10000,1000000)"
        )


def fill(stack: Stack, tickets: Sequence[int], seed: int) -> None:
    """Make those databases that are not there yet, with PostgreSQL set for that."""
    missing = [each for each in tickets if not _exists(stack, each)]
    if missing:
        _configure(stack, FILLING)
        for each in missing:
            _make(stack, each, seed)


def put_to_work(stack: Stack, tickets: Sequence[int]) -> int:
    """Have PostgreSQL as it is when it has been at work for long: its indexes are in memory, as far as there is room.

    Rows are not, unless the system happens to cache them. Returns how many bytes PostgreSQL has for itself.
    """
    memory = psutil.virtual_memory().total // SHARE_OF_MEMORY
    _configure(stack, {"shared_buffers": f"{memory // 1024}kB"})
    for each in tickets:
        with _connected(stack.dsn_for(name_of(each))) as connection:
            connection.execute(b"CREATE EXTENSION IF NOT EXISTS pg_prewarm")
            connection.execute(_PREWARM.encode(), [SCHEMA])
    return memory


def _configure(stack: Stack, settings: Mapping[str, str]) -> None:
    """Restart PostgreSQL with these settings beside those that it is started with, and no others."""
    with _connected(stack.dsn_for("postgres")) as connection:
        connection.execute(b"ALTER SYSTEM RESET ALL")
        for name, value in settings.items():
            connection.execute(sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value)))
    stack.part("postgres").restart()


def sizes_of(dsn: str) -> Sizes:
    """How large everything of the support service is."""
    with _connected(dsn) as connection:
        tables = connection.execute(_SIZES.encode(), [SCHEMA]).fetchall()
        indexes = connection.execute(_INDEX_SIZES.encode(), [SCHEMA]).fetchall()
    return Sizes(
        {table: size for table, size, _ in tables},
        {table: rows for table, _, rows in tables},
        {(table, index): size for table, index, size in indexes},
    )


def _connected(dsn: str) -> Connection[tuple[Any, ...]]:
    return psycopg.connect(dsn, autocommit=True)


def _exists(stack: Stack, tickets: int) -> bool:
    with _connected(stack.dsn_for("postgres")) as connection:
        return connection.execute(b"SELECT FROM pg_database WHERE datname = %s", [name_of(tickets)]).rowcount > 0


def _make(stack: Stack, tickets: int, seed: int) -> None:
    """Under another name at first: one that was cut off is not taken for whole."""
    name, unfinished = sql.Identifier(name_of(tickets)), f"{name_of(tickets)}_unfinished"
    with _connected(stack.dsn_for("postgres")) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(unfinished)))
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(unfinished)))
        for migrations in (SUPPORT, NOTIFICATION, ANALYTICS):
            migrate(stack.dsn_for(unfinished), migrations)
        load(stack.dsn_for(unfinished), tickets, seed, datetime.now(UTC))
        connection.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(unfinished), name))
