"""The table of consumed.py, as each consuming service declares it and its first migration makes it."""

from sqlalchemy import Column, DateTime, Integer, MetaData, PrimaryKeyConstraint, Table, UniqueConstraint, Uuid

from server.db.consumed import TABLE


def consumed_events(metadata: MetaData) -> Table:
    """The table as a part of `metadata`, whose schema is the service's own."""
    return Table(
        TABLE,
        metadata,
        Column("event_id", Uuid, nullable=False),
        Column("ticket_id", Uuid, nullable=False),
        Column("sequence", Integer, nullable=False),
        Column("consumed_at", DateTime(timezone=True), nullable=False),
        PrimaryKeyConstraint("event_id", name="consumed_events_pkey"),
        UniqueConstraint("ticket_id", "sequence", name="consumed_events_ticket_id_sequence_key"),
    )


def create_consumed_events(schema: str) -> str:
    """The statement with which a service's first migration makes the table."""
    return f"""
    CREATE TABLE {schema}.{TABLE} (
        event_id uuid NOT NULL CONSTRAINT consumed_events_pkey PRIMARY KEY,
        ticket_id uuid NOT NULL,
        sequence integer NOT NULL,
        consumed_at timestamptz NOT NULL,
        CONSTRAINT consumed_events_ticket_id_sequence_key UNIQUE (ticket_id, sequence)
    )
    """
