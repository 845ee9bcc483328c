"""The tickets and comments that calls are made about: the same ones at every run, so that figures can be compared."""

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import psycopg

SEED = 20_251
OWNERS, AGENTS, TICKETS = 400, 40, 4_000
"""So many callers that the gateway's limits, which are for each caller, refuse none of them."""

FIRST_DAY = datetime(2026, 6, 1, tzinfo=UTC)
DAYS = 90
MOST_COMMENTS = 12
_SENTENCES = (
    "The order came an hour late and the soup was cold.",
    "Two of the five dishes were missing, though the receipt has all of them.",
    "The driver called from the wrong street and then went away.",
    "I was charged twice for the same delivery.",
    "The voucher from last week was refused at the end of the order.",
    "Please tell me when the money will be back on my account.",
    "The restaurant says that it never got the order.",
    "Nobody has answered since yesterday evening.",
)
_SUBJECTS = ("Cold soup", "Two dishes are missing", "Charged twice", "The driver never came", "A voucher was refused")
_WORDS = ("open", "in_progress", "resolved", "closed")
_PRIORITIES = ("low", "medium", "high", "urgent")

_TICKET_ROWS = """
    COPY admin_service.support_tickets (
        id, user_id, subject, description, status, priority, created_at, updated_at, resolved_at, quiet_since, version,
        event_count, history_count, unattended_since
    ) FROM STDIN
"""
_COMMENT_ROWS = """
    COPY admin_service.ticket_comments (
        id, ticket_id, user_id, comment, is_internal, created_at, author_role
    ) FROM STDIN
"""


class KnownTicket(NamedTuple):
    """What callers need to know of a ticket."""

    id: UUID
    owner: UUID
    status: str
    priority: str
    created_at: datetime
    comments: int


class DataSet(NamedTuple):
    """Who calls, and the tickets in three parts, so that one kind of call does not change what another one reads."""

    owners: Sequence[UUID]
    agents: Sequence[UUID]
    read: Sequence[KnownTicket]
    """Of every status, with comments; nobody changes them."""
    discussed: Sequence[KnownTicket]
    """Get comments."""
    moved: Sequence[KnownTicket]
    """Open at first; get from status to status."""

    @property
    def tickets(self) -> Sequence[KnownTicket]:
        """All of them."""
        return [*self.read, *self.discussed, *self.moved]


def data_set(seed: int = SEED) -> DataSet:
    """The data set of this seed."""
    dice = random.Random(seed)  # noqa: S311 - nothing secret
    owners = [_uuid(dice, FIRST_DAY) for _ in range(OWNERS)]
    agents = [_uuid(dice, FIRST_DAY) for _ in range(AGENTS)]
    half, fifth = TICKETS // 2, TICKETS // 5
    return DataSet(
        owners,
        agents,
        read=[_ticket(dice, owners, dice.choice(_WORDS), dice.randint(0, MOST_COMMENTS)) for _ in range(half)],
        discussed=[_ticket(dice, owners, dice.choice(_WORDS[:2]), 0) for _ in range(TICKETS - half - fifth)],
        moved=[_ticket(dice, owners, "open", 0) for _ in range(fifth)],
    )


def subject(dice: random.Random) -> str:
    """A subject as customers write it."""
    return f"{dice.choice(_SUBJECTS)}, order {dice.randint(1_000, 9_999)}"


def story(dice: random.Random) -> str:
    """A description of some 300 characters."""
    return " ".join(dice.choices(_SENTENCES, k=6))


def remark(dice: random.Random) -> str:
    """A comment of some 100 characters."""
    return " ".join(dice.choices(_SENTENCES, k=2))


def load(dsn: str, data: DataSet, seed: int = SEED) -> None:
    """Copy the data set into an empty, migrated database, and let PostgreSQL look at it."""
    dice = random.Random(seed)  # noqa: S311
    with psycopg.connect(dsn, autocommit=True) as connection:
        with connection.transaction(), connection.cursor() as cursor:
            for table, rows in _tables(data, dice):
                with cursor.copy(table.encode()) as copy:
                    for row in rows:
                        copy.write_row(row)
        connection.execute("VACUUM ANALYZE")


def _tables(data: DataSet, dice: random.Random) -> Iterator[tuple[str, Iterator[Sequence[object]]]]:
    yield _TICKET_ROWS, (_ticket_row(ticket, dice) for ticket in data.tickets)
    yield _COMMENT_ROWS, (row for ticket in data.tickets for row in _comment_rows(ticket, dice))


def _ticket_row(ticket: KnownTicket, dice: random.Random) -> Sequence[object]:
    at = ticket.created_at
    resolved = at + timedelta(days=1) if ticket.status in ("resolved", "closed") else None
    quiet = resolved if ticket.status == "resolved" else None
    said = (subject(dice), story(dice), ticket.status, ticket.priority)
    return ticket.id, ticket.owner, *said, at, resolved or at, resolved, quiet, 1, 1, 1, at


def _comment_rows(ticket: KnownTicket, dice: random.Random) -> Iterator[Sequence[object]]:
    for number in range(ticket.comments):
        at = ticket.created_at + timedelta(minutes=10 * (number + 1))
        yield _uuid(dice, at), ticket.id, ticket.owner, remark(dice), False, at, "customer"


def _ticket(dice: random.Random, owners: Sequence[UUID], status: str, comments: int) -> KnownTicket:
    at = FIRST_DAY + timedelta(seconds=dice.randrange(DAYS * 86_400))
    return KnownTicket(_uuid(dice, at), dice.choice(owners), status, dice.choice(_PRIORITIES), at, comments)


def _uuid(dice: random.Random, at: datetime) -> UUID:
    """A UUID of version 7, as the service makes them."""
    milliseconds = int(at.timestamp() * 1000)
    return UUID(int=milliseconds << 80 | 7 << 76 | dice.getrandbits(12) << 64 | 2 << 62 | dice.getrandbits(62))
