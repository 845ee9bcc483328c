"""Unsent events by the shard of their ticket, and old ones by time."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_STATEMENTS = (
    "DROP INDEX admin_service.ticket_events_unpublished",
    """
    CREATE INDEX ticket_events_unpublished
        ON admin_service.ticket_events ((get_byte(uuid_send(ticket_id), 15) & 15), row_no)
        WHERE published_at IS NULL AND NOT is_internal
    """,
    """
    CREATE INDEX ticket_events_by_time
        ON admin_service.ticket_events USING brin (occurred_at) WITH (autosummarize = on)
    """,
    """
    ALTER TABLE admin_service.ticket_events SET (
        autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, vacuum_index_cleanup = on
    )
    """,
)


def upgrade() -> None:
    """Replace the index of the queue, add the one by time. Both are read from the table while writers wait."""
    for statement in _STATEMENTS:
        op.execute(statement)
