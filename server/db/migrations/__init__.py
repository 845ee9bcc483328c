"""Migrations of the schema `admin_service`, run by Alembic under one lock."""

from pathlib import Path

import psycopg
import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext

from server.db.tables import SCHEMA

# One migrator at a time, whoever else starts; the number is arbitrary and only has to stay the same.
_LOCK = 7_262_941_001


def migrate(dsn: str, revision: str = "head") -> str | None:
    """Bring the database at `dsn` to `revision`, waiting while another migrator is at work.

    Returns:
        The revision that the database is at now.

    Raises:
        sqlalchemy.exc.DBAPIError: PostgreSQL can't be reached or refuses; `orig` is psycopg's own error.
    """
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(dsn), poolclass=sqlalchemy.NullPool
    )
    with engine.connect() as connection, connection.begin():
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        return MigrationContext.configure(connection, opts={"version_table_schema": SCHEMA}).get_current_revision()
