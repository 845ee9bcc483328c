"""Looks for something in every column of every table, so that a new column can't be forgotten."""

from typing import Any

import psycopg
from psycopg import sql

SCHEMAS = ["admin_service", "notification_service", "analytics_service"]
TABLES = """
    SELECT table_schema, table_name FROM information_schema.tables
    WHERE table_type = 'BASE TABLE' AND table_schema = ANY (%s)
"""
# Each table is read once, whole rows first: the tables of a stage can have a million rows.
FOUND = sql.SQL("""
    SELECT DISTINCT needle, field.key FROM {} AS whole
    CROSS JOIN LATERAL jsonb_each_text(to_jsonb(whole)) AS field
    JOIN unnest(%(needles)s::text[]) AS needle ON strpos(lower(field.value), lower(needle)) > 0
    WHERE lower(whole::text) LIKE ANY (%(patterns)s)
""")


def traces(dsn: str, *needles: object) -> dict[str, set[str]]:
    """For each needle that is found, the columns that hold it somewhere in their values as text, in any case.

    A needle has neither a quote nor a backslash, which look different in the text of a whole row.
    """
    wanted = [str(needle) for needle in needles]
    assert not [needle for needle in wanted if set(needle) & set("\"\\'")]
    found: dict[str, set[str]] = {}
    with psycopg.connect(dsn, autocommit=True) as connection:
        tables: list[tuple[str, str]] = connection.execute(TABLES, [SCHEMAS]).fetchall()
        assert {schema for schema, _ in tables} == set(SCHEMAS)
        for schema, table in tables:
            for needle, column in _found_in(connection, sql.Identifier(schema, table), wanted):
                found.setdefault(needle, set()).add(f"{schema}.{table}.{column}")
    return found


def _found_in(connection: psycopg.Connection[Any], table: sql.Identifier, needles: list[str]) -> list[tuple[str, str]]:
    patterns = [f"%{needle.lower()}%" for needle in needles]
    found = connection.execute(FOUND.format(table), {"needles": needles, "patterns": patterns})
    rows: list[tuple[str, str]] = found.fetchall()
    return rows
