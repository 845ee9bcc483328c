"""What the use cases work with, handed in by the composition root."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from server.clients.order_service import OrderBook
from server.clients.user_service import AsyncUserDirectory
from server.db.database import Database
from server.domain.paging import PageTokens


class Collaborators(NamedTuple):
    """The database, the clock (UTC), the maker of ids (UUID version 7), the service's own choices, and other services.

    Those that are None can't be asked.
    """

    db: Database
    page_tokens: PageTokens
    clock: Callable[[], datetime]
    new_id: Callable[[], UUID]
    idempotency_key_ttl: timedelta
    reopen_on_comment: bool
    feedback_changeable_for: timedelta
    auto_close_after: timedelta
    order_fresh: timedelta
    """How long the Order Service is not asked again for an order that it has told of."""
    orders: OrderBook | None = None
    users: AsyncUserDirectory | None = None

    async def close(self) -> None:
        """Hang up on other services; the database is closed by whoever opened it."""
        for service in (self.orders, self.users):
            if service is not None:
                await service.close()
