"""Each index earns its keep: some statement of the service reads it, or it keeps a rule."""

from collections.abc import Iterator
from datetime import UTC, datetime
from types import ModuleType
from typing import NamedTuple, Self

import psycopg
import pytest

from bench.loader import load
from server.analytics import statements as of_analytics
from server.db import statements as of_support
from server.db.statement import Statement
from server.notification import inbox_statements as of_the_inbox
from server.notification import statements as of_notifications
from tests.integration.test_query_plans import nodes

UNTIL = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
# The statements of each schema. A statement may touch no other schema than its own, so that these are all.
SCHEMAS: dict[str, list[ModuleType]] = {
    "admin_service": [of_support],
    "notification_service": [of_notifications, of_the_inbox],
    "analytics_service": [of_analytics],
}
# They read no index, and there is no plan of them.
UNPLANNED = ("LOCK", "TRUNCATE")
# Those of keys and UNIQUE are there for a rule, read or not. A foreign key needs none here: nothing is ever deleted,
# nor renamed, that another table refers to.
INDEXES = """
    SELECT c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE c.relnamespace = %s::regnamespace AND NOT i.indisunique ORDER BY 1
"""
COLUMNS = """
    SELECT i.indexrelid::regclass::text, i.indrelid::regclass::text, string_to_array(i.indkey::text, ' '),
        concat(pg_get_expr(i.indpred, i.indrelid), pg_get_expr(i.indexprs, i.indrelid)), i.indisunique
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE c.relnamespace::regnamespace::text = ANY (%s)
"""
PARTIAL = b"SELECT relname::text FROM pg_index JOIN pg_class ON oid = indexrelid WHERE indpred IS NOT NULL"
# As many rows as it takes for PostgreSQL to have an opinion; most is read, sent or done with, as it is in the long run.
FILL = """
    INSERT INTO admin_service.concealed_texts
    SELECT id, 'description', id, 'my PIN is 4711' FROM admin_service.support_tickets LIMIT 1000;

    INSERT INTO notification_service.recipients (user_id, role, last_seen_at, last_number, unread_count)
    SELECT lpad(to_hex(n), 32, '0')::uuid, CASE WHEN mod(n, 20) = 0 THEN 'support_agent' END,
        CASE WHEN mod(n, 20) = 0 THEN now() - n * interval '1 minute' END, 20, 1
    FROM generate_series(1, 1000) n;

    INSERT INTO notification_service.notifications (
        id, recipient_id, number, change_id, event_id, ticket_id, type, subject, priority, status, actor_id, actor_role,
        occurred_at, created_at, read_at, in_inbox, email_id
    )
    SELECT lpad(to_hex(n), 32, '0')::uuid, lpad(to_hex(1 + n / 20), 32, '0')::uuid, mod(n, 20) + 1, gen_random_uuid(),
        gen_random_uuid(), lpad(to_hex(n / 4), 32, '0')::uuid, 'ticket_commented', 'Cold soup', 'medium', 'closed',
        gen_random_uuid(), 'customer', now(), now(), CASE WHEN mod(n, 20) > 0 THEN now() END, true,
        CASE WHEN mod(n, 2) = 0 THEN lpad(to_hex(n / 2), 32, '0')::uuid END
    FROM generate_series(1, 20000) n;

    INSERT INTO notification_service.emails (
        id, recipient_id, kind, state, is_open, rank, due_at, next_attempt_at, created_at
    )
    SELECT lpad(to_hex(n), 32, '0')::uuid, lpad(to_hex(1 + mod(n, 1000)), 32, '0')::uuid, 'single',
        CASE WHEN n > 9900 THEN 'waiting' WHEN mod(n, 1000) = 0 THEN 'dead' ELSE 'sent' END, false, 1, now(), now(),
        now()
    FROM generate_series(1, 10000) n;

    INSERT INTO notification_service.consumed_events
    SELECT lpad(to_hex(n), 32, '0')::uuid, lpad(to_hex(n / 4), 32, '0')::uuid, mod(n, 4) + 1, now()
    FROM generate_series(1, 20000) n;

    INSERT INTO analytics_service.ticket_facts (
        ticket_id, created_at, priority, settled_at, assignment_times, assignment_agents, resolution_times,
        resolution_agents, reopening_times, reopening_agents, resolution_stands
    )
    SELECT gen_random_uuid(), at, 'medium', at + interval '2 days', '{}', '{}', '{}', '{}', '{}', '{}', false
    FROM generate_series(now() - interval '3 years', now() - interval '3 days', '1 hour') at;
"""


class Index(NamedTuple):
    """What an index holds: columns by their numbers, and of which rows."""

    name: str
    table: str
    columns: list[str]
    which: str
    is_unique: bool

    def is_beginning_of(self, other: Self) -> bool:
        """Whether the other one answers whatever this one does, and this one keeps no rule."""
        same = (self.table, self.which, self.columns) == (other.table, other.which, other.columns[: len(self.columns)])
        return same and self.name != other.name and not self.is_unique


@pytest.fixture(scope="module")
def connection(module_dsn: str) -> Iterator[psycopg.Connection]:
    """A connection to a database in which tables are filled, and which reads none of them whole if it can help it."""
    load(module_dsn, 5_000, 1, UNTIL)
    with psycopg.connect(module_dsn, autocommit=True) as connection:
        connection.execute(FILL)
        connection.execute(b"ANALYZE")
        connection.execute(b"SET enable_seqscan = off")
        yield connection


def statements_of(schema: str) -> Iterator[Statement]:
    for module in SCHEMAS[schema]:
        yield from (it for it in vars(module).values() if isinstance(it, Statement))


def read_by(connection: psycopg.Connection, statement: Statement) -> set[str]:
    """The indexes by which PostgreSQL's plan of it for any parameters looks for rows.

    One that is read from end to end is none of those, unless it leaves rows out: any other would do.
    """
    if statement.sql.lstrip().startswith(UNPLANNED):
        return set()
    row = connection.execute(f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {statement.sql}".encode()).fetchone()
    assert row is not None
    scans = [node for node in nodes(row[0][0]["Plan"]) if "Index Name" in node]
    partial = {name for (name,) in connection.execute(PARTIAL)}
    return {node["Index Name"] for node in scans if "Index Cond" in node or node["Index Name"] in partial}


def idle(connection: psycopg.Connection, schema: str) -> set[str]:
    """The indexes that keep no rule, and that nothing reads."""
    indexes = {name for (name,) in connection.execute(INDEXES.encode(), [schema])}
    return indexes - set().union(*(read_by(connection, statement) for statement in statements_of(schema)))


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_index_is_read_by_some_statement_or_keeps_a_rule(connection: psycopg.Connection, schema: str) -> None:
    assert idle(connection, schema) == set()


@pytest.mark.parametrize(
    ("schema", "index"),
    [
        ("admin_service", "ON admin_service.support_tickets (updated_at)"),
        ("admin_service", "ON admin_service.ticket_events (actor_id) WHERE is_internal"),
        ("notification_service", "ON notification_service.notifications (event_id)"),
        ("analytics_service", "ON analytics_service.ticket_facts (settled_at)"),
    ],
)
def test_an_index_that_nothing_reads_is_found(connection: psycopg.Connection, schema: str, index: str) -> None:
    with connection.transaction(force_rollback=True):
        connection.execute(f"CREATE INDEX of_nobody {index}".encode())
        assert idle(connection, schema) == {"of_nobody"}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_no_statement_reads_another_schema(schema: str) -> None:
    for statement in statements_of(schema):
        assert [other for other in SCHEMAS if f"{other}." in statement.sql and other != schema] == []


def test_no_index_is_the_beginning_of_another_one(connection: psycopg.Connection) -> None:
    """The longer one would do for both."""
    indexes = [Index(*row) for row in connection.execute(COLUMNS.encode(), [list(SCHEMAS)])]
    pairs = [(one.name, other.name) for one in indexes for other in indexes if one.is_beginning_of(other)]
    assert pairs == []
