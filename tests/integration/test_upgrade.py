"""The schema changes under tickets that exist, and under processes of the version before that go on writing."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from uuid import uuid4

import psycopg

from server.db.migrations import MIGRATIONS
from server.db.migrator import migrate
from server.notification.migrations import MIGRATIONS as NOTIFICATION
from tests.integration.vocabulary import START

# The tables of a keyed creation in its order, and those of a keyed comment.
CREATE = """
    WITH claimed AS (
        INSERT INTO admin_service.idempotency_keys (caller_id, call, key, payload_hash, resource_id, created_at)
        VALUES (%(id)s, 'CreateTicket', 'key', '', %(id)s, %(now)s) RETURNING resource_id
    )
    INSERT INTO admin_service.support_tickets (
        id, user_id, subject, description, status, priority, created_at, updated_at, version, event_count, history_count
    )
    SELECT resource_id, resource_id, 'Cold soup', '', 'open', 'low', %(now)s, %(now)s, 1, 1, 1 FROM claimed
"""
COMMENT = """
    WITH locked AS (
        SELECT id FROM admin_service.support_tickets WHERE id = %(id)s FOR UPDATE
    ), claimed AS (
        INSERT INTO admin_service.idempotency_keys (caller_id, call, key, payload_hash, resource_id, created_at)
        SELECT %(id)s, 'AddComment', 'key', '', id, %(now)s FROM locked RETURNING resource_id
    )
    INSERT INTO admin_service.ticket_comments (id, ticket_id, user_id, comment, is_internal, created_at, author_role)
    SELECT gen_random_uuid(), resource_id, resource_id, 'Still waiting.', false, %(now)s, 'customer' FROM claimed
"""


class Writer(threading.Thread):
    """Creates tickets and comments on them, one after the other."""

    def __init__(self, dsn: str, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._dsn = dsn
        self._stop_at = stop
        self.begun = threading.Event()
        self.failure: Exception | None = None

    def run(self) -> None:
        """Until it is stopped or fails."""
        try:
            with psycopg.connect(self._dsn, autocommit=True) as connection:
                while not self._stop_at.is_set():
                    values = {"id": uuid4(), "now": START}
                    connection.execute(CREATE.encode(), values)
                    connection.execute(COMMENT.encode(), values)
                    self.begun.set()
        except Exception as error:  # noqa: BLE001 - whatever it is, the test tells it
            self.failure = error


@contextmanager
def written_by(dsn: str, number: int) -> Iterator[list[Writer]]:
    """Writers at work."""
    stop = threading.Event()
    writers = [Writer(dsn, stop) for _ in range(number)]
    for writer in writers:
        writer.start()
    try:
        assert all(writer.begun.wait(10) for writer in writers)
        yield writers
    finally:
        stop.set()
        for writer in writers:
            writer.join(10)


def test_the_migration_arrives_amid_writers_of_the_version_before_and_none_of_them_fails(empty_dsn: str) -> None:
    migrate(empty_dsn, MIGRATIONS, "0002")
    with written_by(empty_dsn, 8) as writers:
        assert migrate(empty_dsn, MIGRATIONS) is not None
    assert [writer.failure for writer in writers if writer.failure] == []


def test_the_migration_of_notifications_waits_for_an_intake_that_is_under_way_and_not_in_a_circle(
    empty_dsn: str,
) -> None:
    migrate(empty_dsn, NOTIFICATION, "0001")
    with psycopg.connect(empty_dsn) as intake, ThreadPoolExecutor(1) as pool:
        # An intake writes e-mails, then the notifications that they are about.
        intake.execute(b"LOCK TABLE notification_service.emails IN ROW EXCLUSIVE MODE")
        migration = pool.submit(migrate, empty_dsn, NOTIFICATION)
        while intake.execute(b"SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone() == (0,):
            assert not migration.done()
        intake.execute(b"LOCK TABLE notification_service.notifications IN ROW EXCLUSIVE MODE")
        intake.commit()
        assert migration.result(10) is not None


TICKETS = b"""
    INSERT INTO admin_service.support_tickets (
        id, user_id, order_id, subject, description, status, priority, created_at, updated_at, resolved_at, version,
        event_count, history_count
    )
    SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'Cold soup', '', status, 'low', at, at,
        CASE WHEN status IN ('resolved', 'closed') THEN at END, 1, 1, 1
    FROM unnest(array['open', 'in_progress', 'resolved', 'closed']) AS status,
        (SELECT now() - interval '1 year' AS at) AS past
"""
AWAITED = b"""
    SELECT status FROM admin_service.ticket_orders JOIN admin_service.support_tickets ON id = ticket_id
    WHERE state = 'pending' AND next_try_at > now() - interval '1 hour' ORDER BY status
"""
QUIET = b"SELECT status FROM admin_service.support_tickets WHERE quiet_since > now() - interval '1 hour'"
LEFT_ALONE = b"SELECT count(*) FROM admin_service.support_tickets WHERE unattended_since < now() - interval '1 hour'"


def test_what_exists_is_attended_to_and_quiet_from_now_on_and_orders_are_awaited_of_what_is_worked_on(
    empty_dsn: str,
) -> None:
    migrate(empty_dsn, MIGRATIONS, "0002")
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        connection.execute(TICKETS)
        migrate(empty_dsn, MIGRATIONS)
        assert connection.execute(AWAITED).fetchall() == [("in_progress",), ("open",)]
        assert connection.execute(QUIET).fetchall() == [("resolved",)]
        assert connection.execute(LEFT_ALONE).fetchone() == (0,)
