"""The mail catcher, which tests of e-mail stand on: it keeps what it takes as it came, and misbehaves as it is told."""

import os
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest

from devstack.mail import Mail
from devstack.part import CHECKOUT
from devstack.ports import Ports, accepts
from devstack.stack import Stack
from tests.stack_folder import stack_folder
from tests.system.vocabulary import eventually, new_id

SENDER = "support@nibble.example"
PATIENCE = 0.5


@pytest.fixture(scope="module")
def running() -> Iterator[Stack]:
    """The catcher, and nothing else of the stack."""
    with stack_folder() as folder, Stack(folder, Ports.free(), parts={"mail"}) as stack:
        yield stack


@pytest.fixture
def stack(running: Stack) -> Stack:
    """The catcher, behaving well."""
    running.mail.give()
    eventually(lambda: accepts(port_of(running)))
    return running


@pytest.fixture
def address() -> str:
    """One that nobody else gets mail at."""
    return f"user-{new_id()}@nibble.example"


def port_of(stack: Stack) -> int:
    return int(stack.service_env()["SMTP_PORT"])


def open_door(stack: Stack) -> smtplib.SMTP:
    return smtplib.SMTP("127.0.0.1", port_of(stack), timeout=PATIENCE)


def written(*recipients: str, subject: str = "Cold soup") -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = SENDER, ", ".join(recipients), subject
    message["Message-ID"] = f"<{new_id()}@nibble.example>"
    message.set_content("Your ticket is resolved: ¡buen provecho!")
    message.add_alternative("<p>Your ticket is <b>resolved</b>: ¡buen provecho!</p>", subtype="html")
    return message


def send(stack: Stack, message: EmailMessage) -> None:
    with open_door(stack) as door:
        door.send_message(message)


def caught(stack: Stack, address: str) -> list[Mail]:
    return stack.mails.to(address)


def test_a_mail_is_kept_as_it_was_sent(stack: Stack, address: str) -> None:
    message = written(address, subject="Über den Reis 🍚")
    send(stack, message)
    (mail,) = caught(stack, address)
    assert (mail.subject, mail.sender, mail.recipients) == ("Über den Reis 🍚", SENDER, (address,))
    assert mail.message_id == message["Message-ID"]
    assert mail.text.strip() == "Your ticket is resolved: ¡buen provecho!"
    assert "<b>resolved</b>" in mail.html


def test_whom_a_mail_is_for_is_what_the_envelope_says(stack: Stack, address: str) -> None:
    with open_door(stack) as door:
        door.send_message(written("somebody@else.example"), to_addrs=[address, f"x{address}"])
    (mail,) = caught(stack, address)
    assert mail.recipients == (address, f"x{address}")
    assert mail.message["To"] == "somebody@else.example"


def test_mails_are_listed_in_the_order_in_which_they_came(stack: Stack, address: str) -> None:
    subjects = [f"number {i}" for i in range(20)]
    with open_door(stack) as door:
        for subject in subjects:
            door.send_message(written(address, subject=subject))
    mails = caught(stack, address)
    assert [mail.subject for mail in mails] == subjects
    assert [mail.caught_at for mail in mails] == sorted(mail.caught_at for mail in mails)


@pytest.mark.parametrize(("behaviour", "code"), [("busy", 451), ("refusing", 550)])
def test_a_mail_that_is_refused_is_not_kept(stack: Stack, address: str, behaviour: str, code: int) -> None:
    stack.mail.give(behaviour=behaviour)
    with pytest.raises(smtplib.SMTPDataError) as refusal:
        send(stack, written(address))
    assert refusal.value.smtp_code == code
    assert caught(stack, address) == []


def test_one_recipient_may_be_refused_and_the_others_not(stack: Stack, address: str) -> None:
    stack.mail.give(refused=[address])
    with open_door(stack) as door:
        assert door.send_message(written(address, f"x{address}")).keys() == {address}
    assert caught(stack, address) == []
    assert len(caught(stack, f"x{address}")) == 1


def test_a_slow_server_keeps_a_mail_after_all(stack: Stack, address: str) -> None:
    stack.mail.give(behaviour="slow", seconds=PATIENCE / 5)
    send(stack, written(address))
    assert len(caught(stack, address)) == 1
    stack.mail.give(behaviour="slow")
    with pytest.raises((TimeoutError, smtplib.SMTPServerDisconnected)):
        send(stack, written(address))


def test_a_hanging_server_says_nothing_at_all(stack: Stack) -> None:
    stack.mail.give(behaviour="hanging")
    with pytest.raises((TimeoutError, smtplib.SMTPServerDisconnected)):
        open_door(stack)


def test_a_forgetful_server_has_the_mail_and_does_not_say_so(stack: Stack, address: str) -> None:
    stack.mail.give(behaviour="forgetful")
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)):
        send(stack, written(address))
    assert len(caught(stack, address)) == 1


def test_a_server_that_is_gone_leaves_its_callers_and_comes_back(stack: Stack, address: str) -> None:
    with open_door(stack) as door:
        stack.mail.give(behaviour="gone")
        eventually(lambda: not accepts(port_of(stack)))
        with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)):
            door.send_message(written(address))
    stack.mail.give()
    eventually(lambda: accepts(port_of(stack)))
    send(stack, written(address))
    assert len(caught(stack, address)) == 1


def printed(run_dir: Path) -> str:
    command = [sys.executable, "-m", "devstack", "mails"]
    env = {**os.environ, "RUN_DIR": str(run_dir)}
    return subprocess.run(command, cwd=CHECKOUT, env=env, capture_output=True, text=True, check=True, timeout=60).stdout


def test_people_read_them_at_a_terminal_the_newest_last(stack: Stack, address: str, tmp_path: Path) -> None:
    for subject in ("older", "newer"):
        send(stack, written(address, subject=subject))
    older, newer = printed(stack.run_dir).split(f"to {address}\n")[-2:]
    assert older.startswith("older\n\nYour ticket is resolved: ¡buen provecho!\n")
    assert newer.startswith("newer\n")
    assert printed(tmp_path) == "no mail so far\n"
