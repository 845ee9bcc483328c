"""The intake and the sender at work on one database, with a clock that the test holds."""

import random
import threading
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from nibble.support.v1.ticket_event_pb2 import TicketEvent
from psycopg.rows import dict_row

from devstack.ports import LOOPBACK
from server.domain.callers import Caller
from server.errors import UserServiceUnavailable
from server.notification.emails import Composer
from server.notification.intake import Intake, IntakeSettings
from server.notification.mail_server import MailServer, MailServerSettings
from server.notification.sender import QueueGauge, Sender, SenderSettings
from tests.integration.mail_catcher import MailCatcher
from tests.integration.vocabulary import Clock, Row
from tests.unit.ticket_story import TicketStory

EMPTY = b"""
    TRUNCATE notification_service.recipients, notification_service.notifications, notification_service.emails,
        notification_service.erased_tickets, notification_service.consumed_events
"""


COMPOSER = Composer("Nibble Support <support@nibble.example>", "https://support.nibble.example/tickets/{ticket_id}")


class Person(NamedTuple):
    """Somebody whom the directory knows."""

    name: str | None
    email: str | None


class Directory:
    """Knows everybody, by an address that has their id in it, but for those of whom a test says otherwise."""

    def __init__(self) -> None:
        self.is_down = False
        self.others: dict[UUID, Person] = {}

    def users(self, ids: Iterable[UUID]) -> dict[UUID, Person]:
        """As the User Service's client."""
        if self.is_down:
            raise UserServiceUnavailable
        return {user_id: self.others.get(user_id, Person("Kim", address_of(user_id))) for user_id in ids}


def address_of(user_id: UUID) -> str:
    """The address of whom nothing else is said."""
    return f"{user_id}@people.example"


class NotifierDesk:
    """Takes events in as the consumer frame hands them over: each batch a transaction."""

    def __init__(self, dsn: str, settings: IntakeSettings = IntakeSettings()) -> None:  # noqa: B008 - immutable
        self.dsn = dsn
        self.clock = Clock()
        self.intake = Intake(settings, self.clock)
        self.directory = Directory()
        self.gauge = QueueGauge(self.clock)
        self._servers: list[MailServer] = []
        self.run(EMPTY)

    def take_in(self, events: Sequence[TicketEvent]) -> None:
        """One batch, committed."""
        with psycopg.connect(self.dsn) as connection:
            count = self.intake.apply(connection, events)
        count()

    def sender(self, catcher: MailCatcher, stop: threading.Event | None = None, **settings: Any) -> Sender:  # noqa: ANN401
        """A sender with these settings, whose chance is always the same."""
        self._servers.append(MailServer(MailServerSettings(LOOPBACK, catcher.port)))
        return Sender(
            SenderSettings(self.dsn, **settings),
            self.directory,
            self._servers[-1],
            COMPOSER,
            self.clock,
            stop or threading.Event(),
            self.gauge,
            random.Random(1),  # noqa: S311
        )

    def close(self) -> None:
        """Close the connections of the senders."""
        for server in self._servers:
            server.hang_up()

    def send(self, sender: Sender) -> int:
        """Let the sender take up what is due now, and return how many e-mails came to an end."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            return sender.send_batch(connection)

    def staff(self, *people: Caller) -> None:
        """These are staff, seen just now."""
        for person in people:
            self.run(
                b"INSERT INTO notification_service.recipients (user_id, role, last_seen_at) VALUES (%s, %s, %s)",
                person.id,
                person.role,
                self.clock.now,
            )

    def mute(self, person: Caller, *, channels: Sequence[str] = (), types: Sequence[str] = ()) -> None:
        """What the person does not want from now on."""
        self.run(
            b"INSERT INTO notification_service.recipients AS known (user_id, muted_channels, muted_types)"
            b" VALUES (%s, %s, %s) ON CONFLICT (user_id) DO UPDATE"
            b" SET muted_channels = EXCLUDED.muted_channels, muted_types = EXCLUDED.muted_types",
            person.id,
            list(channels),
            list(types),
        )

    def told(self, person: Caller) -> list[Row]:
        """The person's notifications by their numbers."""
        return self.rows(
            b"SELECT * FROM notification_service.notifications WHERE recipient_id = %s ORDER BY number", person.id
        )

    def emails(self, person: Caller | None = None) -> list[Row]:
        """The e-mails, of one person or of all, the oldest first."""
        everybody = b"SELECT * FROM notification_service.emails WHERE %s::uuid IN (recipient_id, %s) ORDER BY id"
        nobody = UUID(int=0)
        return self.rows(everybody, person.id if person else nobody, nobody)

    def recipient(self, person: Caller) -> Row:
        """The person's row."""
        (row,) = self.rows(b"SELECT * FROM notification_service.recipients WHERE user_id = %s", person.id)
        return row

    def rows(self, statement: bytes, *values: object) -> list[Row]:
        """What a statement finds."""
        with psycopg.connect(self.dsn, row_factory=dict_row, autocommit=True) as connection:
            return connection.execute(statement, values).fetchall()

    def run(self, statement: bytes, *values: object) -> None:
        """A statement without result."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(statement, values)

    def open_ticket(self, owner: Caller, **fields: Any) -> TicketStory:  # noqa: ANN401 - as TicketStory's
        """A new ticket, created now; its events are not taken in so far."""
        return TicketStory(owner, self.clock.now, **fields)

    def pass_by(self, seconds: float) -> None:
        """Let some time go by."""
        self.clock.pass_by(timedelta(seconds=seconds))
