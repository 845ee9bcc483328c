"""Migrations of one schema, run by Alembic under one lock."""

from pathlib import Path
from typing import NamedTuple

import psycopg
import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext


class Migrations(NamedTuple):
    """What leads from nothing to the tables of a schema.

    `versions` is the folder of the steps, `metadata` declares the tables that they come to. `lock` keeps a second
    migrator of the same schema waiting; the number is arbitrary, but each schema has another, and keeps it.
    """

    schema: str
    versions: Path
    metadata: sqlalchemy.MetaData
    lock: int


def migrate(dsn: str, migrations: Migrations, revision: str = "head") -> str | None:
    """Bring the schema in the database at `dsn` to `revision`, waiting while another migrator is at work.

    Returns:
        The revision that the schema is at now.

    Raises:
        sqlalchemy.exc.DBAPIError: PostgreSQL can't be reached or refuses; `orig` is psycopg's own error.
    """
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(dsn), poolclass=sqlalchemy.NullPool
    )
    with engine.connect() as connection, connection.begin():
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({migrations.lock})")
        connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {migrations.schema}")
        command.upgrade(_config(connection, migrations), revision)
        versions = {"version_table_schema": migrations.schema}
        return MigrationContext.configure(connection, opts=versions).get_current_revision()


def _config(connection: sqlalchemy.Connection, migrations: Migrations) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "newline")  # a folder's name may hold blanks
    config.set_main_option("version_locations", str(migrations.versions))
    config.attributes.update(connection=connection, migrations=migrations)
    return config
