"""Every statement of the inbox's API, as text: most start from the caller, who may have no row, and look sideways.

Each takes the caller's id, and sees nothing but that person's rows.
"""

# ruff: noqa: S608 - composed of what stands in this file, and of nothing that anybody sent

from server.db.statement import Statement
from server.notification.notification import Notification

_ROWS = "notification_service.notifications"
_RECIPIENTS = "notification_service.recipients"
_COLUMNS = ", ".join(Notification._fields)


def _inbox(condition: str, order: str) -> str:
    """The caller's standing and, beside it in each row, a page of notifications; without any, one row with nulls."""
    return f"""
        SELECT coalesce(r.last_number, 0), coalesce(r.unread_count, 0), n.*
        FROM (VALUES ($1::uuid)) AS caller (user_id)
        LEFT JOIN {_RECIPIENTS} AS r USING (user_id)
        LEFT JOIN LATERAL (
            SELECT {_COLUMNS} FROM {_ROWS}
            WHERE recipient_id = caller.user_id AND in_inbox AND {condition}
            ORDER BY number {order} LIMIT $3::integer
        ) AS n ON true
        ORDER BY n.number {order}
    """


def _mark_read(which: str) -> Statement:
    """Mark the notifications that `which`, a condition on $3, picks.

    The recipient's row is locked first, as by those who add notifications, so that the count moves by just what was
    marked here, and nobody waits in a circle.
    """
    text = f"""
        WITH caller AS MATERIALIZED (
            SELECT user_id, unread_count FROM {_RECIPIENTS} WHERE user_id = $1::uuid FOR UPDATE
        ), marked AS (
            UPDATE {_ROWS} AS n SET read_at = $2::timestamptz FROM caller
            WHERE n.recipient_id = caller.user_id AND n.in_inbox AND n.read_at IS NULL AND {which}
            RETURNING n.id
        ), counted AS (
            UPDATE {_RECIPIENTS} SET unread_count = unread_count - (SELECT count(*) FROM marked)
            WHERE user_id = $1::uuid AND (SELECT count(*) FROM marked) > 0
            RETURNING unread_count
        )
        SELECT coalesce((SELECT unread_count FROM counted), (SELECT unread_count FROM caller), 0)
    """
    return Statement(text, ("caller_id", "now", "marked"))


LIST_NOTIFICATIONS = Statement(_inbox("number < $2::bigint", "DESC"), ("caller_id", "before", "limit"))
LIST_UNREAD = Statement(_inbox("read_at IS NULL AND number < $2::bigint", "DESC"), ("caller_id", "before", "limit"))
FOLLOW = Statement(_inbox("number > $2::bigint", "ASC"), ("caller_id", "after", "limit"))

# Where a stream begins: the caller's standing, and the number of the notification that it goes on from.
BEGIN = Statement(
    f"""
        SELECT coalesce(r.last_number, 0), coalesce(r.unread_count, 0), n.number
        FROM (VALUES ($1::uuid)) AS caller (user_id)
        LEFT JOIN {_RECIPIENTS} AS r USING (user_id)
        LEFT JOIN {_ROWS} AS n ON n.id = $2::uuid AND n.recipient_id = caller.user_id AND n.in_inbox
    """,
    ("caller_id", "after_id"),
)
STANDINGS = Statement(
    f"SELECT user_id, last_number, unread_count FROM {_RECIPIENTS} WHERE user_id = ANY ($1::uuid[])", ("user_ids",)
)
PROBE = Statement(f"SELECT FROM {_RECIPIENTS} LIMIT 1", ())
COUNT_UNREAD = Statement(f"SELECT unread_count FROM {_RECIPIENTS} WHERE user_id = $1::uuid", ("caller_id",))

MARK_READ = _mark_read("n.id = ANY ($3::uuid[])")
MARK_READ_UP_TO = _mark_read(
    f"n.number <= (SELECT number FROM {_ROWS} WHERE id = $3::uuid AND recipient_id = $1::uuid AND in_inbox)"
)

GET_PREFERENCES = Statement(
    f"SELECT muted_channels, muted_types FROM {_RECIPIENTS} WHERE user_id = $1::uuid", ("caller_id",)
)
SET_PREFERENCES = Statement(
    f"""
        INSERT INTO {_RECIPIENTS} AS r (user_id, muted_channels, muted_types)
        VALUES ($1::uuid, $2::text[], $3::text[])
        ON CONFLICT (user_id) DO UPDATE
            SET muted_channels = excluded.muted_channels, muted_types = excluded.muted_types
        RETURNING r.muted_channels, r.muted_types
    """,
    ("caller_id", "muted_channels", "muted_types"),
)

# For one who is not staff; those who never were have no role, and nothing is written. As in SEE_STAFF, nobody waits for
# the row's lock. Answers whether there is nothing left to do.
LOSE_STAFF = Statement(
    f"""
        WITH known AS (
            SELECT user_id FROM {_RECIPIENTS} WHERE user_id = $1::uuid AND role IS NOT NULL
        ), free AS MATERIALIZED (
            SELECT user_id FROM {_RECIPIENTS} WHERE user_id IN (SELECT user_id FROM known) FOR UPDATE SKIP LOCKED
        ), lost AS (
            UPDATE {_RECIPIENTS} AS r SET role = NULL, last_seen_at = greatest(r.last_seen_at, $2::timestamptz)
            FROM free WHERE r.user_id = free.user_id
            RETURNING r.user_id
        )
        SELECT NOT EXISTS (SELECT FROM known) OR EXISTS (SELECT FROM lost)
    """,
    ("caller_id", "now"),
)

# Nothing is written where the row says so already. Nor is its lock waited for: whoever holds it tells that person of
# something just now, and the next call will do. Answers whether the row says so now.
SEE_STAFF = Statement(
    f"""
        WITH known AS (
            SELECT user_id, coalesce(role = $2::text AND last_seen_at > $4::timestamptz, false) AS fresh
            FROM {_RECIPIENTS} WHERE user_id = $1::uuid
        ), free AS MATERIALIZED (
            SELECT user_id FROM {_RECIPIENTS} WHERE user_id IN (SELECT user_id FROM known WHERE NOT fresh)
            FOR UPDATE SKIP LOCKED
        ), seen AS (
            UPDATE {_RECIPIENTS} AS r SET role = $2::text, last_seen_at = greatest(r.last_seen_at, $3::timestamptz)
            FROM free WHERE r.user_id = free.user_id
            RETURNING r.user_id
        ), added AS (
            INSERT INTO {_RECIPIENTS} (user_id, role, last_seen_at)
            SELECT $1::uuid, $2::text, $3::timestamptz WHERE NOT EXISTS (SELECT FROM known)
            ON CONFLICT (user_id) DO NOTHING
            RETURNING user_id
        )
        SELECT EXISTS (SELECT FROM known WHERE fresh) OR EXISTS (SELECT FROM seen) OR EXISTS (SELECT FROM added)
    """,
    ("caller_id", "role", "now", "fresh_since"),
)
