"""Fills a migrated database with invented tickets, by COPY, as fast as the machine allows.

Indexes, and constraints that look at other rows, are taken away first and made again afterwards, word by word as the
catalogue had them: made of sorted rows they take a fraction of the time. CHECK constraints stay, and triggers, none of
which looks at new rows. Each table is truncated in the transaction that fills it, so that PostgreSQL writes no log of
its rows (at `wal_level` minimal), and nothing is left to be frozen.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from psycopg import Connection, Copy, sql
from psycopg.copy import QueuedLibpqWriter

from bench.batches import batches
from bench.binary_copy import SIGNATURE, TRAILER
from bench.progress import Progress
from bench.rows import TABLES
from server.db.schema import SCHEMA

AT_ONCE = 2
"""How many indexes are made at the same time; of two of one table, the second reads what the first has read."""

STEPS = 50
"""How finely the progress of the rows is told."""

SESSION = "-c maintenance_work_mem=1GB -c max_parallel_maintenance_workers=0 -c statement_timeout=0"

_INDEXES = """
    SELECT i.indrelid::regclass::text, i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid), c.conname::text,
        CASE c.contype WHEN 'p' THEN 'PRIMARY KEY' WHEN 'u' THEN 'UNIQUE' END
    FROM pg_index i
    JOIN pg_class t ON t.oid = i.indrelid
    LEFT JOIN pg_constraint c ON c.conindid = i.indexrelid AND c.contype IN ('p', 'u')
    WHERE t.relnamespace = %s::regnamespace AND t.relname = ANY (%s)
    ORDER BY 1, 2
"""
_REFERENCES = """
    SELECT conrelid::regclass::text, conname::text, pg_get_constraintdef(oid)
    FROM pg_constraint WHERE contype = 'f' AND connamespace = %s::regnamespace ORDER BY 1, 2
"""
_SIZE = "SELECT pg_table_size(%s::regclass)"


class Index(NamedTuple):
    """An index, and the constraint that it holds up, if any; names as SQL has them."""

    table: str
    name: str
    definition: str
    constraint: str | None
    kind: str | None

    @property
    def removal(self) -> str:
        """What takes it away."""
        if self.constraint is None:
            return f"DROP INDEX {self.name}"
        return f"ALTER TABLE {self.table} DROP CONSTRAINT {self.constraint}"

    @property
    def attachment(self) -> str:
        """What makes it hold up its constraint, once it is there."""
        return f"ALTER TABLE {self.table} ADD CONSTRAINT {self.constraint} {self.kind} USING INDEX {self.constraint}"


class Reference(NamedTuple):
    """A foreign key."""

    table: str
    name: str
    definition: str

    @property
    def addition(self) -> str:
        """What has new rows heed it, and leaves the others to be looked at."""
        return f"ALTER TABLE {self.table} ADD CONSTRAINT {self.name} {self.definition} NOT VALID"

    @property
    def validation(self) -> str:
        """What looks at those."""
        return f"ALTER TABLE {self.table} VALIDATE CONSTRAINT {self.name}"


def load(dsn: str, tickets: int, seed: int, until: datetime) -> None:
    """Put so many tickets, with all that belongs to them, into a migrated database that has none.

    `until`: how far their lives are told; see `bench.lives`.
    """
    with _connected(dsn) as connection:
        indexes = [Index(*row) for row in connection.execute(_INDEXES.encode(), [SCHEMA, list(TABLES)])]
        references = [Reference(*row) for row in connection.execute(_REFERENCES.encode(), [SCHEMA])]
        _run(connection, *(f"ALTER TABLE {it.table} DROP CONSTRAINT {it.name}" for it in references))
        _run(connection, *(it.removal for it in indexes))
        _copy(dsn, tickets, seed, until)
        _finish(connection, dsn, indexes, references)


def _connected(dsn: str) -> Connection[tuple[Any, ...]]:
    return psycopg.connect(dsn, autocommit=True, options=SESSION)


def _run(connection: Connection[Any], *statements: str) -> None:
    for statement in statements:
        connection.execute(statement.encode())


def _copy(dsn: str, tickets: int, seed: int, until: datetime) -> None:
    with ExitStack() as stack:
        copies = {table: stack.enter_context(_copying(dsn, table)) for table in TABLES}
        progress = stack.enter_context(Progress(f"{tickets} tickets", tickets))
        made = told = 0
        for batch in batches(tickets, seed, until):
            if made >= told:
                progress.begin("rows", made)
                told = made + tickets // STEPS
            for table, rows in batch.rows.items():
                if rows:
                    copies[table].write(rows)
            made += batch.tickets


@contextmanager
def _copying(dsn: str, table: str) -> Iterator[Copy]:
    """One table, empty at first, on a connection of its own; what is written is sent by a thread of its own."""
    name = sql.Identifier(SCHEMA, table)
    columns = sql.SQL(", ").join(map(sql.Identifier, TABLES[table]))
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary, FREEZE)").format(name, columns)
    with psycopg.connect(dsn, options=SESSION) as connection:
        connection.execute(sql.SQL("TRUNCATE {}").format(name))
        cursor = connection.cursor()
        with cursor.copy(statement, writer=QueuedLibpqWriter(cursor)) as copy:
            copy.write(SIGNATURE)
            yield copy
            copy.write(TRAILER)


def _finish(connection: Connection[Any], dsn: str, indexes: Sequence[Index], references: Sequence[Reference]) -> None:
    """Make what was taken away, and have PostgreSQL know what the tables hold."""
    sizes = {table: connection.execute(_SIZE.encode(), [table]).fetchone() for table in {it.table for it in indexes}}
    largest_first = sorted(indexes, key=lambda it: (sizes[it.table], it.table), reverse=True)
    _side_by_side(dsn, "indexes", {it.name: it.definition for it in largest_first})
    _run(connection, *(it.attachment for it in indexes if it.constraint))
    _run(connection, *(it.addition for it in references))
    _side_by_side(dsn, "foreign keys", {it.name: it.validation for it in references})
    _side_by_side(dsn, "statistics", {table: f"VACUUM (ANALYZE) {SCHEMA}.{table}" for table in TABLES})


def _side_by_side(dsn: str, what: str, statements: Mapping[str, str]) -> None:
    """Run statements, named by what each is about, some at a time."""
    with ThreadPoolExecutor(AT_ONCE) as pool, Progress(what, len(statements)) as progress:
        running = {pool.submit(_alone, dsn, statement): name for name, statement in statements.items()}
        for number, done in enumerate(as_completed(running)):
            done.result()
            progress.begin(running[done], number + 1)


def _alone(dsn: str, statement: str) -> None:
    with _connected(dsn) as connection:
        _run(connection, statement)
