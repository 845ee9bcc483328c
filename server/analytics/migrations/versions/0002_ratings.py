"""What owners say of resolutions: in the events that are kept, and in the facts."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    ALTER TABLE analytics_service.ticket_events
        ADD COLUMN rating integer CONSTRAINT ticket_events_rating_range CHECK (rating BETWEEN 1 AND 5)
    """,
    """
    ALTER TABLE analytics_service.ticket_facts
        ADD COLUMN rating_times timestamptz[] NOT NULL DEFAULT '{}',
        ADD COLUMN rating_agents uuid[] NOT NULL DEFAULT '{}',
        ADD COLUMN ratings integer[] NOT NULL DEFAULT '{}'
    """,
)


def upgrade() -> None:
    """Add columns. An analyst of the version before, which knows no ratings, goes on writing facts meanwhile."""
    for statement in _STATEMENTS:
        op.execute(statement)
