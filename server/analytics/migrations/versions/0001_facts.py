"""Events as far as facts depend on them, the facts, and the generations of both."""

from alembic import op

from server.db.consumed_table import create_consumed_events

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_STATEMENTS = (
    create_consumed_events("analytics_service"),
    """
    CREATE TABLE analytics_service.generations (
        number integer NOT NULL CONSTRAINT generations_pkey PRIMARY KEY,
        begun_at timestamptz NOT NULL
    )
    """,
    "INSERT INTO analytics_service.generations (number, begun_at) VALUES (1, now())",
    """
    CREATE TABLE analytics_service.ticket_events (
        ticket_id uuid NOT NULL,
        sequence integer NOT NULL,
        occurred_at timestamptz NOT NULL,
        created_at timestamptz NOT NULL,
        priority text NOT NULL CONSTRAINT ticket_events_priority_known
            CHECK (priority IN ('urgent', 'high', 'medium', 'low')),
        status text NOT NULL CONSTRAINT ticket_events_status_known
            CHECK (status IN ('open', 'in_progress', 'resolved', 'closed')),
        assigned_to uuid,
        resolved_at timestamptz,
        responder uuid,
        CONSTRAINT ticket_events_pkey PRIMARY KEY (ticket_id, sequence)
    )
    """,
    """
    CREATE TABLE analytics_service.ticket_facts (
        ticket_id uuid NOT NULL CONSTRAINT ticket_facts_pkey PRIMARY KEY,
        created_at timestamptz NOT NULL,
        priority text NOT NULL CONSTRAINT ticket_facts_priority_known
            CHECK (priority IN ('urgent', 'high', 'medium', 'low')),
        settled_at timestamptz,
        responded_at timestamptz,
        responder uuid,
        assignment_times timestamptz[] NOT NULL,
        assignment_agents uuid[] NOT NULL,
        resolution_times timestamptz[] NOT NULL,
        resolution_agents uuid[] NOT NULL,
        reopening_times timestamptz[] NOT NULL,
        reopening_agents uuid[] NOT NULL,
        resolution_stands boolean NOT NULL,
        closed_at timestamptz,
        closing_agent uuid,
        life tstzrange NOT NULL GENERATED ALWAYS AS (tstzrange(created_at, settled_at, '[]')) STORED
    )
    """,
    "CREATE INDEX ticket_facts_by_life ON analytics_service.ticket_facts USING gist (life)",
)


def upgrade() -> None:
    """Create everything."""
    for statement in _STATEMENTS:
        op.execute(statement)
