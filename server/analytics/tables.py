"""The tables of the schema `analytics_service`. The migrations create them; a test compares the two."""

from sqlalchemy import (
    ARRAY,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import TSTZRANGE

from server.analytics.rules import Priority, Status
from server.analytics.schema import SCHEMA
from server.db.consumed_table import consumed_events

metadata = MetaData(schema=SCHEMA)

Moment = DateTime(timezone=True)


def _one_of(column: str, values: type[Status | Priority]) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


consumed = consumed_events(metadata)

# Each rebuild of the facts begins a generation. The consumer group is named after the newest, so that it reads the
# topic from the beginning for each.
generations = Table(
    "generations",
    metadata,
    Column("number", Integer, nullable=False, autoincrement=False),
    Column("begun_at", Moment, nullable=False),
    PrimaryKeyConstraint("number", name="generations_pkey"),
)

# What the events show, as far as facts depend on it: no subjects, and no owners.
ticket_events = Table(
    "ticket_events",
    metadata,
    Column("ticket_id", Uuid, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("occurred_at", Moment, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("priority", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("assigned_to", Uuid),
    Column("resolved_at", Moment),
    Column("responder", Uuid),
    Column("rating", Integer),
    PrimaryKeyConstraint("ticket_id", "sequence", name="ticket_events_pkey"),
    CheckConstraint(_one_of("priority", Priority), name="ticket_events_priority_known"),
    CheckConstraint(_one_of("status", Status), name="ticket_events_status_known"),
    CheckConstraint("rating BETWEEN 1 AND 5", name="ticket_events_rating_range"),
)

# One row per ticket, recomputed from its events. The happenings of a kind are two arrays, of times and of agents; those
# of ratings have a third one.
ticket_facts = Table(
    "ticket_facts",
    metadata,
    Column("ticket_id", Uuid, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("priority", Text, nullable=False),
    Column("settled_at", Moment),
    Column("responded_at", Moment),
    Column("responder", Uuid),
    Column("assignment_times", ARRAY(Moment), nullable=False),
    Column("assignment_agents", ARRAY(Uuid), nullable=False),
    Column("resolution_times", ARRAY(Moment), nullable=False),
    Column("resolution_agents", ARRAY(Uuid), nullable=False),
    Column("reopening_times", ARRAY(Moment), nullable=False),
    Column("reopening_agents", ARRAY(Uuid), nullable=False),
    Column("resolution_stands", Boolean, nullable=False),
    Column("closed_at", Moment),
    Column("closing_agent", Uuid),
    # While the ticket has anything to say to a report; without an end as long as it is in the backlog.
    Column("life", TSTZRANGE, Computed("tstzrange(created_at, settled_at, '[]')", persisted=True), nullable=False),
    Column("rating_times", ARRAY(Moment), nullable=False, server_default=text("'{}'")),
    Column("rating_agents", ARRAY(Uuid), nullable=False, server_default=text("'{}'")),
    Column("ratings", ARRAY(Integer), nullable=False, server_default=text("'{}'")),
    PrimaryKeyConstraint("ticket_id", name="ticket_facts_pkey"),
    CheckConstraint(_one_of("priority", Priority), name="ticket_facts_priority_known"),
)
Index("ticket_facts_by_life", ticket_facts.c.life, postgresql_using="gist")
