"""What the use cases work with, handed in by the composition root."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from server.db.database import Database
from server.domain.paging import PageTokens


class Collaborators(NamedTuple):
    """The database, the clock (UTC), the maker of ids (UUID version 7) and the service's own choices."""

    db: Database
    page_tokens: PageTokens
    clock: Callable[[], datetime]
    new_id: Callable[[], UUID]
    idempotency_key_ttl: timedelta
    reopen_on_comment: bool
    feedback_changeable_for: timedelta
    auto_close_after: timedelta
