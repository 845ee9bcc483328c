"""What is sent again is read beside relays at work, who must not feel it."""

from collections.abc import Iterator
from datetime import timedelta

import psycopg

from server.workers.lines import Outbound
from server.workers.republish import Republication, between
from tests.integration.vocabulary import START, Desk, open_ticket

TRANSACTIONS = b"""
    SELECT query FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
"""


class Reading(Republication):
    """Reads instead of sending, and looks what is open meanwhile."""

    read: list[Outbound]
    transactions: list[tuple[str]]

    def _send_all(self, rows: Iterator[Outbound], what: str, total: str) -> bool:
        first = next(rows)
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            self.transactions = connection.execute(TRANSACTIONS).fetchall()
        self.read = [first, *rows]
        return True


async def test_no_transaction_stays_open_while_events_are_sent_again(desk: Desk) -> None:
    tickets = [await open_ticket(desk) for _ in range(3)]
    with psycopg.connect(desk.dsn, autocommit=True) as connection:
        connection.execute("UPDATE admin_service.ticket_events SET published_at = occurred_at")
    reading = Reading(desk.dsn, "nowhere:1", "no topic", print)
    assert reading.run(between(START, START + timedelta(seconds=1)), dry_run=False)
    assert [event.entry.ticket_id for event in reading.read] == [ticket.id for ticket in tickets]
    assert reading.transactions == []
