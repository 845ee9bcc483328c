"""What the intake and the sender say to PostgreSQL; `make generate` compiles each statement.

They are written as SQL: most turn arrays into rows, which reads better so than composed. Every parameter is named and
has its type by a cast.

Locks are taken in one order by all: recipients by their ids, then e-mails. A sender takes e-mails by SKIP LOCKED and
waits for nobody.
"""

from sqlalchemy import text

from server.db.composing import compiled
from server.db.statement import Statement


def _sql(words: str) -> Statement:
    return compiled(text(words))


# --- Taking events in -------------------------------------------------------------------------------------------------

# Staff seen since then, and of those named whoever is or was staff, however long ago.
LIST_STAFF = _sql("""
    SELECT user_id, role, last_seen_at
    FROM notification_service.recipients
    WHERE role IN ('support_agent', 'support_supervisor') AND last_seen_at >= CAST(:since AS timestamptz)
        OR user_id = ANY (CAST(:actor_ids AS uuid[])) AND last_seen_at IS NOT NULL
    ORDER BY user_id
""")

# Creates who is new and locks everybody, in the order of the arrays, which is that of ids: ON CONFLICT DO UPDATE locks
# a row even where its WHERE says no.
MEET_RECIPIENTS = _sql("""
    INSERT INTO notification_service.recipients AS known (user_id, role, last_seen_at)
    SELECT * FROM unnest(
        CAST(:user_ids AS uuid[]), CAST(:roles AS text[]), CAST(:seen_at AS timestamptz[])
    )
    ON CONFLICT (user_id) DO UPDATE SET role = EXCLUDED.role, last_seen_at = EXCLUDED.last_seen_at
    WHERE EXCLUDED.last_seen_at > known.last_seen_at + CAST(:unnoted AS interval)
        OR EXCLUDED.last_seen_at > known.last_seen_at AND EXCLUDED.role IS DISTINCT FROM known.role
        OR EXCLUDED.last_seen_at IS NOT NULL AND known.last_seen_at IS NULL
""")

# After MEET_RECIPIENTS: a statement of its own sees what was committed while that one waited for the locks.
GET_MUTES = _sql("""
    SELECT user_id, muted_channels, muted_types
    FROM notification_service.recipients
    WHERE user_id = ANY (CAST(:user_ids AS uuid[])) AND (muted_channels <> '{}' OR muted_types <> '{}')
""")

# The second guard against telling twice; the rules are the first. Looked at under the recipients' locks.
LIST_TOLD = _sql("""
    SELECT recipient_id, change_id
    FROM notification_service.notifications
    JOIN unnest(CAST(:recipient_ids AS uuid[]), CAST(:change_ids AS uuid[])) AS wanted (recipient_id, change_id)
        USING (recipient_id, change_id)
""")

ADD_SINGLE_EMAILS = _sql("""
    INSERT INTO notification_service.emails
        (id, recipient_id, kind, is_open, rank, due_at, next_attempt_at, created_at)
    SELECT id, recipient_id, 'single', false, rank, CAST(:now AS timestamptz), CAST(:now AS timestamptz),
        CAST(:now AS timestamptz)
    FROM unnest(CAST(:ids AS uuid[]), CAST(:recipient_ids AS uuid[]), CAST(:ranks AS smallint[]))
        AS new (id, recipient_id, rank)
""")

# The open digest of each recipient, or a new one; locked, so that no sender closes it before this is committed. One
# that a sender is just closing is waited for, and then is no conflict any more.
OPEN_DIGESTS = _sql("""
    INSERT INTO notification_service.emails AS present
        (id, recipient_id, kind, is_open, rank, due_at, next_attempt_at, created_at)
    SELECT id, recipient_id, 'digest', true, 2, CAST(:due_at AS timestamptz), CAST(:due_at AS timestamptz),
        CAST(:now AS timestamptz)
    FROM unnest(CAST(:ids AS uuid[]), CAST(:recipient_ids AS uuid[])) AS new (id, recipient_id)
    ON CONFLICT (recipient_id) WHERE is_open DO UPDATE SET is_open = true
    RETURNING recipient_id, id
""")

# One row for each pair of a telling and a recipient; `told_by` is the telling's place, from 1, in the other arrays.
ADD_NOTIFICATIONS = _sql("""
    WITH tellings AS (
        SELECT * FROM unnest(
            CAST(:event_ids AS uuid[]), CAST(:change_ids AS uuid[]), CAST(:ticket_ids AS uuid[]),
            CAST(:types AS text[]), CAST(:subjects AS text[]), CAST(:priorities AS text[]), CAST(:statuses AS text[]),
            CAST(:actor_ids AS uuid[]), CAST(:actor_roles AS text[]), CAST(:occurred_at AS timestamptz[])
        ) WITH ORDINALITY AS telling (event_id, change_id, ticket_id, type, subject, priority, status, actor_id,
            actor_role, occurred_at, place)
    ), pairs AS (
        SELECT *, row_number() OVER (PARTITION BY recipient_id ORDER BY told_by) AS step
        FROM unnest(
            CAST(:ids AS uuid[]), CAST(:told_by AS integer[]), CAST(:recipient_ids AS uuid[]),
            CAST(:in_inbox AS boolean[]), CAST(:email_ids AS uuid[])
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
        actor_role, occurred_at, CAST(:now AS timestamptz), in_inbox, email_id
    FROM pairs JOIN tellings ON place = told_by JOIN grown USING (recipient_id)
""")


# --- Erasing somebody -------------------------------------------------------------------------------------------------

LIST_ERASED = _sql("""
    SELECT ticket_id, pseudonym FROM notification_service.erased_tickets
    WHERE ticket_id = ANY (CAST(:ticket_ids AS uuid[]))
""")

NOTE_ERASED = _sql("""
    INSERT INTO notification_service.erased_tickets (ticket_id, pseudonym)
    SELECT * FROM unnest(CAST(:ticket_ids AS uuid[]), CAST(:pseudonyms AS uuid[]))
    ON CONFLICT (ticket_id) DO NOTHING
""")

LIST_TOLD_OF_TICKETS = _sql("""
    SELECT DISTINCT recipient_id FROM notification_service.notifications
    WHERE ticket_id = ANY (CAST(:ticket_ids AS uuid[]))
""")

# Under the recipients' locks, as whatever touches several notifications of a person. E-mails that wait are composed of
# these rows.
ERASE_TICKETS = _sql("""
    UPDATE notification_service.notifications AS told
    SET subject = CAST(:erased AS text), actor_id = CASE actor_id WHEN user_id THEN pseudonym ELSE actor_id END
    FROM unnest(CAST(:ticket_ids AS uuid[]), CAST(:user_ids AS uuid[]), CAST(:pseudonyms AS uuid[]))
        AS erased (ticket_id, user_id, pseudonym)
    WHERE told.ticket_id = erased.ticket_id
""")

# Under the recipients' locks. A sender that has one of the e-mails in its hands notes what became of it nowhere.
FORGET_RECIPIENTS = _sql("""
    WITH notifications AS (
        DELETE FROM notification_service.notifications WHERE recipient_id = ANY (CAST(:user_ids AS uuid[]))
    ), emails AS (
        DELETE FROM notification_service.emails WHERE recipient_id = ANY (CAST(:user_ids AS uuid[]))
    )
    DELETE FROM notification_service.recipients WHERE user_id = ANY (CAST(:user_ids AS uuid[]))
""")


# --- Sending e-mails --------------------------------------------------------------------------------------------------

# Up to `limit`, those of the lowest rank first; yet `share` of each other rank go along, so that none waits for ever.
# Each rank is a range of the index. A lease is the time of the next attempt, too: when it runs out the e-mail is due
# again, without anybody's doing. The ids are an array: else PostgreSQL, which can't tell how few they are, reads all.
CLAIM_EMAILS = _sql("""
    WITH pressing AS MATERIALIZED (
        SELECT id FROM notification_service.emails
        WHERE state = 'waiting' AND rank = 0 AND next_attempt_at <= CAST(:now AS timestamptz)
        ORDER BY next_attempt_at LIMIT CAST(:limit AS integer)
        FOR UPDATE SKIP LOCKED
    ), singles AS MATERIALIZED (
        SELECT id FROM notification_service.emails
        WHERE state = 'waiting' AND rank = 1 AND next_attempt_at <= CAST(:now AS timestamptz)
        ORDER BY next_attempt_at
        LIMIT greatest(CAST(:share AS integer), CAST(:limit AS integer) - (SELECT count(*) FROM pressing))
        FOR UPDATE SKIP LOCKED
    ), digests AS MATERIALIZED (
        SELECT id FROM notification_service.emails
        WHERE state = 'waiting' AND rank = 2 AND next_attempt_at <= CAST(:now AS timestamptz)
        ORDER BY next_attempt_at
        LIMIT greatest(CAST(:share AS integer), CAST(:limit AS integer)
            - (SELECT count(*) FROM pressing) - (SELECT count(*) FROM singles))
        FOR UPDATE SKIP LOCKED
    ), claimed AS (
        UPDATE notification_service.emails
        SET is_open = false, lease_until = CAST(:until AS timestamptz), next_attempt_at = CAST(:until AS timestamptz)
        WHERE id = ANY (ARRAY(TABLE pressing UNION ALL TABLE singles UNION ALL TABLE digests))
        RETURNING id, recipient_id, attempts, first_failed_at, lease_until, rank
    )
    SELECT id, recipient_id, attempts, first_failed_at, lease_until FROM claimed ORDER BY rank, id
""")

# Nothing comes back where the lease ran out and another sender has the e-mail, or has sent it.
EXTEND_LEASE = _sql("""
    UPDATE notification_service.emails
    SET lease_until = CAST(:until AS timestamptz), next_attempt_at = CAST(:until AS timestamptz)
    WHERE id = CAST(:email_id AS uuid) AND state = 'waiting' AND lease_until = CAST(:lease_until AS timestamptz)
    RETURNING id
""")

# What each e-mail tells, the oldest first and at most `limit`, beside how many there are. Mutes are looked at again:
# they hold for e-mails that wait.
LIST_TOLD_BY_EMAILS = _sql("""
    SELECT email_id, total, type, ticket_id, subject, priority, status, occurred_at
    FROM (
        SELECT email_id, number, type, ticket_id, subject, priority, status, occurred_at,
            count(*) OVER (PARTITION BY email_id) AS total,
            row_number() OVER (PARTITION BY email_id ORDER BY number) AS place
        FROM notification_service.notifications
        JOIN notification_service.recipients ON user_id = recipient_id
        WHERE email_id = ANY (CAST(:email_ids AS uuid[]))
            AND NOT 'email' = ANY (muted_channels) AND NOT type = ANY (muted_types)
    ) AS told
    WHERE place <= CAST(:limit AS integer)
    ORDER BY email_id, number
""")

# Of e-mails that are in the sender's hands, whoever holds their lease by now: what happened has happened.
NOTE_SENT = _sql("""
    UPDATE notification_service.emails
    SET state = 'sent', sent_at = CAST(:now AS timestamptz), lease_until = NULL, last_error = NULL
    WHERE id = CAST(:email_id AS uuid) AND state = 'waiting'
""")

# What is not sent: it waits for another attempt, or came to an end.
NOTE_NOT_SENT = _sql("""
    UPDATE notification_service.emails
    SET state = CAST(:state AS text), next_attempt_at = CAST(:next_attempt_at AS timestamptz), lease_until = NULL,
        last_error = COALESCE(CAST(:reason AS text), last_error), attempts = CAST(:attempts AS integer),
        first_failed_at = CAST(:first_failed_at AS timestamptz)
    WHERE id = CAST(:email_id AS uuid) AND state = 'waiting' AND lease_until = CAST(:lease_until AS timestamptz)
""")

# How many wait, counted up to `most`, and since when the oldest is due, by the first `looked_at` of each rank.
MEASURE_EMAILS = _sql("""
    SELECT
        (SELECT count(*) FROM (
            SELECT FROM notification_service.emails WHERE state = 'waiting' LIMIT CAST(:most AS integer)
        ) AS counted),
        (SELECT min(due_at) FILTER (WHERE due_at <= CAST(:now AS timestamptz))
        FROM generate_series(0, 2) AS of (rank), LATERAL (
            SELECT due_at FROM notification_service.emails AS email
            WHERE state = 'waiting' AND email.rank = of.rank
            ORDER BY next_attempt_at LIMIT CAST(:looked_at AS integer)
        ) AS first)
""")

LIST_DEAD_EMAILS = _sql("""
    SELECT id, kind, attempts, created_at, first_failed_at, last_error
    FROM notification_service.emails WHERE state = 'dead' ORDER BY id
""")

# All dead ones, or those named.
RETRY_DEAD_EMAILS = _sql("""
    UPDATE notification_service.emails
    SET state = 'waiting', next_attempt_at = CAST(:now AS timestamptz), attempts = 0, first_failed_at = NULL
    WHERE state = 'dead' AND (CAST(:email_ids AS uuid[]) IS NULL OR id = ANY (CAST(:email_ids AS uuid[])))
    RETURNING id
""")


# --- Forgetting what is old -------------------------------------------------------------------------------------------

# Ids are made of times, so that what is old is the beginning of the primary key.
FORGET_EMAILS = _sql("""
    WITH old AS MATERIALIZED (
        SELECT id FROM notification_service.emails
        WHERE id < CAST(:below AS uuid) AND state IN ('sent', 'dropped')
        ORDER BY id LIMIT CAST(:limit AS integer) FOR UPDATE SKIP LOCKED
    )
    DELETE FROM notification_service.emails AS email USING old WHERE email.id = old.id
    RETURNING email.id
""")

# An event's id is as old as its event, unless somebody else's service made it otherwise: then the row stays.
FORGET_EVENTS = _sql("""
    WITH old AS MATERIALIZED (
        SELECT event_id FROM notification_service.consumed_events
        WHERE event_id < CAST(:below AS uuid) AND consumed_at < CAST(:before AS timestamptz)
        ORDER BY event_id LIMIT CAST(:limit AS integer) FOR UPDATE SKIP LOCKED
    )
    DELETE FROM notification_service.consumed_events AS event USING old WHERE event.event_id = old.event_id
    RETURNING event.event_id
""")

LIST_OLD_NOTIFICATIONS = _sql("""
    SELECT id, recipient_id FROM notification_service.notifications
    WHERE id < CAST(:below AS uuid) ORDER BY id LIMIT CAST(:limit AS integer)
""")

LOCK_RECIPIENTS = _sql("""
    SELECT user_id FROM notification_service.recipients
    WHERE user_id = ANY (CAST(:user_ids AS uuid[])) ORDER BY user_id FOR UPDATE
""")

# Under the recipients' locks: what is deleted unread is counted no longer.
FORGET_NOTIFICATIONS = _sql("""
    WITH gone AS (
        DELETE FROM notification_service.notifications WHERE id = ANY (CAST(:ids AS uuid[]))
        RETURNING recipient_id, in_inbox AND read_at IS NULL AS counted
    ), fewer AS (
        SELECT recipient_id, count(*) FILTER (WHERE counted) AS unread FROM gone GROUP BY recipient_id
    )
    UPDATE notification_service.recipients SET unread_count = unread_count - unread
    FROM fewer WHERE user_id = recipient_id AND unread > 0
""")
