"""Tickets, comments, events and idempotency keys."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ROLES = "'customer', 'restaurant', 'driver', 'support_agent', 'support_supervisor', 'service'"

_STATEMENTS = (
    """
    CREATE TABLE admin_service.support_tickets (
        id uuid NOT NULL CONSTRAINT support_tickets_pkey PRIMARY KEY,
        user_id uuid NOT NULL,
        order_id uuid,
        subject text NOT NULL,
        description text NOT NULL,
        status text NOT NULL CONSTRAINT support_tickets_status_known
            CHECK (status IN ('open', 'in_progress', 'resolved', 'closed')),
        priority text NOT NULL CONSTRAINT support_tickets_priority_known
            CHECK (priority IN ('low', 'medium', 'high', 'urgent')),
        assigned_to uuid,
        resolved_at timestamptz,
        resolution_notes text,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        version integer NOT NULL,
        triage_rank smallint NOT NULL GENERATED ALWAYS AS (
            CASE priority WHEN 'urgent' THEN 0 WHEN 'high' THEN 1 WHEN 'medium' THEN 2 WHEN 'low' THEN 3 END
        ) STORED,
        event_count integer NOT NULL,
        history_count integer NOT NULL
    )
    """,
    """
    CREATE INDEX support_tickets_by_status
        ON admin_service.support_tickets (status, triage_rank, created_at, id)
    """,
    """
    CREATE INDEX support_tickets_unassigned
        ON admin_service.support_tickets (status, triage_rank, created_at, id) WHERE assigned_to IS NULL
    """,
    """
    CREATE INDEX support_tickets_by_assignee
        ON admin_service.support_tickets (assigned_to, status, triage_rank, created_at, id)
        WHERE assigned_to IS NOT NULL
    """,
    """
    CREATE INDEX support_tickets_by_user
        ON admin_service.support_tickets (user_id, status, created_at, id)
    """,
    f"""
    CREATE TABLE admin_service.ticket_comments (
        id uuid NOT NULL CONSTRAINT ticket_comments_pkey PRIMARY KEY,
        ticket_id uuid NOT NULL CONSTRAINT ticket_comments_ticket_id_fkey
            REFERENCES admin_service.support_tickets (id),
        user_id uuid NOT NULL,
        comment text NOT NULL,
        is_internal boolean NOT NULL,
        created_at timestamptz NOT NULL,
        author_role text NOT NULL CONSTRAINT ticket_comments_author_role_known CHECK (author_role IN ({_ROLES}))
    )
    """,
    """
    CREATE INDEX ticket_comments_by_ticket ON admin_service.ticket_comments (ticket_id, created_at, id)
    """,
    """
    CREATE TABLE admin_service.ticket_events (
        id uuid NOT NULL CONSTRAINT ticket_events_pkey PRIMARY KEY,
        row_no bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
        ticket_id uuid NOT NULL CONSTRAINT ticket_events_ticket_id_fkey
            REFERENCES admin_service.support_tickets (id),
        position integer NOT NULL,
        sequence integer,
        change_id uuid NOT NULL,
        event_type text NOT NULL CONSTRAINT ticket_events_event_type_known CHECK (event_type IN (
            'ticket_created', 'ticket_assigned', 'ticket_status_changed', 'ticket_commented', 'ticket_resolved',
            'ticket_closed'
        )),
        occurred_at timestamptz NOT NULL,
        actor_id uuid NOT NULL,
        actor_role text NOT NULL,
        is_internal boolean NOT NULL,
        from_status text,
        to_status text,
        assigned_to uuid,
        previous_assignee uuid,
        reason text,
        comment_id uuid,
        author_role text,
        has_resolution_notes boolean,
        ticket jsonb,
        published_at timestamptz,
        CONSTRAINT ticket_events_ticket_id_position_key UNIQUE (ticket_id, position),
        CONSTRAINT ticket_events_internal_unsent
            CHECK (is_internal = (sequence IS NULL) AND is_internal = (ticket IS NULL))
    )
    """,
    """
    CREATE INDEX ticket_events_unpublished
        ON admin_service.ticket_events (row_no) WHERE published_at IS NULL AND NOT is_internal
    """,
    """
    CREATE TABLE admin_service.idempotency_keys (
        caller_id uuid NOT NULL,
        call text NOT NULL,
        key text NOT NULL,
        payload_hash bytea NOT NULL,
        resource_id uuid NOT NULL,
        created_at timestamptz NOT NULL,
        CONSTRAINT idempotency_keys_pkey PRIMARY KEY (caller_id, call, key)
    )
    """,
)


def upgrade() -> None:
    """Create the first tables of the schema."""
    for statement in _STATEMENTS:
        op.execute(statement)
