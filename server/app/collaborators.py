"""What the use cases work with, made from the settings: for the calls and for the sweeps alike."""

from datetime import timedelta
from typing import TYPE_CHECKING

from server.app.process import now
from server.domain.paging import PageTokens
from server.settings import Settings

if TYPE_CHECKING:
    from server.db.database import Database
    from server.usecases.collaborators import Collaborators


def collaborators(settings: Settings, database: "Database", page_token_key: bytes) -> "Collaborators":
    """The same for every process but for the database, and the key that page tokens are sealed with."""
    from uuid_utils.compat import uuid7

    from server.usecases.collaborators import Collaborators

    return Collaborators(
        db=database,
        page_tokens=PageTokens(page_token_key),
        clock=now,
        new_id=uuid7,
        idempotency_key_ttl=timedelta(seconds=settings.idempotency_key_ttl_seconds),
        reopen_on_comment=settings.reopen_on_comment,
        feedback_changeable_for=timedelta(seconds=settings.feedback_changeable_seconds),
        auto_close_after=timedelta(seconds=settings.auto_close_seconds),
    )
