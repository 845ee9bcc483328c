"""Recipients, notifications, e-mails and the events that were taken in."""

from alembic import op

from server.db.consumed_table import create_consumed_events

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ROLES = "'customer', 'restaurant', 'driver', 'support_agent', 'support_supervisor', 'service'"
_TYPES = (
    "'ticket_created', 'ticket_assigned', 'ticket_commented', 'ticket_status_changed', 'ticket_resolved', "
    "'ticket_closed'"
)

_STATEMENTS = (
    f"""
    CREATE TABLE notification_service.recipients (
        user_id uuid NOT NULL CONSTRAINT recipients_pkey PRIMARY KEY,
        role text CONSTRAINT recipients_role_known CHECK (role IN ({_ROLES})),
        last_seen_at timestamptz,
        last_number bigint NOT NULL DEFAULT 0,
        unread_count integer NOT NULL DEFAULT 0,
        muted_channels text[] NOT NULL DEFAULT '{{}}'::text[] CONSTRAINT recipients_muted_channels_known
            CHECK (muted_channels <@ ARRAY['inbox', 'email']),
        muted_types text[] NOT NULL DEFAULT '{{}}'::text[] CONSTRAINT recipients_muted_types_known
            CHECK (muted_types <@ ARRAY[{_TYPES}])
    )
    """,
    """
    CREATE INDEX recipients_staff ON notification_service.recipients (last_seen_at)
        WHERE role IN ('support_agent', 'support_supervisor')
    """,
    f"""
    CREATE TABLE notification_service.notifications (
        id uuid NOT NULL CONSTRAINT notifications_pkey PRIMARY KEY,
        recipient_id uuid NOT NULL,
        number bigint NOT NULL,
        change_id uuid NOT NULL,
        event_id uuid NOT NULL,
        ticket_id uuid NOT NULL,
        type text NOT NULL CONSTRAINT notifications_type_known CHECK (type IN ({_TYPES})),
        subject text NOT NULL,
        priority text NOT NULL CONSTRAINT notifications_priority_known
            CHECK (priority IN ('low', 'medium', 'high', 'urgent')),
        status text NOT NULL CONSTRAINT notifications_status_known
            CHECK (status IN ('open', 'in_progress', 'resolved', 'closed')),
        actor_id uuid NOT NULL,
        actor_role text NOT NULL CONSTRAINT notifications_actor_role_known CHECK (actor_role IN ({_ROLES})),
        occurred_at timestamptz NOT NULL,
        created_at timestamptz NOT NULL,
        read_at timestamptz,
        in_inbox boolean NOT NULL,
        email_id uuid,
        CONSTRAINT notifications_recipient_id_change_id_key UNIQUE (recipient_id, change_id),
        CONSTRAINT notifications_recipient_id_number_key UNIQUE (recipient_id, number),
        CONSTRAINT notifications_reach_somebody CHECK (in_inbox OR email_id IS NOT NULL)
    )
    """,
    """
    CREATE INDEX notifications_unread ON notification_service.notifications (recipient_id, number)
        WHERE read_at IS NULL AND in_inbox
    """,
    """
    CREATE INDEX notifications_by_email ON notification_service.notifications (email_id)
        WHERE email_id IS NOT NULL
    """,
    """
    CREATE TABLE notification_service.emails (
        id uuid NOT NULL CONSTRAINT emails_pkey PRIMARY KEY,
        recipient_id uuid NOT NULL,
        kind text NOT NULL CONSTRAINT emails_kind_known CHECK (kind IN ('single', 'digest')),
        state text NOT NULL DEFAULT 'waiting' CONSTRAINT emails_state_known
            CHECK (state IN ('waiting', 'sent', 'dead', 'dropped')),
        is_open boolean NOT NULL,
        rank smallint NOT NULL CONSTRAINT emails_rank_known CHECK (rank BETWEEN 0 AND 2),
        due_at timestamptz NOT NULL,
        next_attempt_at timestamptz NOT NULL,
        lease_until timestamptz,
        attempts integer NOT NULL DEFAULT 0,
        first_failed_at timestamptz,
        last_error text,
        created_at timestamptz NOT NULL,
        sent_at timestamptz
    )
    """,
    """
    CREATE INDEX emails_waiting ON notification_service.emails (rank, next_attempt_at) WHERE state = 'waiting'
    """,
    """
    CREATE INDEX emails_dead ON notification_service.emails (id) WHERE state = 'dead'
    """,
    """
    CREATE UNIQUE INDEX emails_open ON notification_service.emails (recipient_id) WHERE is_open
    """,
    create_consumed_events("notification_service"),
)


def upgrade() -> None:
    """Create the tables; the schema is there already, since Alembic keeps its revision in it."""
    for statement in _STATEMENTS:
        op.execute(statement)
