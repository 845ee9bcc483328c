"""E-mails out of the queue, by SMTP to a real server: once each, again after what passes, never after what does not."""

import asyncio
import os
import random
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.errors import MessageError
from email.generator import BytesGenerator
from email.message import EmailMessage
from typing import Any

import psycopg
import pytest
import structlog
import trustme
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword
from prometheus_client import REGISTRY

from devstack.part import CHECKOUT
from devstack.ports import LOOPBACK
from devstack.service import python_path
from server.domain.callers import Caller
from server.domain.tickets import Priority
from server.notification import mail_server
from server.notification import sender as sender_module
from server.notification.ids import id_at
from server.notification.mail_server import MailRefused, MailServer, MailServerDown, MailServerSettings, Security
from server.notification.pruning import Ages, prune
from server.notification.sender import (
    BATCH,
    NO_ADDRESS,
    NO_USER_SERVICE,
    NOTHING_TO_TELL,
    SHARE,
    Sender,
    pause_after,
)
from server.notification.statements import CLAIM_EMAILS
from tests.integration.mail_catcher import MailCatcher
from tests.integration.notifier_desk import COMPOSER, NotifierDesk, Person, address_of
from tests.integration.vocabulary import Row
from tests.system.vocabulary import dice, eventually
from tests.unit.ticket_story import agent, customer


@pytest.fixture
def catcher() -> Iterator[MailCatcher]:
    """An SMTP server that takes everything, until told otherwise."""
    with MailCatcher().listening() as listening:
        yield listening


@pytest.fixture
def desk(dsn: str, catcher: MailCatcher) -> Iterator[NotifierDesk]:
    """Intake and sender on an empty database."""
    desk = NotifierDesk(dsn)
    yield desk
    desk.close()


@pytest.fixture
def sender(desk: NotifierDesk, catcher: MailCatcher) -> Sender:
    """A sender with the usual settings."""
    return desk.sender(catcher)


def tell(desk: NotifierDesk, *owners: Caller) -> None:
    """One e-mail for each owner, due now."""
    desk.take_in([event for owner in owners for event in desk.open_ticket(owner).assign(agent()).events])
    desk.run(b"DELETE FROM notification_service.emails WHERE kind = 'digest'")


def told_once(desk: NotifierDesk) -> Caller:
    """An owner for whom one e-mail is due."""
    owner = customer()
    tell(desk, owner)
    return owner


def email_of(desk: NotifierDesk, owner: Caller) -> Row:
    """The owner's only e-mail."""
    (mail,) = desk.emails(owner)
    return mail


# --- What goes well ---------------------------------------------------------------------------------------------------


def test_an_e_mail_that_is_due_goes_to_its_recipients_address_once(
    desk: NotifierDesk, catcher: MailCatcher, sender: Sender
) -> None:
    owner = told_once(desk)
    assert desk.send(sender) == 1
    assert desk.send(sender) == 0
    (mail,) = catcher.to(address_of(owner.id))
    noted = email_of(desk, owner)
    assert mail["Message-ID"] == f"<{noted['id']}@nibble.example>"
    assert mail["Subject"] == "We are working on your ticket: Cold soup"
    assert (noted["state"], noted["sent_at"], noted["lease_until"]) == ("sent", desk.clock.now, None)


def test_a_digest_goes_out_when_its_window_is_over_and_the_next_one_opens_after_it(
    desk: NotifierDesk, catcher: MailCatcher, sender: Sender
) -> None:
    worker = agent()
    desk.staff(worker)
    for _ in range(5):
        desk.take_in(desk.open_ticket(customer()).events)
        desk.pass_by(10)
    assert desk.send(sender) == 0
    desk.pass_by(10)
    assert desk.send(sender) == 1
    desk.take_in(desk.open_ticket(customer()).events)
    assert desk.send(sender) == 0
    desk.pass_by(60)
    assert desk.send(sender) == 1
    subjects = [mail["Subject"] for mail in catcher.to(address_of(worker.id))]
    assert subjects == ["5 support updates on 5 tickets", "New ticket: Cold soup"]


def test_many_mails_go_by_one_connection(desk: NotifierDesk, catcher: MailCatcher, sender: Sender) -> None:
    tell(desk, *(customer() for _ in range(30)))
    assert desk.send(sender) == 30
    assert (len(catcher.mails), catcher.sessions) == (30, 1)


def test_a_connection_that_the_server_has_closed_meanwhile_is_no_failure(desk: NotifierDesk) -> None:
    with MailCatcher().listening(timeout=0.1) as catcher:
        sender = desk.sender(catcher)
        told_once(desk)
        assert desk.send(sender) == 1
        eventually(lambda: has_hung_up(sender))
        told_once(desk)
        assert desk.send(sender) == 1
        desk.close()
    assert catcher.sessions == 2


def has_hung_up(sender: Sender) -> bool:
    """Whether the server has closed the sender's connection."""
    connection = sender._server._connection
    assert connection is not None
    assert connection.sock is not None
    try:
        return connection.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False


def test_senders_at_once_send_each_e_mail_once(desk: NotifierDesk, catcher: MailCatcher) -> None:
    tell(desk, *(customer() for _ in range(300)))
    with ThreadPoolExecutor(4) as pool:
        senders = [desk.sender(catcher) for _ in range(4)]

        def work(sender: Sender) -> None:
            while desk.send(sender):
                pass

        list(pool.map(work, senders))
    desk.close()
    assert set(catcher.by_message_id.values()) == {1}
    assert len(catcher.by_message_id) == 300


# --- Which goes first -------------------------------------------------------------------------------------------------


def a_queue(desk: NotifierDesk, owners: int, staff: int) -> None:
    """E-mails that are due: one for each of so many owners, and a digest for each of so many of the staff."""
    workers = [agent() for _ in range(staff)]
    desk.staff(*workers)
    desk.take_in([event for _ in range(owners) for event in desk.open_ticket(customer()).assign(workers[0]).events])
    desk.pass_by(60)


def test_what_presses_overtakes_a_long_queue_and_some_of_each_rank_go_along(
    desk: NotifierDesk, catcher: MailCatcher, sender: Sender
) -> None:
    a_queue(desk, owners=2 * BATCH, staff=2 * SHARE)
    desk.take_in(desk.open_ticket(customer(), priority=Priority.URGENT).events)
    # All of the staff but nobody who did it.
    pressing = 2 * SHARE
    assert desk.send(sender) == BATCH + SHARE
    subjects = [mail["Subject"] for mail in catcher.mails]
    assert subjects[:pressing] == ["New urgent ticket: Cold soup"] * pressing
    assert subjects[pressing:BATCH] == ["We are working on your ticket: Cold soup"] * (BATCH - pressing)
    assert all("updates on" in subject for subject in subjects[BATCH:])


def test_a_flood_of_what_presses_stops_no_other(desk: NotifierDesk, catcher: MailCatcher, sender: Sender) -> None:
    a_queue(desk, owners=2 * SHARE, staff=2 * SHARE)
    desk.take_in([event for _ in range(20) for event in desk.open_ticket(customer(), priority=Priority.HIGH).events])
    for rounds in (1, 2):
        assert desk.send(sender) == BATCH + 2 * SHARE
        kinds = Counter(str(mail["Subject"]).split()[0] for mail in catcher.mails)
        assert kinds == {"New": rounds * BATCH, "We": rounds * SHARE, f"{2 * SHARE}": rounds * SHARE}


def test_claiming_reads_no_more_of_a_long_queue_than_it_takes(desk: NotifierDesk) -> None:
    desk.run(
        b"INSERT INTO notification_service.emails"
        b" (id, recipient_id, kind, is_open, rank, due_at, next_attempt_at, created_at)"
        b" SELECT gen_random_uuid(), gen_random_uuid(), 'single', false, mod(n, 3), t, t, t"
        b" FROM generate_series(1, 20000) n, LATERAL (SELECT %s - n * interval '1 ms') AS moment (t)",
        desk.clock.now,
    )
    with psycopg.connect(desk.dsn, autocommit=True, cursor_factory=psycopg.RawCursor) as connection:
        connection.execute("ANALYZE notification_service.emails")
        # Which it comes to after some runs of a prepared statement.
        connection.execute("SET plan_cache_mode = force_generic_plan")
        values = {"now": desk.clock.now, "until": desk.clock.now, "limit": BATCH, "share": SHARE}
        plan = connection.execute(f"EXPLAIN ANALYZE {CLAIM_EMAILS.sql}", CLAIM_EMAILS.bind(values)).fetchall()
    text = "\n".join(line for (line,) in plan)
    assert text.count("Index Scan using emails_waiting") == 3
    assert "Seq Scan" not in text


def gauges() -> tuple[float | None, float | None]:
    """How many e-mails wait, and how long the oldest has been due."""
    return (
        REGISTRY.get_sample_value("nibble_emails_waiting"),
        REGISTRY.get_sample_value("nibble_emails_oldest_due_seconds"),
    )


def test_one_sender_of_a_process_measures_the_queue_for_all(
    desk: NotifierDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_queue(desk, owners=3, staff=2)
    with psycopg.connect(desk.dsn, autocommit=True) as connection:
        desk.gauge.measure(connection)
        assert gauges() == (5, 60)
        desk.pass_by(10)
        tell(desk, customer())
        desk.gauge.measure(connection)
        assert gauges() == (5, 60)
        monkeypatch.setattr(sender_module, "MEASURE_SECONDS", 0)
        with desk.gauge._turn:
            desk.gauge.measure(connection)
        assert gauges() == (5, 60)
        desk.gauge.measure(connection)
        assert gauges() == (4, 70)
        monkeypatch.setattr(sender_module, "MOST_COUNTED", 3)
        desk.gauge.measure(connection)
        assert gauges() == (3, 70)


# --- What is not sent at all ------------------------------------------------------------------------------------------


def test_without_an_address_an_e_mail_is_dropped(desk: NotifierDesk, catcher: MailCatcher, sender: Sender) -> None:
    unknown, without, odd = told_once(desk), told_once(desk), told_once(desk)
    desk.directory.others = {
        without.id: Person("Kim", None),
        odd.id: Person("Kim", "kim@people.example\r\nBcc: eve@people.example"),
        unknown.id: Person(None, None),
    }
    assert desk.send(sender) == 3
    assert {(mail["state"], mail["last_error"]) for mail in desk.emails()} == {("dropped", NO_ADDRESS)}
    assert catcher.mails == []


def test_what_was_muted_meanwhile_is_not_sent(desk: NotifierDesk, catcher: MailCatcher, sender: Sender) -> None:
    owner, other = told_once(desk), told_once(desk)
    desk.mute(owner, channels=["email"])
    desk.mute(other, types=["ticket_assigned"])
    assert desk.send(sender) == 2
    assert {(mail["state"], mail["last_error"]) for mail in desk.emails()} == {("dropped", NOTHING_TO_TELL)}
    assert catcher.mails == []


def test_a_digest_leaves_out_what_was_muted_meanwhile(desk: NotifierDesk, catcher: MailCatcher, sender: Sender) -> None:
    worker, owner = agent(), customer()
    desk.staff(worker)
    desk.take_in(desk.open_ticket(owner).comment(owner).events)
    desk.mute(worker, types=["ticket_created"])
    desk.pass_by(60)
    desk.send(sender)
    (mail,) = catcher.to(address_of(worker.id))
    assert mail["Subject"] == "New comment: Cold soup"


# --- What goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["recipient", "data"])
def test_an_e_mail_that_is_refused_for_good_is_dead_at_once(
    desk: NotifierDesk, catcher: MailCatcher, sender: Sender, where: str
) -> None:
    owner = told_once(desk)
    answer = "550 5.1.1 nobody by that name"
    if where == "recipient":
        catcher.answers[address_of(owner.id)] = answer
    else:
        catcher.after_data = answer
    with structlog.testing.capture_logs() as lines:
        assert desk.send(sender) == 1
    noted = email_of(desk, owner)
    assert (noted["state"], noted["last_error"], noted["attempts"]) == ("dead", "SMTP 550 5.1.1", 1)
    (line,) = lines
    assert (line["log_level"], line["email_id"]) == ("error", str(noted["id"]))
    assert "people.example" not in str(lines)


def test_one_that_is_refused_keeps_no_other_from_being_sent(
    desk: NotifierDesk, catcher: MailCatcher, sender: Sender
) -> None:
    owners = [customer() for _ in range(9)]
    tell(desk, *owners)
    catcher.answers = {address_of(owners[2].id): "550 no", address_of(owners[5].id): "450 4.2.1 not now"}
    assert desk.send(sender) == 8
    assert len(catcher.mails) == 7
    assert (email_of(desk, owners[5])["state"], email_of(desk, owners[5])["last_error"]) == (
        "waiting",
        "SMTP 450 4.2.1",
    )


def test_an_e_mail_that_is_put_off_is_tried_again_with_growing_pauses_and_then_given_up(
    desk: NotifierDesk, catcher: MailCatcher, sender: Sender
) -> None:
    owner = told_once(desk)
    catcher.answers[address_of(owner.id)] = "450 4.2.1 not now"
    began, pauses = desk.clock.now, []
    while (noted := email_of(desk, owner))["state"] == "waiting":
        pauses.append((noted["next_attempt_at"] - desk.clock.now).total_seconds())
        desk.clock.now = noted["next_attempt_at"]
        desk.send(sender)
    assert noted["state"] == "dead"
    assert timedelta(hours=6) <= desk.clock.now - began <= timedelta(hours=6, minutes=15)
    assert 5 <= pauses[1] <= pauses[3] <= pauses[5] <= 900
    assert max(pauses) > 600
    assert 30 <= noted["attempts"] <= 60


def test_an_e_mail_that_was_put_off_goes_out_with_the_same_message_id(
    desk: NotifierDesk, catcher: MailCatcher, sender: Sender
) -> None:
    owner = told_once(desk)
    catcher.after_data = "451 4.3.0 not now"
    desk.send(sender)
    catcher.after_data = "250 OK"
    desk.pass_by(5)
    assert desk.send(sender) == 1
    assert catcher.by_message_id == {f"<{email_of(desk, owner)['id']}@nibble.example>": 1}


def test_while_the_server_is_down_one_e_mail_tries_and_the_others_wait(desk: NotifierDesk) -> None:
    catcher = MailCatcher()
    sender = desk.sender(catcher)
    tell(desk, *(customer() for _ in range(20)))
    for _ in range(3):
        assert desk.send(sender) == 0
    mails = desk.emails()
    assert sum(mail["attempts"] for mail in mails) == 3
    assert {mail["lease_until"] for mail in mails} == {None}
    desk.pass_by(30)
    with catcher.listening():
        assert desk.send(sender) == 20
        desk.close()
    assert set(catcher.by_message_id.values()) == {1}


@pytest.mark.parametrize("answer", ["421 4.3.2 going down", "554 5.7.1 you are not welcome"])
def test_a_server_that_takes_no_mail_from_us_is_down_and_no_mail_is_to_blame(
    desk: NotifierDesk, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    catcher = MailCatcher()

    async def refuse(*_: object) -> str:
        return answer

    monkeypatch.setattr(catcher, "handle_MAIL", refuse, raising=False)
    with catcher.listening():
        owner = told_once(desk)
        told_once(desk)
        assert desk.send(desk.sender(catcher)) == 0
        desk.close()
    assert email_of(desk, owner)["state"] == "waiting"
    assert sum(mail["attempts"] for mail in desk.emails()) == 1


def test_the_user_service_being_down_is_no_failure_of_an_e_mail(
    desk: NotifierDesk, catcher: MailCatcher, sender: Sender
) -> None:
    owner = told_once(desk)
    desk.directory.is_down = True
    for _ in range(60):
        assert desk.send(sender) == 0
        noted = email_of(desk, owner)
        assert 5 <= (noted["next_attempt_at"] - desk.clock.now).total_seconds() <= 60
        desk.pass_by(900)
    assert (noted["state"], noted["attempts"], noted["last_error"]) == ("waiting", 0, NO_USER_SERVICE)
    desk.directory.is_down = False
    assert desk.send(sender) == 1
    assert len(catcher.mails) == 1


def test_a_mail_that_can_not_be_composed_waits_and_lets_others_pass(
    desk: NotifierDesk, catcher: MailCatcher, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, whole = told_once(desk), told_once(desk)
    compose = COMPOSER.compose

    def composed(letter: object, now: object) -> EmailMessage:
        if str(broken.id) in str(letter):
            raise KeyError("a defect")
        return compose(letter, now)  # type: ignore[arg-type]

    monkeypatch.setattr(COMPOSER, "compose", composed)
    assert desk.send(sender) == 1
    assert len(catcher.to(address_of(whole.id))) == 1
    assert email_of(desk, broken)["last_error"] == "not composed: KeyError"


# --- Leases -----------------------------------------------------------------------------------------------------------


def test_the_e_mail_of_a_sender_that_is_gone_goes_to_another_when_its_lease_runs_out(
    desk: NotifierDesk, catcher: MailCatcher, sender: Sender
) -> None:
    owner = told_once(desk)
    with psycopg.connect(desk.dsn, autocommit=True) as connection:
        (taken,) = desk.sender(catcher)._claim(connection)
    desk.pass_by(59)
    assert desk.send(sender) == 0
    desk.pass_by(1)
    assert desk.send(sender) == 1
    assert [mail["Message-ID"] for mail in catcher.to(address_of(owner.id))] == [f"<{taken.id}@nibble.example>"]


def test_a_sender_that_was_frozen_leaves_alone_what_another_has_taken_over(
    desk: NotifierDesk, catcher: MailCatcher, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(desk, *(customer() for _ in range(5)))
    other, take = desk.sender(catcher), MailServer.connect
    frozen = threading.Event()

    def freeze_once(server: MailServer) -> None:
        take(server)
        if not frozen.is_set():
            frozen.set()
            desk.pass_by(61)
            assert desk.send(other) == 5

    monkeypatch.setattr(MailServer, "connect", freeze_once)
    assert desk.send(sender) == 0
    assert set(catcher.by_message_id.values()) == {1}
    assert len(catcher.mails) == 5


def test_what_was_sent_while_the_database_went_away_is_noted_when_it_is_back(
    desk: NotifierDesk, catcher: MailCatcher, sender: Sender
) -> None:
    owner = told_once(desk)
    with psycopg.connect(desk.dsn, autocommit=True) as connection:

        def send_and_cut(message: EmailMessage, within: float) -> None:
            deliver(message, within)
            connection.close()

        deliver = sender._server.send
        sender._server.send = send_and_cut  # type: ignore[method-assign]
        with pytest.raises(psycopg.Error):
            sender.send_batch(connection)
    desk.pass_by(600)
    assert desk.send(sender) == 0
    assert (email_of(desk, owner)["state"], len(catcher.mails)) == ("sent", 1)


def test_a_sender_that_is_stopped_gives_back_what_it_has_not_sent(desk: NotifierDesk, catcher: MailCatcher) -> None:
    stop = threading.Event()
    sender = desk.sender(catcher, stop)
    tell(desk, *(customer() for _ in range(10)))
    deliver = sender._server.send

    def send_and_stop(message: EmailMessage, within: float) -> None:
        deliver(message, within)
        stop.set()

    sender._server.send = send_and_stop  # type: ignore[method-assign]
    assert desk.send(sender) == 1
    waiting = [mail for mail in desk.emails() if mail["state"] == "waiting"]
    assert [(mail["lease_until"], mail["next_attempt_at"]) for mail in waiting] == [(None, desk.clock.now)] * 9


# --- A sender at work -------------------------------------------------------------------------------------------------


def test_a_running_sender_sends_what_comes_and_ends_when_told(desk: NotifierDesk, catcher: MailCatcher) -> None:
    stop = threading.Event()
    sender = desk.sender(catcher, stop, first_pause=timedelta(milliseconds=50))
    thread = threading.Thread(target=sender.run)
    thread.start()
    try:
        told_once(desk)
        eventually(lambda: len(catcher.mails) == 1)
        catcher.after_data = "421 4.3.2 going down"
        told_once(desk)
        eventually(lambda: max(mail["attempts"] for mail in desk.emails()) > 0)
        catcher.after_data = "250 OK"
        desk.pass_by(60)
        eventually(lambda: len(catcher.mails) == 2)
    finally:
        stop.set()
        thread.join(5)
    assert not thread.is_alive()


def test_a_running_sender_outlives_a_database_that_cuts_its_connections(
    desk: NotifierDesk, catcher: MailCatcher
) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=desk.sender(catcher, stop).run)
    thread.start()
    try:
        told_once(desk)
        eventually(lambda: len(catcher.mails) == 1)
        desk.run(
            b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            b" WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        told_once(desk)
        eventually(lambda: len(catcher.mails) == 2)
    finally:
        stop.set()
        thread.join(5)


# --- The dialogue -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Who vouches for the SMTP server's certificate."""
    return trustme.CA()


@pytest.mark.parametrize("security", [Security.STARTTLS, Security.TLS])
def test_the_dialogue_is_protected_and_the_sender_logs_in(authority: trustme.CA, security: Security) -> None:
    names = []

    def check(_server: object, _session: object, _envelope: object, _how: str, login: LoginPassword) -> AuthResult:
        names.append((login.login, login.password))
        return AuthResult(success=login.password == b"secret", handled=False)

    theirs, ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert(LOOPBACK).configure_cert(theirs)
    authority.configure_trust(ours)
    options: dict[str, Any] = {"authenticator": check}
    if security is Security.TLS:
        options |= {"ssl_context": theirs, "auth_require_tls": False}
    else:
        options |= {"tls_context": theirs, "require_starttls": True, "auth_required": True}
    with MailCatcher().listening(**options) as catcher:
        where = MailServerSettings(LOOPBACK, catcher.port, security, "nibble", "secret")
        server = MailServer(where, ours)
        message = EmailMessage()
        message["From"], message["To"] = "support@nibble.example", "kim@people.example"
        server.connect()
        server.send(message, 10)
        server.hang_up()
        assert len(catcher.mails) == 1
        with pytest.raises(MailServerDown, match="535"):
            MailServer(where._replace(password="wrong"), ours).connect()
        with pytest.raises(MailServerDown, match="SSLCertVerificationError"):
            MailServer(where).connect()
    assert names[0] == (b"nibble", b"secret")
    # Once for each mechanism that the server offers.
    assert set(names[1:]) == {(b"nibble", b"wrong")}


def test_a_mail_that_can_not_be_written_is_refused_and_ends_no_sender(
    catcher: MailCatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwritable(*_: object, **__: object) -> None:
        # What Python says from 3.11.10 on to a header with a line break in it.
        raise MessageError("header value appears to contain a line break")

    monkeypatch.setattr(BytesGenerator, "flatten", unwritable)
    server = MailServer(MailServerSettings(LOOPBACK, catcher.port))
    message = EmailMessage()
    message["From"] = message["To"] = "kim@people.example"
    with pytest.raises(MailRefused):
        server.send(message, 10)
    server.hang_up()


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail_server, "TIMEOUT_SECONDS", 0.2)
    with socket.create_server((LOOPBACK, 0)) as silent:
        began = time.monotonic()
        with pytest.raises(MailServerDown, match="TimeoutError"):
            MailServer(MailServerSettings(LOOPBACK, silent.getsockname()[1])).connect()
        assert time.monotonic() - began < 5


def test_a_server_that_is_late_at_each_step_gets_no_more_time_than_a_mail_has(
    catcher: MailCatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_recipient = catcher.handle_RCPT

    async def greet_sender_late(_server: SMTP, _session: object, envelope: Envelope, address: str, _: object) -> str:
        await asyncio.sleep(0.4)
        envelope.mail_from = address
        return "250 OK"

    async def take_recipient_late(*step: Any) -> str:  # noqa: ANN401
        await asyncio.sleep(0.4)
        return await take_recipient(*step)

    server = MailServer(MailServerSettings(LOOPBACK, catcher.port))
    message = EmailMessage()
    message["From"], message["To"] = "support@nibble.example", "kim@people.example"
    with monkeypatch.context() as late:
        late.setattr(catcher, "handle_MAIL", greet_sender_late, raising=False)
        late.setattr(catcher, "handle_RCPT", take_recipient_late)
        server.connect()
        began = time.monotonic()
        with pytest.raises(MailServerDown, match="TimeoutError"):
            server.send(message, 0.6)
        assert time.monotonic() - began < 0.8
    assert catcher.mails == []
    server.connect()
    server.send(message, 10)
    server.hang_up()
    assert len(catcher.mails) == 1


def test_a_mail_has_three_quarters_of_a_lease(desk: NotifierDesk, sender: Sender) -> None:
    given: list[float] = []
    sender._server.send = lambda message, within: given.append(within)  # type: ignore[method-assign]
    told_once(desk)
    desk.send(sender)
    assert given == [45]


def test_pauses_grow_from_the_first_to_the_longest_and_no_further() -> None:
    chance = dice("pauses")
    first, longest = timedelta(seconds=5), timedelta(minutes=15)
    for failures in (1, 2, 5, 8, 9, 100, 10_000):
        for _ in range(20):
            pause = pause_after(failures, first, longest, chance)
            assert first <= pause <= longest
            assert pause <= first * 2.0 ** min(failures - 1, 20)
    assert pause_after(1, first, timedelta(seconds=1), random.Random(1)) == first  # noqa: S311


# --- What operators do with dead e-mails ------------------------------------------------------------------------------


def dead_emails(desk: NotifierDesk, *arguments: str) -> str:
    """What the command prints."""
    command = [sys.executable, "-m", "server", "dead-emails", *arguments]
    elsewhere = {"PGTZ": "Asia/Tokyo"}
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": python_path(None), "DATABASE_URL": desk.dsn, **elsewhere}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=env, cwd=CHECKOUT).stdout


def test_dead_e_mails_are_listed_and_tried_again(desk: NotifierDesk, catcher: MailCatcher, sender: Sender) -> None:
    assert dead_emails(desk, "list") == "no e-mail is dead\n"
    owners = [told_once(desk) for _ in range(3)]
    catcher.answers = {address_of(owner.id): "550 5.1.1 nobody by that name" for owner in owners}
    assert desk.send(sender) == 3
    lines = dead_emails(desk, "list").splitlines()
    assert [line.split()[0] for line in lines] == [str(mail["id"]) for mail in desk.emails()]
    assert all(line.endswith("1 attempts: SMTP 550 5.1.1") for line in lines)
    assert all(f"made {desk.clock.now:%Y-%m-%dT%H:%M:%SZ}, first" in line for line in lines)

    catcher.answers.clear()
    assert dead_emails(desk, "retry", str(email_of(desk, owners[1])["id"])) == "1 e-mails are to be tried again\n"
    assert dead_emails(desk, "retry") == "2 e-mails are to be tried again\n"
    # The command has the real time, the sender the test's.
    desk.clock.now = datetime.now(UTC)
    assert desk.send(sender) == 3
    assert set(catcher.by_message_id.values()) == {1}


# --- Forgetting -------------------------------------------------------------------------------------------------------


def test_what_is_old_is_forgotten_and_unread_counts_follow(
    desk: NotifierDesk, catcher: MailCatcher, sender: Sender
) -> None:
    owner, late = customer(), customer()
    tell(desk, owner, owner)
    desk.send(sender)
    catcher.answers[address_of(late.id)] = "550 no"
    tell(desk, late)
    desk.send(sender)
    desk.run(
        b"UPDATE notification_service.notifications SET read_at = now() WHERE recipient_id = %s AND number = 1",
        owner.id,
    )
    desk.run(b"UPDATE notification_service.recipients SET unread_count = 1 WHERE user_id = %s", owner.id)
    desk.pass_by(timedelta(days=200).total_seconds())
    tell(desk, owner)
    with psycopg.connect(desk.dsn, autocommit=True) as connection:
        assert prune(connection, Ages(), desk.clock.now) > 0
        assert prune(connection, Ages(), desk.clock.now) == 0
    assert [row["number"] for row in desk.told(owner)] == [3]
    row = desk.recipient(owner)
    assert (row["last_number"], row["unread_count"]) == (3, 1)
    # What is dead waits for an operator.
    assert [mail["state"] for mail in desk.emails(owner) + desk.emails(late)] == ["waiting", "dead"]


def test_events_are_forgotten_when_they_would_tell_nobody_any_more(desk: NotifierDesk) -> None:
    old, foreign = id_at(desk.clock.now), "ffffffff-0000-4000-8000-000000000000"
    remember = b"INSERT INTO notification_service.consumed_events VALUES (%s, gen_random_uuid(), 1, %s)"
    desk.run(remember, old, desk.clock.now)
    desk.run(remember, foreign, desk.clock.now)
    for days, left in ((59, 2), (2, 1)):
        desk.pass_by(timedelta(days=days).total_seconds())
        with psycopg.connect(desk.dsn, autocommit=True) as connection:
            prune(connection, Ages(), desk.clock.now)
        assert len(desk.rows(b"SELECT * FROM notification_service.consumed_events")) == left
