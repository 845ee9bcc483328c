"""The tickets of one user in triage order."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index. It is read from the table while writers wait: some ten seconds for ten million tickets."""
    op.execute(
        """
        CREATE INDEX support_tickets_by_user_in_triage
            ON admin_service.support_tickets (user_id, status, triage_rank, created_at, id)
        """
    )
