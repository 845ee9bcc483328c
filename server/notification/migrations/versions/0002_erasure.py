"""What it takes to erase somebody: which tickets were erased, and ways to the rows about a ticket and of a person."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    CREATE TABLE notification_service.erased_tickets (
        ticket_id uuid NOT NULL CONSTRAINT erased_tickets_pkey PRIMARY KEY,
        pseudonym uuid NOT NULL
    )
    """,
    # In the order in which an intake writes to them: the other way round each could have what the other waits for.
    "CREATE INDEX emails_by_recipient ON notification_service.emails (recipient_id)",
    "CREATE INDEX notifications_by_ticket ON notification_service.notifications (ticket_id)",
)


def upgrade() -> None:
    """Add a table and two indexes. Intake and senders wait while the indexes are built."""
    for statement in _STATEMENTS:
        op.execute(statement)
