"""The tables of the schema `admin_service`, with the indexes that each list and the relay rest on.

The migrations create them; a test compares the two.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql.elements import ColumnElement

from server.domain.callers import Role
from server.domain.events import EventType
from server.domain.tickets import TRIAGE_RANK, Priority, Status

SCHEMA = "admin_service"
metadata = MetaData(schema=SCHEMA)

Moment = DateTime(timezone=True)


def _one_of(column: str, values: type[Status | Priority | Role | EventType]) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


_RANK = " ".join(f"WHEN '{priority}' THEN {rank}" for priority, rank in TRIAGE_RANK.items())

tickets = Table(
    "support_tickets",
    metadata,
    Column("id", Uuid, nullable=False),
    Column("user_id", Uuid, nullable=False),
    Column("order_id", Uuid),
    Column("subject", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("priority", Text, nullable=False),
    Column("assigned_to", Uuid),
    Column("resolved_at", Moment),
    Column("resolution_notes", Text),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("version", Integer, nullable=False),
    # Triage order as a number, so that (rank, created_at, id) is one ascending key.
    Column("triage_rank", SmallInteger, Computed(f"CASE priority {_RANK} END", persisted=True), nullable=False),
    # Numbers already given out to this ticket's events and history entries. They move under the row's lock, which is
    # what makes both sequences gapless and in commit order.
    Column("event_count", Integer, nullable=False),
    Column("history_count", Integer, nullable=False),
    PrimaryKeyConstraint("id", name="support_tickets_pkey"),
    CheckConstraint(_one_of("status", Status), name="support_tickets_status_known"),
    CheckConstraint(_one_of("priority", Priority), name="support_tickets_priority_known"),
)
Index(
    "support_tickets_by_status",
    tickets.c.status,
    tickets.c.triage_rank,
    tickets.c.created_at,
    tickets.c.id,
)
Index(
    "support_tickets_unassigned",
    tickets.c.status,
    tickets.c.triage_rank,
    tickets.c.created_at,
    tickets.c.id,
    postgresql_where=text("assigned_to IS NULL"),
)
Index(
    "support_tickets_by_assignee",
    tickets.c.assigned_to,
    tickets.c.status,
    tickets.c.triage_rank,
    tickets.c.created_at,
    tickets.c.id,
    postgresql_where=text("assigned_to IS NOT NULL"),
)
Index("support_tickets_by_user", tickets.c.user_id, tickets.c.status, tickets.c.created_at, tickets.c.id)

comments = Table(
    "ticket_comments",
    metadata,
    Column("id", Uuid, nullable=False),
    Column("ticket_id", Uuid, nullable=False),
    Column("user_id", Uuid, nullable=False),
    Column("comment", Text, nullable=False),
    Column("is_internal", Boolean, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("author_role", Text, nullable=False),
    PrimaryKeyConstraint("id", name="ticket_comments_pkey"),
    ForeignKeyConstraint(["ticket_id"], [tickets.c.id], name="ticket_comments_ticket_id_fkey"),
    CheckConstraint(_one_of("author_role", Role), name="ticket_comments_author_role_known"),
)
Index("ticket_comments_by_ticket", comments.c.ticket_id, comments.c.created_at, comments.c.id)

# Append-only: the audit trail and the outbox at once. `sequence` and `ticket` are null for internal notes, which are
# history but never events. `published_at` is null until Kafka has acknowledged the event.
events = Table(
    "ticket_events",
    metadata,
    Column("id", Uuid, nullable=False),
    # Order of insertion. For one ticket it follows `position`, since a row is inserted under its ticket's lock; across
    # tickets a later number can commit first, so it orders unsent rows and is never used as a cursor.
    Column("row_no", BigInteger, Identity(always=True), nullable=False),
    Column("ticket_id", Uuid, nullable=False),
    Column("position", Integer, nullable=False),
    Column("sequence", Integer),
    Column("change_id", Uuid, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("occurred_at", Moment, nullable=False),
    Column("actor_id", Uuid, nullable=False),
    Column("actor_role", Text, nullable=False),
    Column("is_internal", Boolean, nullable=False),
    Column("from_status", Text),
    Column("to_status", Text),
    Column("assigned_to", Uuid),
    Column("previous_assignee", Uuid),
    Column("reason", Text),
    Column("comment_id", Uuid),
    Column("author_role", Text),
    Column("has_resolution_notes", Boolean),
    Column("ticket", JSONB),
    Column("published_at", Moment),
    PrimaryKeyConstraint("id", name="ticket_events_pkey"),
    UniqueConstraint("ticket_id", "position", name="ticket_events_ticket_id_position_key"),
    ForeignKeyConstraint(["ticket_id"], [tickets.c.id], name="ticket_events_ticket_id_fkey"),
    CheckConstraint(_one_of("event_type", EventType), name="ticket_events_event_type_known"),
    CheckConstraint(
        "is_internal = (sequence IS NULL) AND is_internal = (ticket IS NULL)", name="ticket_events_internal_unsent"
    ),
    # What was sent leaves entries behind in the index of the queue, which every look at it passes over until they are
    # vacuumed away. By default that waits for a fifth of the table, and leaves indexes out where that seems enough.
    postgresql_with={
        "autovacuum_vacuum_scale_factor": 0,
        "autovacuum_vacuum_threshold": 20_000,
        "vacuum_index_cleanup": "on",
    },
)
# Tickets fall into this many shards, each of which one relay at a time sends. A power of two, as SHARD has it; other
# than 16 needs another index.
SHARDS = 16
# The shard of an event's ticket: the last bits of its id, which are random in a UUID of version 7.
SHARD: ColumnElement[int] = literal_column("(get_byte(uuid_send(ticket_id), 15) & 15)", Integer)
Index(
    "ticket_events_unpublished",
    SHARD,
    events.c.row_no,
    postgresql_where=text("published_at IS NULL AND NOT is_internal"),
)
# For times long ago: the rows lie about in the order in which they occurred.
Index(
    "ticket_events_by_time",
    events.c.occurred_at,
    postgresql_using="brin",
    postgresql_with={"autosummarize": "on"},
)

# Written in the statement of the change that they protect: a key without its row can't exist.
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("caller_id", Uuid, nullable=False),
    Column("call", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("payload_hash", LargeBinary, nullable=False),
    Column("resource_id", Uuid, nullable=False),
    Column("created_at", Moment, nullable=False),
    PrimaryKeyConstraint("caller_id", "call", "key", name="idempotency_keys_pkey"),
)
