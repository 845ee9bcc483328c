"""A real SMTP server that keeps the mails that it takes, and answers as it is told to."""

import email
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from email.policy import default
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from devstack.ports import LOOPBACK, free_port

OK = "250 OK"


class MailCatcher:
    """The handler of aiosmtpd; any thread may look at what it has caught."""

    def __init__(self) -> None:
        self.port = free_port()
        self.mails: list[EmailMessage] = []
        self.sessions = 0
        self.answers: dict[str, str] = {}
        """What RCPT is answered for an address; OK for those that are not there."""
        self.after_data = OK
        self.taken = threading.Event()
        """Set at each mail that was taken."""

    async def handle_EHLO(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, session: Session, _envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        """Greets."""
        self.sessions += 1
        session.host_name = hostname
        return responses

    async def handle_RCPT(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        """Takes the recipient, or not."""
        answer = self.answers.get(address, OK)
        if answer == OK:
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Takes the mail, or not."""
        if self.after_data == OK:
            message = email.message_from_bytes(_bytes(envelope), policy=default)
            assert isinstance(message, EmailMessage)
            self.mails.append(message)
            self.taken.set()
        return self.after_data

    def to(self, address: str) -> list[EmailMessage]:
        """The mails to that address."""
        return [mail for mail in self.mails if mail["To"].addresses[0].addr_spec == address]

    @property
    def by_message_id(self) -> Counter[str]:
        """How often each Message-ID has come."""
        return Counter(str(mail["Message-ID"]) for mail in self.mails)

    @contextmanager
    def listening(self, **options: Any) -> Iterator["MailCatcher"]:  # noqa: ANN401 - aiosmtpd's
        """The server, up while the block is."""
        controller = Controller(self, hostname=LOOPBACK, port=self.port, **options)
        controller.start()
        try:
            yield self
        finally:
            controller.stop()


def _bytes(envelope: Envelope) -> bytes:
    assert isinstance(envelope.content, bytes)
    return envelope.content
