"""Migrations lead from nothing to exactly the declared tables, however often and by however many they are run."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from server.analytics.migrations import MIGRATIONS as ANALYTICS
from server.db.database import Database, PoolLimits
from server.db.migrations import MIGRATIONS as SUPPORT
from server.db.migrator import Migrations, migrate
from server.db.statements import PROBE
from server.notification.migrations import MIGRATIONS as NOTIFICATION

EVERY_SERVICE = (SUPPORT, NOTIFICATION, ANALYTICS)

# What a catalog says of a schema, in an order of its own; names of constraints and their text included.
COLUMNS = """
    SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity::text,
        a.attgenerated::text, pg_get_expr(d.adbin, d.adrelid)
    FROM pg_attribute a
    JOIN pg_class c ON c.oid = a.attrelid AND c.relkind = 'r'
    JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = %s
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attnum > 0 AND c.relname <> 'alembic_version'
    ORDER BY c.relname, a.attnum
"""
CONSTRAINTS = """
    SELECT conrelid::regclass::text, conname, contype::text, pg_get_constraintdef(oid)
    FROM pg_constraint
    WHERE connamespace = %s::regnamespace AND conrelid::regclass::text NOT LIKE '%%alembic_version'
    ORDER BY 1, 2
"""
INDEXES = """
    SELECT tablename, indexname, indexdef FROM pg_indexes
    WHERE schemaname = %s AND tablename <> 'alembic_version'
    ORDER BY 1, 2
"""
STORAGE = """
    SELECT relname, reloptions FROM pg_class
    WHERE relnamespace = %s::regnamespace AND reloptions IS NOT NULL
    ORDER BY 1
"""


OTHER_SESSIONS = b"""
    SELECT pid, query FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def until_alone(connection: psycopg.Connection) -> None:
    """Wait until this is the database's only session, at most five seconds."""
    deadline = time.monotonic() + 5
    while others := connection.execute(OTHER_SESSIONS).fetchall():
        assert time.monotonic() < deadline, others


def engine_for(dsn: str) -> sqlalchemy.Engine:
    return sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn))


@pytest.fixture(params=EVERY_SERVICE, ids=lambda migrations: migrations.schema)
def migrations(request: pytest.FixtureRequest) -> Migrations:
    """Those of each service."""
    found: Migrations = request.param
    return found


def catalog(dsn: str, schema: str) -> dict[str, list[tuple[Any, ...]]]:
    """Columns, constraints, indexes and storage settings of the schema."""
    with psycopg.connect(dsn) as connection:
        queries = {"columns": COLUMNS, "constraints": CONSTRAINTS, "indexes": INDEXES, "storage": STORAGE}
        return {name: connection.execute(query.encode(), [schema]).fetchall() for name, query in queries.items()}


def create_declared_tables(dsn: str, migrations: Migrations) -> None:
    """The tables as the service declares them, without any migration."""
    engine = engine_for(dsn)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.schema.CreateSchema(migrations.schema))
        migrations.metadata.create_all(connection)
    engine.dispose()


def test_the_migrated_schema_is_the_declared_one_to_the_last_constraint(
    migrations: Migrations, empty_dsn: str, another_empty_dsn: str
) -> None:
    migrate(empty_dsn, migrations)
    create_declared_tables(another_empty_dsn, migrations)
    migrated, declared = catalog(empty_dsn, migrations.schema), catalog(another_empty_dsn, migrations.schema)
    assert migrated == declared
    assert migrated["storage"] or migrations is not SUPPORT
    assert {row[0] for row in migrated["columns"]} == {table.name for table in migrations.metadata.sorted_tables}


# Alembic can't change a generated column, and says so; the comparison above looks at it.
@pytest.mark.filterwarnings("ignore:Computed default on:UserWarning")
def test_autogenerate_finds_nothing_to_migrate(migrations: Migrations, dsn: str) -> None:
    engine = engine_for(dsn)
    options = {
        "include_schemas": True,
        "include_name": lambda name, kind, _parents: kind != "schema" or name == migrations.schema,
        "version_table_schema": migrations.schema,
        "compare_type": True,
        "compare_server_default": True,
    }
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, migrations.metadata) == []
    engine.dispose()


def test_a_second_migration_changes_nothing(migrations: Migrations, empty_dsn: str) -> None:
    revision = migrate(empty_dsn, migrations)
    before = catalog(empty_dsn, migrations.schema)
    assert migrate(empty_dsn, migrations) == revision
    assert revision is not None
    assert catalog(empty_dsn, migrations.schema) == before


def test_several_migrators_at_once_all_arrive(migrations: Migrations, empty_dsn: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        revisions = set(pool.map(migrate, [empty_dsn] * 4, [migrations] * 4))
    assert len(revisions) == 1
    assert catalog(empty_dsn, migrations.schema)["columns"]


def test_no_two_services_wait_for_each_others_migrations() -> None:
    assert len({migrations.lock for migrations in EVERY_SERVICE}) == len(EVERY_SERVICE)


def test_a_migration_that_is_cut_off_leaves_nothing(empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        # A table that is in the way of the last statement.
        connection.execute(b"CREATE SCHEMA admin_service")
        connection.execute(b"CREATE TABLE admin_service.idempotency_keys ()")
        with pytest.raises(sqlalchemy.exc.ProgrammingError):
            migrate(empty_dsn, SUPPORT)
        until_alone(connection)
        connection.execute(b"DROP TABLE admin_service.idempotency_keys")
    assert catalog(empty_dsn, SUPPORT.schema)["columns"] == []
    assert migrate(empty_dsn, SUPPORT) is not None


async def test_a_database_without_the_schema_says_what_to_do(empty_dsn: str) -> None:
    assert "run the migrations" in str(await problem_at(empty_dsn))


async def test_a_migrated_database_has_no_problem(dsn: str) -> None:
    assert await problem_at(dsn) is None


async def test_a_database_that_is_not_there_is_a_problem_in_words(empty_dsn: str) -> None:
    assert await problem_at(empty_dsn.replace("/test_", "/no_such_"))


async def problem_at(dsn: str) -> str | None:
    """What keeps the service from working with that database."""
    database = Database(dsn, PoolLimits(timeout=0.5), PROBE)
    await database.open()
    try:
        return await database.problem()
    finally:
        await database.close()
