"""The migrations of the schema `admin_service`."""

from pathlib import Path

from server.db.migrator import Migrations
from server.db.schema import SCHEMA
from server.db.tables import metadata

MIGRATIONS = Migrations(SCHEMA, Path(__file__).with_name("versions"), metadata, lock=7_262_941_001)
