"""The migrations of every service."""

import structlog

from server.app.process import StartError
from server.settings import Settings

_log = structlog.stdlib.get_logger("nibble.app")


def run_migrate(settings: Settings) -> int:
    """Bring the schemas of all services up to date; returns the exit code.

    Raises:
        StartError: the database can't be reached, or refuses a migration.
    """
    from sqlalchemy.exc import DBAPIError

    from server.analytics.migrations import MIGRATIONS as ANALYTICS
    from server.db.migrations import MIGRATIONS as SUPPORT
    from server.db.migrator import migrate
    from server.notification.migrations import MIGRATIONS as NOTIFICATION

    for migrations in (SUPPORT, NOTIFICATION, ANALYTICS):
        try:
            revision = migrate(settings.database_url, migrations)
        except DBAPIError as error:
            raise StartError(f"the database (DATABASE_URL) can't be migrated: {error.orig}") from error
        _log.info("migrated", schema=migrations.schema, revision=revision)
    return 0
