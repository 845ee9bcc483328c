"""The two things support works on, in the words of the contract's sections 2 and 3."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from server.domain.callers import Role


class Status(StrEnum):
    """Where a ticket stands; `closed` is final."""

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


# Triage goes by priority, most urgent first: the rank is what the lists are ordered by.
TRIAGE_RANK = {Priority.URGENT: 0, Priority.HIGH: 1, Priority.MEDIUM: 2, Priority.LOW: 3}


Findings = Sequence[Mapping[str, Any]] | None
"""What was masked in the texts of a ticket or comment, as their row has it: each with field, kind, start and length."""


class Ticket(NamedTuple):
    """One row of `support_tickets`, its columns in this order. Times are UTC."""

    id: UUID
    user_id: UUID
    order_id: UUID | None
    subject: str
    description: str
    status: str
    priority: str
    assigned_to: UUID | None
    resolved_at: datetime | None
    resolution_notes: str | None
    created_at: datetime
    updated_at: datetime
    version: int
    flagged_at: datetime | None = None
    findings: Findings = None

    def as_created(self) -> "Ticket":
        """The ticket as its creation answered it, which is what a retried CreateTicket gets again."""
        return self._replace(
            status=Status.OPEN,
            assigned_to=None,
            resolved_at=None,
            resolution_notes=None,
            updated_at=self.created_at,
            version=1,
            flagged_at=None,
            findings=self.findings_at_creation() or None,
        )

    def findings_at_creation(self) -> list[Mapping[str, Any]]:
        """What was masked in the texts that a ticket is created with; those of the notes come and go with the notes."""
        return [found for found in self.findings or () if found["field"] in ("subject", "description")]


class Comment(NamedTuple):
    """One row of `ticket_comments`, its columns in this order. Times are UTC."""

    id: UUID
    ticket_id: UUID
    user_id: UUID
    comment: str
    is_internal: bool
    created_at: datetime
    author_role: Role
    findings: Findings = None
