"""Old history is deleted where it is asked for: of closed tickets, once it was sent, a bounded number at a time."""

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from server.workers import retention
from server.workers.retention import BEGINNING, RETENTION_LOCK, Retention, delete_old_events
from server.workers.session import session
from tests.integration.vocabulary import START, Clock

KEEP = timedelta(days=90)
LONG_AGO = START - timedelta(days=100)


@pytest.fixture
def connection(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """A session of the relay with a database without rows."""
    with session(dsn, "retention of a test") as connection:
        yield connection


def id_at(moment: datetime) -> UUID:
    """The id of a ticket that was created then."""
    milliseconds = int(moment.timestamp() * 1000)
    return UUID(int=milliseconds << 80 | uuid4().int % (1 << 80))


def put_ticket(
    connection: psycopg.Connection[Any],
    status: str = "closed",
    events: int = 2,
    at: datetime = LONG_AGO,
    *,
    sent: bool = True,
    internal: bool = False,
) -> UUID:
    """A ticket that was created then, with so many events of that time."""
    ticket = id_at(at)
    connection.execute(
        """
        INSERT INTO admin_service.support_tickets (
            id, user_id, subject, description, status, priority, created_at, updated_at, version, event_count,
            history_count, unattended_since
        ) VALUES ($1, $1, 'Cold soup', 'x', $2, 'low', $3, $3, 1, $4, $4, $3)
        """,
        [ticket, status, at, events],
    )
    connection.execute(
        """
        INSERT INTO admin_service.ticket_events (
            id, ticket_id, position, sequence, change_id, event_type, occurred_at, actor_id, actor_role, is_internal,
            ticket, published_at
        )
        SELECT gen_random_uuid(), $1, n, CASE WHEN NOT $4 THEN n END, $1, 'ticket_commented', $2, $1, 'customer', $4,
            CASE WHEN NOT $4 THEN '{}'::jsonb END, CASE WHEN $5 AND NOT $4 THEN $2 END
        FROM generate_series(1, $3::int) n
        """,
        [ticket, at, events, internal, sent],
    )
    return ticket


def left(connection: psycopg.Connection[Any]) -> dict[UUID, int]:
    """How many events each ticket has left."""
    return dict(connection.execute("SELECT ticket_id, count(*) FROM admin_service.ticket_events GROUP BY 1").fetchall())


def never() -> bool:
    return False


def test_what_is_old_and_sent_goes_when_its_ticket_is_closed_and_everything_else_stays(
    connection: psycopg.Connection[Any],
) -> None:
    gone = put_ticket(connection)
    notes = put_ticket(connection, internal=True, sent=False)
    stays = {put_ticket(connection, status): 2 for status in ("open", "in_progress", "resolved")} | {
        put_ticket(connection, sent=False): 2,
        put_ticket(connection, at=START - KEEP + timedelta(seconds=1)): 2,
    }
    done = delete_old_events(connection, START - KEEP, BEGINNING, never)
    assert done == (BEGINNING, 4)
    assert left(connection) == stays
    assert gone not in stays
    assert notes not in stays


def test_a_closed_ticket_keeps_what_is_not_old_yet(connection: psycopg.Connection[Any]) -> None:
    ticket = put_ticket(connection, events=5)
    connection.execute("UPDATE admin_service.ticket_events SET occurred_at = $1 WHERE position > 3", [START])
    assert delete_old_events(connection, START - KEEP, BEGINNING, never).deleted == 3
    assert left(connection) == {ticket: 2}


def test_what_is_kept_since_before_1970_is_kept(connection: psycopg.Connection[Any]) -> None:
    ticket = put_ticket(connection)
    assert delete_old_events(connection, START - timedelta(days=36_600), BEGINNING, never) == (BEGINNING, 0)
    assert left(connection) == {ticket: 2}


def test_it_is_done_in_batches_and_a_round_that_was_cut_short_is_gone_on_with(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "TICKETS_AT_ONCE", 2)
    tickets = [put_ticket(connection, at=LONG_AGO + timedelta(seconds=n)) for n in range(5)]
    looks = iter([False, True])
    first = delete_old_events(connection, START - KEEP, BEGINNING, lambda: next(looks))
    assert first == (tickets[1], 4)
    assert left(connection).keys() == set(tickets[2:])
    assert delete_old_events(connection, START - KEEP, first.after, never) == (BEGINNING, 6)
    assert left(connection) == {}


def test_one_relay_at_a_time_does_it_by_the_clock_that_it_is_given(
    dsn: str, connection: psycopg.Connection[Any]
) -> None:
    put_ticket(connection)
    clock = Clock()
    own = Retention(dsn, timedelta(days=101), clock, threading.Event())
    assert own.round(connection) == 0
    clock.pass_by(timedelta(days=2))
    with session(dsn, "another relay") as other:
        other.execute(f"SELECT pg_advisory_lock({RETENTION_LOCK})")
        assert own.round(connection) == 0
    with session(dsn, "a third one") as third:
        assert own.round(third) == 2
        assert own.round(third) == 0
