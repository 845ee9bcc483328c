"""Written by `make generate` from server/notification/compositions.py, which explains each statement."""

from server.db.statement import Sharing, Statement

LIST_STAFF = Statement(
    """
    SELECT user_id, role, last_seen_at
    FROM notification_service.recipients
    WHERE role IN ('support_agent', 'support_supervisor') AND last_seen_at >= CAST($1 AS timestamptz)
        OR user_id = ANY (CAST($2 AS uuid[])) AND last_seen_at IS NOT NULL
    ORDER BY user_id
""",
    ('since', 'actor_ids'),
    Sharing.NONE,
)

MEET_RECIPIENTS = Statement(
    """
    INSERT INTO notification_service.recipients AS known (user_id, role, last_seen_at)
    SELECT * FROM unnest(
        CAST($1 AS uuid[]), CAST($2 AS text[]), CAST($3 AS timestamptz[])
    )
    ON CONFLICT (user_id) DO UPDATE SET role = EXCLUDED.role, last_seen_at = EXCLUDED.last_seen_at
    WHERE EXCLUDED.last_seen_at > known.last_seen_at + CAST($4 AS interval)
        OR EXCLUDED.last_seen_at > known.last_seen_at AND EXCLUDED.role IS DISTINCT FROM known.role
        OR EXCLUDED.last_seen_at IS NOT NULL AND known.last_seen_at IS NULL
""",
    ('user_ids', 'roles', 'seen_at', 'unnoted'),
    Sharing.NONE,
)

GET_MUTES = Statement(
    """
    SELECT user_id, muted_channels, muted_types
    FROM notification_service.recipients
    WHERE user_id = ANY (CAST($1 AS uuid[])) AND (muted_channels <> '{}' OR muted_types <> '{}')
""",
    ('user_ids',),
    Sharing.NONE,
)

LIST_TOLD = Statement(
    """
    SELECT recipient_id, change_id
    FROM notification_service.notifications
    JOIN unnest(CAST($1 AS uuid[]), CAST($2 AS uuid[])) AS wanted (recipient_id, change_id)
        USING (recipient_id, change_id)
""",
    ('recipient_ids', 'change_ids'),
    Sharing.NONE,
)

ADD_SINGLE_EMAILS = Statement(
    """
    INSERT INTO notification_service.emails
        (id, recipient_id, kind, is_open, rank, due_at, next_attempt_at, created_at)
    SELECT id, recipient_id, 'single', false, rank, CAST($1 AS timestamptz), CAST($1 AS timestamptz),
        CAST($1 AS timestamptz)
    FROM unnest(CAST($2 AS uuid[]), CAST($3 AS uuid[]), CAST($4 AS smallint[]))
        AS new (id, recipient_id, rank)
""",
    ('now', 'ids', 'recipient_ids', 'ranks'),
    Sharing.NONE,
)

OPEN_DIGESTS = Statement(
    """
    INSERT INTO notification_service.emails AS present
        (id, recipient_id, kind, is_open, rank, due_at, next_attempt_at, created_at)
    SELECT id, recipient_id, 'digest', true, 2, CAST($1 AS timestamptz), CAST($1 AS timestamptz),
        CAST($2 AS timestamptz)
    FROM unnest(CAST($3 AS uuid[]), CAST($4 AS uuid[])) AS new (id, recipient_id)
    ON CONFLICT (recipient_id) WHERE is_open DO UPDATE SET is_open = true
    RETURNING recipient_id, id
""",
    ('due_at', 'now', 'ids', 'recipient_ids'),
    Sharing.NONE,
)

ADD_NOTIFICATIONS = Statement(
    """
    WITH tellings AS (
        SELECT * FROM unnest(
            CAST($1 AS uuid[]), CAST($2 AS uuid[]), CAST($3 AS uuid[]),
            CAST($4 AS text[]), CAST($5 AS text[]), CAST($6 AS text[]), CAST($7 AS text[]),
            CAST($8 AS uuid[]), CAST($9 AS text[]), CAST($10 AS timestamptz[])
        ) WITH ORDINALITY AS telling (event_id, change_id, ticket_id, type, subject, priority, status, actor_id,
            actor_role, occurred_at, place)
    ), pairs AS (
        SELECT *, row_number() OVER (PARTITION BY recipient_id ORDER BY told_by) AS step
        FROM unnest(
            CAST($11 AS uuid[]), CAST($12 AS integer[]), CAST($13 AS uuid[]),
            CAST($14 AS boolean[]), CAST($15 AS uuid[])
        ) AS pair (id, told_by, recipient_id, in_inbox, email_id)
    ), counts AS (
        SELECT recipient_id, count(*) AS all_of_them, count(*) FILTER (WHERE in_inbox) AS in_inbox
        FROM pairs GROUP BY recipient_id
    ), grown AS (
        UPDATE notification_service.recipients
        SET last_number = last_number + all_of_them, unread_count = unread_count + in_inbox
        FROM counts WHERE user_id = recipient_id
        RETURNING recipient_id, last_number - all_of_them AS base
    )
    INSERT INTO notification_service.notifications
        (id, recipient_id, number, change_id, event_id, ticket_id, type, subject, priority, status, actor_id,
        actor_role, occurred_at, created_at, in_inbox, email_id)
    SELECT id, recipient_id, base + step, change_id, event_id, ticket_id, type, subject, priority, status, actor_id,
        actor_role, occurred_at, CAST($16 AS timestamptz), in_inbox, email_id
    FROM pairs JOIN tellings ON place = told_by JOIN grown USING (recipient_id)
""",
    ('event_ids', 'change_ids', 'ticket_ids', 'types', 'subjects', 'priorities', 'statuses', 'actor_ids', 'actor_roles', 'occurred_at', 'ids', 'told_by', 'recipient_ids', 'in_inbox', 'email_ids', 'now'),
    Sharing.NONE,
)

LIST_ERASED = Statement(
    """
    SELECT ticket_id, pseudonym FROM notification_service.erased_tickets
    WHERE ticket_id = ANY (CAST($1 AS uuid[]))
""",
    ('ticket_ids',),
    Sharing.NONE,
)

NOTE_ERASED = Statement(
    """
    INSERT INTO notification_service.erased_tickets (ticket_id, pseudonym)
    SELECT * FROM unnest(CAST($1 AS uuid[]), CAST($2 AS uuid[]))
    ON CONFLICT (ticket_id) DO NOTHING
""",
    ('ticket_ids', 'pseudonyms'),
    Sharing.NONE,
)

LIST_TOLD_OF_TICKETS = Statement(
    """
    SELECT DISTINCT recipient_id FROM notification_service.notifications
    WHERE ticket_id = ANY (CAST($1 AS uuid[]))
""",
    ('ticket_ids',),
    Sharing.NONE,
)

ERASE_TICKETS = Statement(
    """
    UPDATE notification_service.notifications AS told
    SET subject = CAST($1 AS text), actor_id = CASE actor_id WHEN user_id THEN pseudonym ELSE actor_id END
    FROM unnest(CAST($2 AS uuid[]), CAST($3 AS uuid[]), CAST($4 AS uuid[]))
        AS erased (ticket_id, user_id, pseudonym)
    WHERE told.ticket_id = erased.ticket_id
""",
    ('erased', 'ticket_ids', 'user_ids', 'pseudonyms'),
    Sharing.NONE,
)

FORGET_RECIPIENTS = Statement(
    """
    WITH notifications AS (
        DELETE FROM notification_service.notifications WHERE recipient_id = ANY (CAST($1 AS uuid[]))
    ), emails AS (
        DELETE FROM notification_service.emails WHERE recipient_id = ANY (CAST($1 AS uuid[]))
    )
    DELETE FROM notification_service.recipients WHERE user_id = ANY (CAST($1 AS uuid[]))
""",
    ('user_ids',),
    Sharing.NONE,
)

CLAIM_EMAILS = Statement(
    """
    WITH pressing AS MATERIALIZED (
        SELECT id FROM notification_service.emails
        WHERE state = 'waiting' AND rank = 0 AND next_attempt_at <= CAST($1 AS timestamptz)
        ORDER BY next_attempt_at LIMIT CAST($2 AS integer)
        FOR UPDATE SKIP LOCKED
    ), singles AS MATERIALIZED (
        SELECT id FROM notification_service.emails
        WHERE state = 'waiting' AND rank = 1 AND next_attempt_at <= CAST($1 AS timestamptz)
        ORDER BY next_attempt_at
        LIMIT greatest(CAST($3 AS integer), CAST($2 AS integer) - (SELECT count(*) FROM pressing))
        FOR UPDATE SKIP LOCKED
    ), digests AS MATERIALIZED (
        SELECT id FROM notification_service.emails
        WHERE state = 'waiting' AND rank = 2 AND next_attempt_at <= CAST($1 AS timestamptz)
        ORDER BY next_attempt_at
        LIMIT greatest(CAST($3 AS integer), CAST($2 AS integer)
            - (SELECT count(*) FROM pressing) - (SELECT count(*) FROM singles))
        FOR UPDATE SKIP LOCKED
    ), claimed AS (
        UPDATE notification_service.emails
        SET is_open = false, lease_until = CAST($4 AS timestamptz), next_attempt_at = CAST($4 AS timestamptz)
        WHERE id = ANY (ARRAY(TABLE pressing UNION ALL TABLE singles UNION ALL TABLE digests))
        RETURNING id, recipient_id, attempts, first_failed_at, lease_until, rank
    )
    SELECT id, recipient_id, attempts, first_failed_at, lease_until FROM claimed ORDER BY rank, id
""",
    ('now', 'limit', 'share', 'until'),
    Sharing.NONE,
)

EXTEND_LEASE = Statement(
    """
    UPDATE notification_service.emails
    SET lease_until = CAST($1 AS timestamptz), next_attempt_at = CAST($1 AS timestamptz)
    WHERE id = CAST($2 AS uuid) AND state = 'waiting' AND lease_until = CAST($3 AS timestamptz)
    RETURNING id
""",
    ('until', 'email_id', 'lease_until'),
    Sharing.NONE,
)

LIST_TOLD_BY_EMAILS = Statement(
    """
    SELECT email_id, total, type, ticket_id, subject, priority, status, occurred_at
    FROM (
        SELECT email_id, number, type, ticket_id, subject, priority, status, occurred_at,
            count(*) OVER (PARTITION BY email_id) AS total,
            row_number() OVER (PARTITION BY email_id ORDER BY number) AS place
        FROM notification_service.notifications
        JOIN notification_service.recipients ON user_id = recipient_id
        WHERE email_id = ANY (CAST($1 AS uuid[]))
            AND NOT 'email' = ANY (muted_channels) AND NOT type = ANY (muted_types)
    ) AS told
    WHERE place <= CAST($2 AS integer)
    ORDER BY email_id, number
""",
    ('email_ids', 'limit'),
    Sharing.NONE,
)

NOTE_SENT = Statement(
    """
    UPDATE notification_service.emails
    SET state = 'sent', sent_at = CAST($1 AS timestamptz), lease_until = NULL, last_error = NULL
    WHERE id = CAST($2 AS uuid) AND state = 'waiting'
""",
    ('now', 'email_id'),
    Sharing.NONE,
)

NOTE_NOT_SENT = Statement(
    """
    UPDATE notification_service.emails
    SET state = CAST($1 AS text), next_attempt_at = CAST($2 AS timestamptz), lease_until = NULL,
        last_error = COALESCE(CAST($3 AS text), last_error), attempts = CAST($4 AS integer),
        first_failed_at = CAST($5 AS timestamptz)
    WHERE id = CAST($6 AS uuid) AND state = 'waiting' AND lease_until = CAST($7 AS timestamptz)
""",
    ('state', 'next_attempt_at', 'reason', 'attempts', 'first_failed_at', 'email_id', 'lease_until'),
    Sharing.NONE,
)

MEASURE_EMAILS = Statement(
    """
    SELECT
        (SELECT count(*) FROM (
            SELECT FROM notification_service.emails WHERE state = 'waiting' LIMIT CAST($1 AS integer)
        ) AS counted),
        (SELECT min(due_at) FILTER (WHERE due_at <= CAST($2 AS timestamptz))
        FROM generate_series(0, 2) AS of (rank), LATERAL (
            SELECT due_at FROM notification_service.emails AS email
            WHERE state = 'waiting' AND email.rank = of.rank
            ORDER BY next_attempt_at LIMIT CAST($3 AS integer)
        ) AS first)
""",
    ('most', 'now', 'looked_at'),
    Sharing.NONE,
)

LIST_DEAD_EMAILS = Statement(
    """
    SELECT id, kind, attempts, created_at, first_failed_at, last_error
    FROM notification_service.emails WHERE state = 'dead' ORDER BY id
""",
    (),
    Sharing.NONE,
)

RETRY_DEAD_EMAILS = Statement(
    """
    UPDATE notification_service.emails
    SET state = 'waiting', next_attempt_at = CAST($1 AS timestamptz), attempts = 0, first_failed_at = NULL
    WHERE state = 'dead' AND (CAST($2 AS uuid[]) IS NULL OR id = ANY (CAST($2 AS uuid[])))
    RETURNING id
""",
    ('now', 'email_ids'),
    Sharing.NONE,
)

FORGET_EMAILS = Statement(
    """
    WITH old AS MATERIALIZED (
        SELECT id FROM notification_service.emails
        WHERE id < CAST($1 AS uuid) AND state IN ('sent', 'dropped')
        ORDER BY id LIMIT CAST($2 AS integer) FOR UPDATE SKIP LOCKED
    )
    DELETE FROM notification_service.emails AS email USING old WHERE email.id = old.id
    RETURNING email.id
""",
    ('below', 'limit'),
    Sharing.NONE,
)

FORGET_EVENTS = Statement(
    """
    WITH old AS MATERIALIZED (
        SELECT event_id FROM notification_service.consumed_events
        WHERE event_id < CAST($1 AS uuid) AND consumed_at < CAST($2 AS timestamptz)
        ORDER BY event_id LIMIT CAST($3 AS integer) FOR UPDATE SKIP LOCKED
    )
    DELETE FROM notification_service.consumed_events AS event USING old WHERE event.event_id = old.event_id
    RETURNING event.event_id
""",
    ('below', 'before', 'limit'),
    Sharing.NONE,
)

LIST_OLD_NOTIFICATIONS = Statement(
    """
    SELECT id, recipient_id FROM notification_service.notifications
    WHERE id < CAST($1 AS uuid) ORDER BY id LIMIT CAST($2 AS integer)
""",
    ('below', 'limit'),
    Sharing.NONE,
)

LOCK_RECIPIENTS = Statement(
    """
    SELECT user_id FROM notification_service.recipients
    WHERE user_id = ANY (CAST($1 AS uuid[])) ORDER BY user_id FOR UPDATE
""",
    ('user_ids',),
    Sharing.NONE,
)

FORGET_NOTIFICATIONS = Statement(
    """
    WITH gone AS (
        DELETE FROM notification_service.notifications WHERE id = ANY (CAST($1 AS uuid[]))
        RETURNING recipient_id, in_inbox AND read_at IS NULL AS counted
    ), fewer AS (
        SELECT recipient_id, count(*) FILTER (WHERE counted) AS unread FROM gone GROUP BY recipient_id
    )
    UPDATE notification_service.recipients SET unread_count = unread_count - unread
    FROM fewer WHERE user_id = recipient_id AND unread > 0
""",
    ('ids',),
    Sharing.NONE,
)
