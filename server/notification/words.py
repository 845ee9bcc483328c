"""The words of the Notification Service, the same in its tables, in its proto and in the events that it reads."""

from enum import IntEnum, StrEnum

ERASED = "[erased]"
"""Stands where a subject was, as in the events of tickets that were erased."""


class Type(StrEnum):
    """What a notification tells."""

    TICKET_CREATED = "ticket_created"
    TICKET_ASSIGNED = "ticket_assigned"
    TICKET_COMMENTED = "ticket_commented"
    TICKET_STATUS_CHANGED = "ticket_status_changed"
    TICKET_RESOLVED = "ticket_resolved"
    TICKET_CLOSED = "ticket_closed"


class Channel(StrEnum):
    """How a notification reaches its recipient."""

    INBOX = "inbox"
    EMAIL = "email"


class Status(StrEnum):
    """Where a ticket stands."""

    OPEN = "open"
    IN_PROGRESS = "in_progress"
    RESOLVED = "resolved"
    CLOSED = "closed"


class Priority(StrEnum):
    """How soon a ticket wants an answer."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    URGENT = "urgent"


class EmailKind(StrEnum):
    """`single` tells one notification, `digest` those that came within a while."""

    SINGLE = "single"
    DIGEST = "digest"


class Rank(IntEnum):
    """Which of the e-mails that are due goes first: one of a lower rank."""

    PRESSING = 0
    """To staff, of a ticket that presses."""
    SINGLE = 1
    """To owners, of anything."""
    DIGEST = 2
    """To staff, of all else."""


class EmailState(StrEnum):
    """`waiting`, or one of three ends: `sent`, `dead` (given up), `dropped` (nothing to say, or nowhere to send it)."""

    WAITING = "waiting"
    SENT = "sent"
    DEAD = "dead"
    DROPPED = "dropped"
