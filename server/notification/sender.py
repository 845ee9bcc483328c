"""The sender: takes e-mails that are due out of the queue and hands them to the SMTP server.

An e-mail is leased to one sender at a time. A sender that dies or is frozen loses its lease, and another takes over.
What it has claimed it sends in the order of ranks: an e-mail that presses waits for the batches in hand, for no queue.
So an e-mail goes out twice only where a sender is killed, or frozen for longer than the lease, between the server's
answer and its note of it; both mails then have the same Message-ID.
"""

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from email.message import EmailMessage
from itertools import groupby
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import psycopg
import structlog
from psycopg import Connection, RawCursor

from server import telemetry
from server.db.database import with_liveliness, worker_session
from server.db.statement import Statement, fetch
from server.errors import UserServiceUnavailable
from server.notification import statements
from server.notification.emails import MOST_LISTED, Composer, Letter, Told, Unaddressable
from server.notification.mail_server import MailDelayed, MailNotTaken, MailRefused, MailServer, MailServerDown
from server.notification.pruning import Ages, prune
from server.notification.words import EmailState, Priority, Status, Type

_log = structlog.stdlib.get_logger("nibble.sender")

BATCH = 50
# Of each rank that is not the lowest so many go along, at the least: a flood of what presses slows the others down to a
# tenth of the way, and stops none.
SHARE = 5
POLL_SECONDS = 0.25
RETRY_PAUSE = 1.0
MEASURE_SECONDS = 5.0
MOST_COUNTED = 100_000
LOOKED_AT = 1_000
# What one mail may take of its lease. The check before it leaves nine tenths; the rest is for the note of it.
SENT_WITHIN = 0.75
PRUNE_SECONDS = 60.0
OUTCOMES = ("sent", "dropped", "dead", "delayed", "put_off")
# While the SMTP server or the User Service is down as a whole, a sender tries it again so much later at the latest.
LONGEST_SILENCE = timedelta(seconds=60)
# E-mails that wait for the User Service are due again after up to so many times the shortest pause.
LOOK_UP_SPREAD = 4.0

NO_ADDRESS = "the recipient has no address"
NOTHING_TO_TELL = "nothing is left to tell"
NO_USER_SERVICE = "the User Service does not answer"


class Person(Protocol):
    """What the sender reads of a user."""

    @property
    def name(self) -> str | None:
        """What they are called; None where nobody knows."""

    @property
    def email(self) -> str | None:
        """Where their mail goes; None where they have no address."""


class Directory(Protocol):
    """The User Service, as the sender needs it."""

    def users(self, ids: Iterable[UUID]) -> Mapping[UUID, Person]:
        """The users with these ids; one that nobody has is absent.

        Raises:
            UserServiceUnavailable: they can't be looked up just now.
        """


class SenderSettings(NamedTuple):
    """Where the queue is, and how patient the sender is with the SMTP server."""

    dsn: str
    lease: timedelta = timedelta(seconds=60)
    first_pause: timedelta = timedelta(seconds=5)
    longest_pause: timedelta = timedelta(minutes=15)
    give_up_after: timedelta = timedelta(hours=6)
    ages: Ages = Ages()


class Claimed(NamedTuple):
    """An e-mail that this sender has the lease of; attempts are those that failed before."""

    id: UUID
    recipient_id: UUID
    attempts: int
    first_failed_at: datetime | None
    lease_until: datetime


class Outcome(NamedTuple):
    """What is to be noted of an e-mail, and whether that is its end."""

    statement: Statement
    values: dict[str, object]
    is_end: bool = True


def pause_after(failures: int, first: timedelta, longest: timedelta, chance: random.Random) -> timedelta:
    """How long to wait after so many failures in a row: about twice as long each time, from `first` to `longest`."""
    # Bounded before it is used: 2.0 ** 1100 is an error, and a long time times a large number another.
    factor = min(max(1.0, longest / first), 2.0 ** min(failures - 1, 64))
    return first * max(1.0, factor * chance.uniform(0.75, 1.0))


class _Part:
    """Something that may be in trouble: one line when that begins, changes or ends, however often it shows."""

    def __init__(self, beginning: str, end: str) -> None:
        """Args: the lines."""
        self._lines = beginning, end
        self._trouble = ""

    def is_in_trouble(self, reason: str) -> None:
        if reason != self._trouble:
            _log.warning(self._lines[0], reason=reason)
        self._trouble = reason

    def works(self) -> None:
        if self._trouble:
            _log.info(self._lines[1])
        self._trouble = ""


class QueueGauge:
    """Tells every few seconds how long the queue is, whichever sender of this process comes by first."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._turn = threading.Lock()
        self._measured = float("-inf")

    def measure(self, connection: Connection[Any]) -> None:
        """Look, where the last time is long enough ago and nobody is just looking."""
        if time.monotonic() - self._measured < MEASURE_SECONDS or not self._turn.acquire(blocking=False):
            return
        try:
            self._measured = time.monotonic()
            values = {"now": self._clock(), "most": MOST_COUNTED, "looked_at": LOOKED_AT}
            ((count, oldest),) = fetch(connection, statements.MEASURE_EMAILS, values)
            telemetry.EMAILS_WAITING.set(count)
            telemetry.OLDEST_DUE_EMAIL_SECONDS.set((self._clock() - oldest).total_seconds() if oldest else 0)
        finally:
            self._turn.release()


class Sender:
    """One thread's work, with a connection to PostgreSQL and one to the SMTP server of its own."""

    def __init__(
        self,
        settings: SenderSettings,
        directory: Directory,
        server: MailServer,
        composer: Composer,
        clock: Callable[[], datetime],
        stop: threading.Event,
        gauge: QueueGauge,
        chance: random.Random | None = None,
    ) -> None:
        """Args: gauge: one for all senders of a process."""
        self._settings = settings
        self._directory = directory
        self._server = server
        self._composer = composer
        self._clock = clock
        self._stop = stop
        self._gauge = gauge
        self._chance = chance or random.Random()  # noqa: S311 - spreads retries, keeps no secret
        self._outages = 0
        """How often in a row the SMTP server or the User Service was found to be down as a whole."""
        self._pause = 0.0
        """Seconds to leave it alone for."""
        self._not_noted: list[Outcome] = []
        """What happened while the database was away: noted before anything else is done."""
        self._database = _Part("the database does not answer as it should", "the database answers again")
        self._delivery = _Part("e-mails wait", "e-mails go out again")
        self._pruned = float("-inf")
        # There from the start, so that an alarm sees the first of each.
        for outcome in OUTCOMES:
            telemetry.EMAILS.labels(outcome=outcome)

    def run(self) -> None:
        """Work until stopped, through failures of PostgreSQL, the SMTP server and the User Service."""
        while not self._stop.is_set():
            try:
                with self._connected() as connection:
                    self._work(connection)
            except psycopg.Error as error:
                self._database.is_in_trouble(type(error).__name__)
                self._stop.wait(RETRY_PAUSE)
        self._server.hang_up()

    @contextmanager
    def _connected(self) -> Iterator[Connection[Any]]:
        dsn = with_liveliness(self._settings.dsn)
        with psycopg.connect(dsn, autocommit=True, cursor_factory=RawCursor, options=worker_session()) as connection:
            yield connection

    def _work(self, connection: Connection[Any]) -> None:
        while not self._stop.is_set():
            ended = self.send_batch(connection)
            self._tidy(connection)
            if self._pause or not ended:
                self._server.hang_up()
                self._stop.wait(max(POLL_SECONDS, self._pause))

    def _tidy(self, connection: Connection[Any]) -> None:
        self._gauge.measure(connection)
        now = time.monotonic()
        if now - self._pruned >= PRUNE_SECONDS and prune(connection, self._settings.ages, self._clock()) == 0:
            self._pruned = now

    def send_batch(self, connection: Connection[Any]) -> int:
        """Take up e-mails that are due, and return how many came to an end; 0 also where a server is down.

        Raises:
            psycopg.Error: the database failed; what has happened until then is noted by the next call.
        """
        self._pause = 0.0
        self._note_all(connection)
        claimed = self._claim(connection)
        self._database.works()
        if not claimed:
            return 0
        letters = self._letters(connection, claimed)
        return sum(self._send_each(connection, claimed, letters)) if letters is not None else 0

    def _claim(self, connection: Connection[Any]) -> list[Claimed]:
        now = self._clock()
        values = {"now": now, "until": now + self._settings.lease, "limit": BATCH, "share": SHARE}
        return [Claimed._make(row) for row in fetch(connection, statements.CLAIM_EMAILS, values)]

    def _letters(self, connection: Connection[Any], claimed: Sequence[Claimed]) -> dict[UUID, Letter | str] | None:
        """What to send for each e-mail, or why nothing; None, with all of them put off, where nobody can be looked up.

        Those that have nothing to tell any more need no address either.
        """
        told = self._told(connection, [email.id for email in claimed])
        addressed = {email.id: email.recipient_id for email in claimed if email.id in told}
        try:
            people = self._directory.users(set(addressed.values())) if addressed else {}
        except UserServiceUnavailable:
            self._put_off(connection, claimed)
            return None
        return {email.id: _letter(email, told.get(email.id), people) for email in claimed}

    def _told(self, connection: Connection[Any], email_ids: Sequence[UUID]) -> dict[UUID, tuple[int, list[Told]]]:
        values = {"email_ids": email_ids, "limit": MOST_LISTED}
        rows = fetch(connection, statements.LIST_TOLD_BY_EMAILS, values)
        by_email = {email_id: list(group) for email_id, group in groupby(rows, key=lambda row: row[0])}
        return {email_id: (group[0][1], [_told(row) for row in group]) for email_id, group in by_email.items()}

    def _put_off(self, connection: Connection[Any], claimed: Iterable[Claimed]) -> None:
        """No attempt, and no failure: they wait as long as it takes."""
        self._outage(NO_USER_SERVICE)
        for email in claimed:
            telemetry.EMAILS.labels(outcome="put_off").inc()
            wait = self._settings.first_pause * self._chance.uniform(1.0, LOOK_UP_SPREAD)
            self._note(connection, _delayed(email, NO_USER_SERVICE, self._clock() + wait))

    def _outage(self, what: str) -> None:
        """What takes nothing is left alone for a while; the e-mails that are due meanwhile stay as they are."""
        self._outages += 1
        longest = min(LONGEST_SILENCE, self._settings.longest_pause)
        self._pause = pause_after(self._outages, self._settings.first_pause, longest, self._chance).total_seconds()
        self._delivery.is_in_trouble(what)

    def _send_each(
        self, connection: Connection[Any], claimed: Sequence[Claimed], letters: Mapping[UUID, Letter | str]
    ) -> Iterator[bool]:
        """Whether each e-mail came to an end. Once the server is down, or this is to stop, the rest is given back."""
        for place, email in enumerate(claimed):
            if self._stop.is_set() or self._pause:
                self._give_back(connection, claimed[place:])
                return
            outcome = self._send(connection, email, letters[email.id])
            if outcome is not None:
                self._note(connection, outcome)
                yield outcome.is_end
            # A server may take minutes for what was claimed.
            self._gauge.measure(connection)

    def _give_back(self, connection: Connection[Any], claimed: Iterable[Claimed]) -> None:
        for email in claimed:
            self._note(connection, _delayed(email, None, self._clock()))

    def _send(self, connection: Connection[Any], email: Claimed, letter: Letter | str) -> Outcome | None:
        """What became of it; None where another sender has it by now."""
        if isinstance(letter, str):
            return self._drop(email, letter)
        try:
            message = self._composed(letter)
            # This may take long; what follows ends within the lease.
            self._server.connect()
            held = self._held(connection, email)
            if held is None:
                return None
            email = held
            self._server.send(message, (self._settings.lease * SENT_WITHIN).total_seconds())
        except Unaddressable:
            return self._drop(email, NO_ADDRESS)
        except MailNotTaken as failure:
            return self._failed(email, failure)
        return self._sent(email)

    def _composed(self, letter: Letter) -> EmailMessage:
        try:
            return self._composer.compose(letter, self._clock())
        except Unaddressable:
            raise
        except Exception as error:
            # A defect. The others must not wait for it to be mended, and this one can.
            raise MailDelayed(f"not composed: {type(error).__name__}") from error

    def _held(self, connection: Connection[Any], email: Claimed) -> Claimed | None:
        """The e-mail with nearly a whole lease before it; None where another sender has it by now."""
        now = self._clock()
        if email.lease_until - now > self._settings.lease * 0.9:
            return email
        held = email._replace(lease_until=now + self._settings.lease)
        values = {"email_id": email.id, "lease_until": email.lease_until, "until": held.lease_until}
        return held if fetch(connection, statements.EXTEND_LEASE, values) else None

    def _sent(self, email: Claimed) -> Outcome:
        self._outages = 0
        self._delivery.works()
        telemetry.EMAILS.labels(outcome="sent").inc()
        return Outcome(statements.NOTE_SENT, {"email_id": email.id, "now": self._clock()})

    def _drop(self, email: Claimed, reason: str) -> Outcome:
        telemetry.EMAILS.labels(outcome="dropped").inc()
        return _ended(email, EmailState.DROPPED, reason)

    def _failed(self, email: Claimed, failure: MailNotTaken) -> Outcome:
        now = self._clock()
        tried = email._replace(attempts=email.attempts + 1, first_failed_at=email.first_failed_at or now)
        if isinstance(failure, MailServerDown):
            self._outage(str(failure))
            telemetry.SMTP_TROUBLE.set(now.timestamp())
        if isinstance(failure, MailRefused) or self._is_hopeless(tried, now):
            return self._dead(tried, str(failure))
        telemetry.EMAILS.labels(outcome="delayed").inc()
        wait = pause_after(tried.attempts, self._settings.first_pause, self._settings.longest_pause, self._chance)
        return _delayed(tried, str(failure), now + wait)

    def _is_hopeless(self, email: Claimed, now: datetime) -> bool:
        return email.first_failed_at is not None and now - email.first_failed_at >= self._settings.give_up_after

    def _dead(self, email: Claimed, reason: str) -> Outcome:
        telemetry.EMAILS.labels(outcome="dead").inc()
        _log.error("an e-mail is given up", email_id=str(email.id), attempts=email.attempts, reason=reason)
        return _ended(email, EmailState.DEAD, reason)

    def _note(self, connection: Connection[Any], outcome: Outcome) -> None:
        """Note it, and what could not be noted before; it is not forgotten where the database is away."""
        self._not_noted.append(outcome)
        self._note_all(connection)

    def _note_all(self, connection: Connection[Any]) -> None:
        while self._not_noted:
            outcome = self._not_noted[0]
            RawCursor(connection).execute(outcome.statement.sql, outcome.statement.bind(outcome.values), prepare=True)
            del self._not_noted[0]


def _letter(email: Claimed, told: tuple[int, list[Told]] | None, people: Mapping[UUID, Person]) -> Letter | str:
    """The letter, or why there is none."""
    if told is None:
        return NOTHING_TO_TELL
    person = people.get(email.recipient_id)
    if person is None or person.email is None:
        return NO_ADDRESS
    total, listed = told
    return Letter(email.id, person.email, person.name, listed, total)


def _told(row: Sequence[Any]) -> Told:
    _, _, type_, ticket_id, subject, priority, status, occurred_at = row
    return Told(Type(type_), ticket_id, subject, Priority(priority), Status(status), occurred_at)


def _ended(email: Claimed, state: EmailState, reason: str) -> Outcome:
    return Outcome(statements.NOTE_NOT_SENT, _noted(email, state, reason, email.lease_until))


def _delayed(email: Claimed, reason: str | None, until: datetime) -> Outcome:
    return Outcome(statements.NOTE_NOT_SENT, _noted(email, EmailState.WAITING, reason, until), is_end=False)


def _noted(email: Claimed, state: EmailState, reason: str | None, next_attempt_at: datetime) -> dict[str, object]:
    return {
        "email_id": email.id,
        "lease_until": email.lease_until,
        "attempts": email.attempts,
        "first_failed_at": email.first_failed_at,
        "state": state,
        "reason": reason,
        "next_attempt_at": next_attempt_at,
    }
