"""The migrations of the schema `analytics_service`."""

from pathlib import Path

from server.analytics.schema import SCHEMA
from server.analytics.tables import metadata
from server.db.migrator import Migrations

MIGRATIONS = Migrations(SCHEMA, Path(__file__).with_name("versions"), metadata, lock=7_262_941_021)
