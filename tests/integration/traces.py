"""Looks for something in every column of every table, so that a new column can't be forgotten."""

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql

SCHEMAS = ["admin_service", "notification_service", "analytics_service"]
COLUMNS = """
    SELECT table_schema, table_name, column_name FROM information_schema.columns
    JOIN information_schema.tables USING (table_catalog, table_schema, table_name)
    WHERE table_type = 'BASE TABLE' AND table_schema = ANY (%s)
"""


def traces(dsn: str, *needles: object) -> dict[str, set[str]]:
    """For each needle that is found, the columns that hold it somewhere in their values as text, in any case."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        columns: Sequence[tuple[str, str, str]] = connection.execute(COLUMNS, [SCHEMAS]).fetchall()
        assert {schema for schema, _, _ in columns} == set(SCHEMAS)
        found = {
            str(needle): {".".join(column) for column in columns if _holds(connection, column, str(needle))}
            for needle in needles
        }
    return {needle: places for needle, places in found.items() if places}


def _holds(connection: psycopg.Connection[Any], column: tuple[str, str, str], needle: str) -> bool:
    schema, table, name = column
    statement = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE strpos(lower({}::text), lower(%s)) > 0)")
    row = connection.execute(statement.format(sql.Identifier(schema, table), sql.Identifier(name)), [needle]).fetchone()
    return bool(row and row[0])
