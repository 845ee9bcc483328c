"""The tables of the schema `admin_service`, with the indexes that each list and the relay rest on.

The migrations create them; a test compares the two.
"""

from datetime import datetime

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
    func,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql.elements import ColumnElement

from server.db.schema import SCHEMA
from server.domain.callers import Role
from server.domain.events import EventType
from server.domain.tickets import TRIAGE_RANK, Priority, Status

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
    # Since when nobody of the staff has done anything with it, and when it was flagged for that.
    Column("unattended_since", Moment, nullable=False, server_default=func.now()),
    Column("flagged_at", Moment),
    # While it is resolved: since when nobody has said anything. See QUIET_SINCE.
    Column("quiet_since", Moment),
    Column("findings", JSONB),
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
Index(
    "support_tickets_unattended",
    tickets.c.triage_rank,
    tickets.c.unattended_since,
    tickets.c.id,
    postgresql_where=text("status IN ('open', 'in_progress') AND flagged_at IS NULL"),
)
Index(
    "support_tickets_flagged",
    tickets.c.triage_rank,
    tickets.c.created_at,
    tickets.c.id,
    postgresql_where=text("flagged_at IS NOT NULL"),
)
# Of a resolved ticket. A process of the version before resolves and reopens without a word of `quiet_since`.
QUIET_SINCE: ColumnElement[datetime] = func.greatest(tickets.c.quiet_since, tickets.c.resolved_at, type_=Moment)
Index(
    "support_tickets_quiet",
    QUIET_SINCE,
    tickets.c.id,
    postgresql_where=text("status = 'resolved'"),
)
# Newest first, as users look at their own, and in triage order, as staff do: some have thousands.
Index("support_tickets_by_user", tickets.c.user_id, tickets.c.status, tickets.c.created_at, tickets.c.id)
Index(
    "support_tickets_by_user_in_triage",
    tickets.c.user_id,
    tickets.c.status,
    tickets.c.triage_rank,
    tickets.c.created_at,
    tickets.c.id,
)

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
    Column("findings", JSONB),
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
    Column("rating", Integer),
    # Until the event was published: whose data others are to erase as well.
    Column("erased_user_id", Uuid),
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
# The shard of an event's ticket, of SHARDS: the last bits of its id, which are random in a UUID of version 7.
SHARD: ColumnElement[int] = literal_column("(get_byte(uuid_send(ticket_id), 15) & 15)", Integer)
Index(
    "ticket_events_unpublished",
    SHARD,
    events.c.row_no,
    postgresql_where=text("published_at IS NULL AND NOT is_internal"),
)
Index("ticket_events_erased_user", events.c.erased_user_id, postgresql_where=text("erased_user_id IS NOT NULL"))
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
Index("idempotency_keys_by_age", idempotency_keys.c.created_at)

# Texts as they were written, where the tickets' and comments' own columns hold them masked. `resource_id` is a ticket's
# or a comment's, `field` the name of its column.
concealed_texts = Table(
    "concealed_texts",
    metadata,
    Column("resource_id", Uuid, nullable=False),
    Column("field", Text, nullable=False),
    Column("ticket_id", Uuid, nullable=False),
    Column("text", Text, nullable=False),
    PrimaryKeyConstraint("resource_id", "field", name="concealed_texts_pkey"),
    ForeignKeyConstraint(["ticket_id"], [tickets.c.id], name="concealed_texts_ticket_id_fkey"),
)
Index("concealed_texts_by_ticket", concealed_texts.c.ticket_id)

feedback = Table(
    "ticket_feedback",
    metadata,
    Column("ticket_id", Uuid, nullable=False),
    Column("rating", Integer, nullable=False),
    Column("remark", Text),
    Column("resolved_by", Uuid),
    Column("rated_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("findings", JSONB),
    PrimaryKeyConstraint("ticket_id", name="ticket_feedback_pkey"),
    ForeignKeyConstraint(["ticket_id"], [tickets.c.id], name="ticket_feedback_ticket_id_fkey"),
    CheckConstraint("rating BETWEEN 1 AND 5", name="ticket_feedback_rating_range"),
)

# What the Order Service told of the order of a ticket; a row per ticket that has one, from its creation on.
# `next_try_at` is also the lease of whoever is asking just now.
ticket_orders = Table(
    "ticket_orders",
    metadata,
    Column("ticket_id", Uuid, nullable=False),
    Column("order_id", Uuid, nullable=False),
    Column("state", Text, nullable=False),
    Column("snapshot", JSONB),
    Column("fetched_at", Moment),
    Column("next_try_at", Moment, nullable=False),
    Column("attempts", Integer, nullable=False),
    PrimaryKeyConstraint("ticket_id", name="ticket_orders_pkey"),
    ForeignKeyConstraint(["ticket_id"], [tickets.c.id], name="ticket_orders_ticket_id_fkey"),
    CheckConstraint("state IN ('pending', 'known', 'unknown_order')", name="ticket_orders_state_known"),
    CheckConstraint(
        "(state = 'known') = (snapshot IS NOT NULL) AND (state = 'pending') = (fetched_at IS NULL)",
        name="ticket_orders_known_whole",
    ),
)
Index(
    "ticket_orders_pending",
    ticket_orders.c.next_try_at,
    ticket_orders.c.ticket_id,
    postgresql_where=text("state = 'pending'"),
)

# The roster. That nobody is assigned more than their capacity is kept by the trigger `agents_within_capacity` on the
# tickets: it locks the agent's row, then counts.
agents = Table(
    "agents",
    metadata,
    Column("id", Uuid, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("tier", Integer, nullable=False),
    Column("capacity", Integer, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("availability", Text, nullable=False),
    Column("away_until", Moment),
    Column("availability_since", Moment, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    PrimaryKeyConstraint("id", name="agents_pkey"),
    CheckConstraint("role IN ('support_agent', 'support_supervisor')", name="agents_role_of_staff"),
    CheckConstraint("tier BETWEEN 1 AND 5", name="agents_tier_range"),
    CheckConstraint("capacity BETWEEN 0 AND 1000", name="agents_capacity_range"),
    CheckConstraint("availability IN ('available', 'busy', 'away')", name="agents_availability_known"),
    CheckConstraint("away_until IS NULL OR availability = 'away'", name="agents_away_until_away"),
)

# Who asked to have whose data erased. `id` is the pseudonym that takes the place of `user_id`, which is forgotten when
# nothing is left to erase.
erasures = Table(
    "erasures",
    metadata,
    Column("id", Uuid, nullable=False),
    Column("user_id", Uuid),
    Column("requested_by", Uuid, nullable=False),
    Column("requested_role", Text, nullable=False),
    Column("requested_at", Moment, nullable=False),
    Column("finished_at", Moment),
    Column("erased_tickets", Integer, nullable=False),
    PrimaryKeyConstraint("id", name="erasures_pkey"),
    UniqueConstraint("user_id", name="erasures_user_id_key"),
)
Index(
    "erasures_unfinished",
    erasures.c.requested_at,
    erasures.c.id,
    postgresql_where=text("finished_at IS NULL"),
)
