"""Rows of the service's tables in the binary format of COPY, for tickets that were invented."""

import struct
from typing import NamedTuple

from bench.binary_copy import FALSE, NULL, TRUE, binary, fields, jsonb, moment, number, text, uuid
from bench.world import Person
from server.domain.events import EventType, Reason
from server.domain.tickets import Priority, Status

TABLES = {
    "agents": (
        "id", "display_name", "role", "tier", "capacity", "active", "availability", "away_until", "availability_since",
        "created_at", "updated_at",
    ),
    "support_tickets": (
        "id", "user_id", "order_id", "subject", "description", "status", "priority", "assigned_to", "resolved_at",
        "resolution_notes", "created_at", "updated_at", "version", "event_count", "history_count", "unattended_since",
        "flagged_at", "quiet_since", "findings",
    ),
    "ticket_comments": (
        "id", "ticket_id", "user_id", "comment", "is_internal", "created_at", "author_role", "findings",
    ),
    "ticket_events": (
        "id", "ticket_id", "position", "sequence", "change_id", "event_type", "occurred_at", "actor_id", "actor_role",
        "is_internal", "from_status", "to_status", "assigned_to", "previous_assignee", "reason", "comment_id",
        "author_role", "has_resolution_notes", "ticket", "published_at", "rating", "erased_user_id",
    ),
    "ticket_orders": ("ticket_id", "order_id", "state", "snapshot", "fetched_at", "next_try_at", "attempts"),
    "ticket_feedback": ("ticket_id", "rating", "remark", "resolved_by", "rated_at", "updated_at", "findings"),
    "idempotency_keys": ("caller_id", "call", "key", "payload_hash", "resource_id", "created_at"),
}  # fmt: skip
"""Each table that is filled, with the columns of its rows in their order."""

CAPACITY = 100
RELAYED_WITHIN = 20_000
"""Microseconds from an event to its being sent."""

_ROW = {table: fields(len(columns)) for table, columns in TABLES.items()}
# An event from its beginning up to its change: the row, id, ticket, position, sequence, change. Packed at once, since
# nothing else is as frequent.
_EVENT = struct.Struct(">hi16si16siiiii16s")
_EVENT_FIELDS = len(TABLES["ticket_events"])
_STATUS = {status: text(status) for status in Status}
_PRIORITY = {priority: text(priority) for priority in Priority}
_TYPE = {type_: text(type_) for type_ in EventType}
_REASON = {reason: text(reason) for reason in Reason}
_ASSIGNED, _COMMENTED, _RATED = (
    _TYPE[type_] for type_ in (EventType.TICKET_ASSIGNED, EventType.TICKET_COMMENTED, EventType.TICKET_RATED)
)
_PAYLOAD_HASH, _CREATE_CALL = binary(bytes(32)), text("CreateTicket")
_PENDING, _KNOWN, _UNKNOWN = text("pending"), text("known"), text("unknown_order")


class Said(NamedTuple):
    """What an event says beside what every one says, in fields."""

    type: bytes
    details: bytes
    """The fields from `from_status` to `has_resolution_notes`."""
    rating: bytes = NULL


CREATED = Said(_TYPE[EventType.TICKET_CREATED], NULL * 8)
FLAGGED = Said(_TYPE[EventType.TICKET_FLAGGED], NULL * 4 + _REASON[Reason.UNATTENDED] + NULL * 3)


def moved(before: Status, after: Status, reason: Reason) -> Said:
    """A change of status."""
    details = _STATUS[before] + _STATUS[after] + NULL * 2 + _REASON[reason] + NULL * 3
    return Said(_TYPE[EventType.TICKET_STATUS_CHANGED], details)


def resolved(*, with_notes: bool) -> Said:
    """What goes with a change to `resolved`."""
    return Said(_TYPE[EventType.TICKET_RESOLVED], NULL * 7 + (TRUE if with_notes else FALSE))


def closed(reason: Reason) -> Said:
    """What goes with a change to `closed`."""
    return Said(_TYPE[EventType.TICKET_CLOSED], NULL * 4 + _REASON[reason] + NULL * 3)


def assigned(agent: Person, reason: Reason) -> Said:
    """A first assignment."""
    return Said(_ASSIGNED, NULL * 2 + agent.id + NULL + _REASON[reason] + NULL * 3)


def commented(comment: bytes, author: Person) -> Said:
    """A comment, by its id."""
    return Said(_COMMENTED, NULL * 5 + uuid(comment) + author.role + NULL)


def rated(rating: int, resolver: Person) -> Said:
    """What the owner thinks."""
    return Said(_RATED, NULL * 2 + resolver.id + NULL * 5, number(rating))


def event(
    id_: bytes,
    ticket: bytes,
    numbers: tuple[int, int],
    change: bytes,
    at: int,
    actor: Person,
    said: Said,
    snapshot: bytes,
) -> bytes:
    """A row of `ticket_events` that was sent. `numbers`: its position and its sequence; `snapshot` is a field."""
    position, sequence = numbers
    row = (
        _EVENT.pack(_EVENT_FIELDS, 16, id_, 16, ticket, 4, position, 4, sequence, 16, change), said.type, moment(at),
        actor.id, actor.role, FALSE, said.details, snapshot, moment(at + RELAYED_WITHIN), said.rating, NULL,
    )  # fmt: skip
    return b"".join(row)


def internal_entry(
    id_: bytes, ticket: bytes, position: int, change: bytes, at: int, actor: Person, said: Said
) -> bytes:
    """A row of `ticket_events` that is no event."""
    row = (
        _ROW["ticket_events"], uuid(id_), uuid(ticket), number(position), NULL, uuid(change), said.type, moment(at),
        actor.id, actor.role, TRUE, said.details, NULL, NULL, NULL, NULL,
    )  # fmt: skip
    return b"".join(row)


def comment(id_: bytes, ticket: bytes, author: Person, said: bytes, at: int, *, is_internal: bool) -> bytes:
    """A row of `ticket_comments`. `said` is a field."""
    row = (
        _ROW["ticket_comments"], uuid(id_), uuid(ticket), author.id, said, TRUE if is_internal else FALSE, moment(at),
        author.role, NULL,
    )  # fmt: skip
    return b"".join(row)


class Ticket(NamedTuple):
    """What a row of `support_tickets` says; times are microseconds since 1970, 0 where there is none, texts fields."""

    id: bytes
    user: Person
    order_id: bytes | None
    subject: bytes
    description: bytes
    status: Status
    priority: Priority
    assigned_to: Person | None
    resolved_at: int
    resolution_notes: bytes
    created_at: int
    updated_at: int
    version: int
    event_count: int
    history_count: int
    unattended_since: int
    flagged_at: int
    quiet_since: int


def ticket(it: Ticket) -> bytes:
    """A row of `support_tickets`."""
    row = (
        _ROW["support_tickets"], uuid(it.id), it.user.id, NULL if it.order_id is None else uuid(it.order_id),
        it.subject, it.description, _STATUS[it.status], _PRIORITY[it.priority],
        NULL if it.assigned_to is None else it.assigned_to.id, _moment_if_any(it.resolved_at),
        it.resolution_notes, moment(it.created_at), moment(it.updated_at), number(it.version), number(it.event_count),
        number(it.history_count), moment(it.unattended_since), _moment_if_any(it.flagged_at),
        _moment_if_any(it.quiet_since), NULL,
    )  # fmt: skip
    return b"".join(row)


def _moment_if_any(at: int) -> bytes:
    return moment(at) if at else NULL


def known_order(ticket: bytes, order: bytes, snapshot: str, created: int, asked: int) -> bytes:
    """A row of `ticket_orders` of which the Order Service has told something."""
    return _order(ticket, order, _KNOWN + jsonb(snapshot) + moment(asked), created)


def unknown_order(ticket: bytes, order: bytes, created: int, asked: int) -> bytes:
    """One that the Order Service does not know."""
    return _order(ticket, order, _UNKNOWN + NULL + moment(asked), created)


def pending_order(ticket: bytes, order: bytes, created: int) -> bytes:
    """One that it was not asked for yet."""
    return _order(ticket, order, _PENDING + NULL * 2, created)


def _order(ticket: bytes, order: bytes, told: bytes, created: int) -> bytes:
    return b"".join((_ROW["ticket_orders"], uuid(ticket), uuid(order), told, moment(created), number(0)))


def feedback(ticket: bytes, rating: int, resolver: Person, at: int) -> bytes:
    """A row of `ticket_feedback`."""
    row = (_ROW["ticket_feedback"], uuid(ticket), number(rating), NULL, resolver.id, moment(at), moment(at), NULL)
    return b"".join(row)


def key_of_creation(caller: Person, key: str, ticket: bytes, at: int) -> bytes:
    """A row of `idempotency_keys`."""
    row = (
        _ROW["idempotency_keys"], caller.id, _CREATE_CALL, text(key), _PAYLOAD_HASH, uuid(ticket), moment(at),
    )  # fmt: skip
    return b"".join(row)


def agent(person: Person, since: int) -> bytes:
    """A row of `agents`."""
    row = (
        _ROW["agents"], person.id, text("Ada"), person.role, number(1), number(CAPACITY), TRUE,
        text("available"), NULL, moment(since), moment(since), moment(since),
    )  # fmt: skip
    return b"".join(row)
