"""The migrations of the schema `notification_service`."""

from pathlib import Path

from server.db.migrator import Migrations
from server.notification.schema import SCHEMA
from server.notification.tables import metadata

MIGRATIONS = Migrations(SCHEMA, Path(__file__).with_name("versions"), metadata, lock=7_262_941_011)
