"""What the use cases work with, made from the settings: for the calls and for the sweeps alike."""

import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from server.app.process import now
from server.domain.paging import PageTokens
from server.settings import Settings

if TYPE_CHECKING:
    from server.clients.bearer import BearerFile
    from server.clients.order_service import OrderBook
    from server.clients.user_service import AsyncUserDirectory
    from server.db.database import Database
    from server.usecases.collaborators import Collaborators


def collaborators(settings: Settings, database: "Database", page_token_key: bytes) -> "Collaborators":
    """The same for every process but for the database, and the key that page tokens are sealed with.

    To be made where the event loop runs that will use them, and closed there.
    """
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
        order_fresh=timedelta(seconds=settings.order_fresh_seconds),
        orders=_order_book(settings),
        users=_user_directory(settings),
    )


def _order_book(settings: Settings) -> "OrderBook | None":
    from server.clients.order_service import OrderBook, connect

    if settings.order_service_target is None:
        return None
    channel, token = connect(settings.order_service_target), _bearer(settings.order_service_token_file)
    return OrderBook(channel, time.monotonic, settings.order_service_timeout_seconds, token)


def _user_directory(settings: Settings) -> "AsyncUserDirectory | None":
    from server.clients.user_service import AsyncUserDirectory, connect_async

    if settings.user_service_target is None:
        return None
    channel, token = connect_async(settings.user_service_target), _bearer(settings.user_service_token_file)
    return AsyncUserDirectory(channel, time.monotonic, settings.user_service_timeout_seconds, token)


def _bearer(file: Path | None) -> "BearerFile | None":
    from server.clients.bearer import BearerFile

    return BearerFile(file) if file else None
