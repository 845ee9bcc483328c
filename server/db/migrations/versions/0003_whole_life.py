"""What a ticket's whole life needs: attention, findings, feedback, orders, the roster, erasures."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_EVENT_TYPES = (
    "'ticket_created', 'ticket_assigned', 'ticket_status_changed', 'ticket_commented', 'ticket_resolved',"
    " 'ticket_closed', 'ticket_flagged', 'ticket_rated', 'ticket_erased', 'ticket_revealed', 'ticket_exported'"
)

# All at once or none: statements of running processes take these tables in different orders, so that one that waits for
# the first could have the last one already. Whoever has not come to an end within half a second, before PostgreSQL
# looks for deadlocks, is let through.
_LOCK = """
    DO $$
    BEGIN
        FOR attempt IN 1..100 LOOP
            BEGIN
                SET LOCAL lock_timeout = '500ms';
                LOCK TABLE admin_service.support_tickets, admin_service.ticket_comments, admin_service.ticket_events,
                    admin_service.idempotency_keys IN ACCESS EXCLUSIVE MODE;
                SET LOCAL lock_timeout = DEFAULT;
                RETURN;
            EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
                PERFORM pg_sleep(0.5 * random());
            END;
        END LOOP;
        RAISE lock_not_available USING MESSAGE = 'the tables are in use; try again when less is going on';
    END
    $$
"""
_STATEMENTS = (
    _LOCK,
    # What exists counts from now on: neither flags nor closings, which people are told of, come all at once. The
    # default is also for processes of the version before, which go on creating tickets.
    """
    ALTER TABLE admin_service.support_tickets
        ADD COLUMN unattended_since timestamptz NOT NULL DEFAULT now(), ADD COLUMN flagged_at timestamptz,
        ADD COLUMN quiet_since timestamptz, ADD COLUMN findings jsonb
    """,
    "UPDATE admin_service.support_tickets SET quiet_since = now() WHERE status = 'resolved'",
    """
    CREATE INDEX support_tickets_unattended
        ON admin_service.support_tickets (triage_rank, unattended_since, id)
        WHERE status IN ('open', 'in_progress') AND flagged_at IS NULL
    """,
    """
    CREATE INDEX support_tickets_flagged
        ON admin_service.support_tickets (triage_rank, created_at, id) WHERE flagged_at IS NOT NULL
    """,
    """
    CREATE INDEX support_tickets_quiet
        ON admin_service.support_tickets (GREATEST(quiet_since, resolved_at), id) WHERE status = 'resolved'
    """,
    "ALTER TABLE admin_service.ticket_comments ADD COLUMN findings jsonb",
    """
    ALTER TABLE admin_service.ticket_events
        ADD COLUMN rating integer, ADD COLUMN erased_user_id uuid,
        DROP CONSTRAINT ticket_events_event_type_known
    """,
    f"""
    ALTER TABLE admin_service.ticket_events
        ADD CONSTRAINT ticket_events_event_type_known CHECK (event_type IN ({_EVENT_TYPES}))
    """,
    """
    CREATE INDEX ticket_events_erased_user
        ON admin_service.ticket_events (erased_user_id) WHERE erased_user_id IS NOT NULL
    """,
    "CREATE INDEX idempotency_keys_by_age ON admin_service.idempotency_keys (created_at)",
    """
    CREATE TABLE admin_service.concealed_texts (
        resource_id uuid NOT NULL,
        field text NOT NULL,
        ticket_id uuid NOT NULL CONSTRAINT concealed_texts_ticket_id_fkey
            REFERENCES admin_service.support_tickets (id),
        text text NOT NULL,
        CONSTRAINT concealed_texts_pkey PRIMARY KEY (resource_id, field)
    )
    """,
    "CREATE INDEX concealed_texts_by_ticket ON admin_service.concealed_texts (ticket_id)",
    """
    CREATE TABLE admin_service.ticket_feedback (
        ticket_id uuid NOT NULL CONSTRAINT ticket_feedback_pkey PRIMARY KEY
            CONSTRAINT ticket_feedback_ticket_id_fkey REFERENCES admin_service.support_tickets (id),
        rating integer NOT NULL CONSTRAINT ticket_feedback_rating_range CHECK (rating BETWEEN 1 AND 5),
        remark text,
        resolved_by uuid,
        rated_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        findings jsonb
    )
    """,
    """
    CREATE TABLE admin_service.ticket_orders (
        ticket_id uuid NOT NULL CONSTRAINT ticket_orders_pkey PRIMARY KEY
            CONSTRAINT ticket_orders_ticket_id_fkey REFERENCES admin_service.support_tickets (id),
        order_id uuid NOT NULL,
        state text NOT NULL CONSTRAINT ticket_orders_state_known
            CHECK (state IN ('pending', 'known', 'unknown_order')),
        snapshot jsonb,
        fetched_at timestamptz,
        next_try_at timestamptz NOT NULL,
        attempts integer NOT NULL,
        CONSTRAINT ticket_orders_known_whole CHECK (
            (state = 'known') = (snapshot IS NOT NULL) AND (state = 'pending') = (fetched_at IS NULL)
        )
    )
    """,
    """
    CREATE INDEX ticket_orders_pending
        ON admin_service.ticket_orders (next_try_at, ticket_id) WHERE state = 'pending'
    """,
    # Of what is worked on: behind all that ever was, new tickets would wait for days. The others are asked for when
    # somebody looks.
    """
    INSERT INTO admin_service.ticket_orders (ticket_id, order_id, state, next_try_at, attempts)
        SELECT id, order_id, 'pending', now(), 0 FROM admin_service.support_tickets
        WHERE order_id IS NOT NULL AND status IN ('open', 'in_progress')
    """,
    """
    CREATE TABLE admin_service.agents (
        id uuid NOT NULL CONSTRAINT agents_pkey PRIMARY KEY,
        display_name text NOT NULL,
        role text NOT NULL CONSTRAINT agents_role_of_staff CHECK (role IN ('support_agent', 'support_supervisor')),
        tier integer NOT NULL CONSTRAINT agents_tier_range CHECK (tier BETWEEN 1 AND 5),
        capacity integer NOT NULL CONSTRAINT agents_capacity_range CHECK (capacity BETWEEN 0 AND 1000),
        active boolean NOT NULL,
        availability text NOT NULL CONSTRAINT agents_availability_known
            CHECK (availability IN ('available', 'busy', 'away')),
        away_until timestamptz,
        availability_since timestamptz NOT NULL,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        CONSTRAINT agents_away_until_away CHECK (away_until IS NULL OR availability = 'away')
    )
    """,
    # A constraint that no CHECK can express. Only the database can keep it while others assign at the same time: a
    # statement's own look at the tickets is as old as its beginning, which may be before it had the agent's lock.
    """
    CREATE FUNCTION admin_service.agents_within_capacity() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        agent record;
    BEGIN
        SELECT capacity, active INTO agent FROM admin_service.agents WHERE id = NEW.assigned_to FOR NO KEY UPDATE;
        IF NOT FOUND THEN
            RETURN NULL;
        ELSIF NOT agent.active THEN
            RAISE check_violation USING
                CONSTRAINT = 'agents_active', DETAIL = NEW.assigned_to, MESSAGE = 'the assignee is not active';
        ELSIF agent.capacity < (
            SELECT count(*) FROM admin_service.support_tickets
            WHERE assigned_to = NEW.assigned_to AND status IN ('open', 'in_progress')
        ) THEN
            RAISE check_violation USING
                CONSTRAINT = 'agents_within_capacity', DETAIL = NEW.assigned_to,
                MESSAGE = 'the assignee is at capacity';
        END IF;
        RETURN NULL;
    END
    $$
    """,
    """
    CREATE TRIGGER agents_within_capacity AFTER UPDATE OF assigned_to ON admin_service.support_tickets FOR EACH ROW
        WHEN (NEW.assigned_to IS DISTINCT FROM OLD.assigned_to AND NEW.status IN ('open', 'in_progress'))
        EXECUTE FUNCTION admin_service.agents_within_capacity()
    """,
    """
    CREATE TABLE admin_service.erasures (
        id uuid NOT NULL CONSTRAINT erasures_pkey PRIMARY KEY,
        user_id uuid CONSTRAINT erasures_user_id_key UNIQUE,
        requested_by uuid NOT NULL,
        requested_role text NOT NULL,
        requested_at timestamptz NOT NULL,
        finished_at timestamptz,
        erased_tickets integer NOT NULL
    )
    """,
    """
    CREATE INDEX erasures_unfinished ON admin_service.erasures (requested_at, id) WHERE finished_at IS NULL
    """,
)


def upgrade() -> None:
    """Add columns, tables and the constraint on assignments. All wait while the indexes are built, readers too."""
    for statement in _STATEMENTS:
        op.execute(statement)
