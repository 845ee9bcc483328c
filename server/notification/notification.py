"""What an inbox consists of, as its rows are read."""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID


class Notification(NamedTuple):
    """What one person is told about one change; the columns of its row that the person gets to see. Times are UTC."""

    id: UUID
    number: int
    type: str
    ticket_id: UUID
    subject: str
    priority: str
    status: str
    actor_id: UUID
    actor_role: str
    change_id: UUID
    occurred_at: datetime
    created_at: datetime
    read_at: datetime | None


class Standing(NamedTuple):
    """How far somebody's inbox has come: the highest number that was given out, and how many are unread."""

    last_number: int = 0
    unread_count: int = 0


class Preferences(NamedTuple):
    """What a recipient has muted: channels and types."""

    muted_channels: list[str]
    muted_types: list[str]
