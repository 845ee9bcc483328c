"""The Notification Service: its consumer with the senders of e-mail, and what operators do with dead e-mails."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog

from server.app.process import StartError, now, serve_metrics, stop_at_signals
from server.settings import Settings

if TYPE_CHECKING:
    from psycopg import Connection

    from server.notification.emails import Composer
    from server.notification.intake import Intake
    from server.notification.mail_server import MailServer
    from server.notification.sender import Sender, SenderSettings
    from server.workers.consumer import ConsumerSettings

NOTIFIER_GRACE_SECONDS = 5.0
SENDERS_END_WITHIN_SECONDS = 3.0
GROUP = "notifier"
# A new ticket is a row for each of the staff, and its batch holds all their locks: what they mark as read waits for it.
# 500 tickets told to 500 people take half a minute. Events that are told to one are hardly slower in small batches.
EVENTS_AT_ONCE = 25
FAILED = 1

_log = structlog.stdlib.get_logger("nibble.app")


def run_notifier(settings: Settings) -> int:
    """Take events in and send e-mails until SIGTERM or SIGINT; returns the exit code.

    It is not 0 where the process ended by itself: too much poison in the topic, or a defect of a sender.

    Raises:
        StartError: the metrics port is taken, or EMAIL_FROM is no address.
    """
    from server.workers.consumer import Consumer
    from server.workers.dead_letters import TooManyDeadLetters

    make_sender = _senders(settings)
    stop = stop_at_signals(NOTIFIER_GRACE_SECONDS)
    serve_metrics(settings)
    senders = _Senders([make_sender(stop) for _ in range(settings.sender_threads)], stop)
    try:
        Consumer(_consumer_settings(settings), _intake(settings), now, stop).run()
    except TooManyDeadLetters:
        return FAILED
    finally:
        stop.set()
        senders.join()
    _log.info("stopped")
    return FAILED if senders.have_failed else 0


class _Senders:
    """Senders in a thread each. One that ends by a defect ends the process: nobody else would notice."""

    def __init__(self, senders: "Sequence[Sender]", stop: threading.Event) -> None:
        self._stop = stop
        self.have_failed = False
        self._threads = [
            threading.Thread(target=self._run, args=[sender], name=f"sender-{number}", daemon=True)
            for number, sender in enumerate(senders)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, sender: "Sender") -> None:
        from server.workers.consumer import without_texts

        try:
            sender.run()
        except Exception as error:  # noqa: BLE001 - whatever it is, the process must not go on without its senders
            _log.error("a sender has failed", error=without_texts(error))
            self.have_failed = True
            self._stop.set()

    def join(self) -> None:
        """Wait a while for them to finish what they are at."""
        for thread in self._threads:
            thread.join(SENDERS_END_WITHIN_SECONDS / len(self._threads))


def _intake(settings: Settings) -> "Intake":
    from server.notification.intake import Intake, IntakeSettings

    limits = IntakeSettings(
        notify_within=timedelta(seconds=settings.notify_within_seconds),
        staff_seen_within=timedelta(seconds=settings.staff_seen_within_seconds),
        digest_window=timedelta(seconds=settings.digest_window_seconds),
    )
    return Intake(limits, now)


def _consumer_settings(settings: Settings) -> "ConsumerSettings":
    from server.notification.schema import SCHEMA
    from server.workers.consumer import ConsumerSettings
    from server.workers.topics import DEAD_LETTERS, TICKET_EVENTS

    return ConsumerSettings(
        dsn=settings.database_url,
        schema=SCHEMA,
        bootstrap_servers=settings.kafka_bootstrap_servers,
        topic=TICKET_EVENTS,
        dead_letter_topic=DEAD_LETTERS,
        group=GROUP,
        session_timeout=settings.consumer_session_timeout_seconds,
        dead_letter_limit=settings.dead_letter_limit,
        batch=EVENTS_AT_ONCE,
    )


def _senders(settings: Settings) -> "Callable[[threading.Event], Sender]":
    """What makes a sender, which ends with the event that it is given; all of them share what they know of people."""
    from server.clients.bearer import BearerFile
    from server.clients.user_service import UserDirectory, connect
    from server.notification.sender import QueueGauge, Sender

    composer, limits = _composer(settings), _sender_settings(settings)
    token = BearerFile(settings.user_service_token_file) if settings.user_service_token_file else None
    channel = connect(settings.user_service_target or "")
    directory = UserDirectory(channel, time.monotonic, settings.user_service_timeout_seconds, token)
    gauge = QueueGauge(now)
    return lambda stop: Sender(limits, directory, _mail_server(settings, composer.domain), composer, now, stop, gauge)


def _composer(settings: Settings) -> "Composer":
    from server.notification.emails import Composer

    try:
        return Composer(settings.email_from, settings.ticket_url)
    except ValueError as error:
        raise StartError("EMAIL_FROM must be an e-mail address, with or without a name before it") from error


def _mail_server(settings: Settings, hello: str) -> "MailServer":
    from server.notification.mail_server import MailServer, MailServerSettings, Security

    return MailServer(
        MailServerSettings(
            host=settings.smtp_host,
            port=settings.smtp_port,
            security=Security(settings.smtp_security),
            username=settings.smtp_username,
            password=settings.smtp_password,
            hello=hello,
        )
    )


def _sender_settings(settings: Settings) -> "SenderSettings":
    from server.notification.pruning import Ages
    from server.notification.sender import SenderSettings

    notify_within = timedelta(seconds=settings.notify_within_seconds)
    return SenderSettings(
        dsn=settings.database_url,
        lease=timedelta(seconds=settings.email_lease_seconds),
        first_pause=timedelta(seconds=settings.email_retry_seconds),
        longest_pause=timedelta(seconds=settings.email_retry_max_seconds),
        give_up_after=timedelta(seconds=settings.email_give_up_seconds),
        ages=Ages(
            notifications=timedelta(seconds=settings.notification_retention_seconds),
            events=2 * max(notify_within, timedelta(days=30)),
        ),
    )


def deal_with_dead_emails(settings: Settings, act: str, email_ids: Sequence[UUID]) -> int:
    """Print the e-mails that were given up (`list`), or have them tried again (`retry`), those named or all of them.

    Returns the exit code.

    Raises:
        StartError: the database does not answer as it should.
    """
    from server.notification import dead_emails

    with _operators_connection(settings) as connection:
        if act == "list":
            dead_emails.show(connection, print)
        else:
            dead_emails.retry(connection, email_ids, now(), print)
    return 0


@contextmanager
def _operators_connection(settings: Settings) -> "Iterator[Connection[Any]]":
    import psycopg

    from server.db.database import with_liveliness

    try:
        with psycopg.connect(with_liveliness(settings.database_url), autocommit=True) as connection:
            yield connection
    except psycopg.Error as error:
        raise StartError(f"the database (DATABASE_URL) does not answer as it should: {error}") from error
