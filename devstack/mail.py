"""Stands in for a mail server on a development machine: it takes every mail and sends none on.

What it took is in the Maildir RUN_DIR/mails, each mail written whole or not at all, its envelope before its own headers
(Return-Path, and a Delivered-To for each recipient), where a server that delivers puts it. The orders it takes (see
Control):

- `behaviour`: `well`; `slow`, which answers each mail after `seconds` (default 30); `busy`, which answers 451, to be
  tried again; `refusing`, which answers 550, for good; `hanging`, which takes connections and never says a word;
  `forgetful`, which keeps the mail and hangs up without saying so; `gone`, which listens no more.
- `refused`: addresses that it answers 550 for, whatever else it does.
"""

import asyncio
import re
import signal
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from mailbox import Maildir
from pathlib import Path
from typing import Any, cast
from weakref import WeakSet

from aiosmtpd.smtp import SMTP, Envelope, Session

from devstack.control import LOOK_SECONDS, Control

NAME = "mail"
FOLDER = "mails"
SLOW_SECONDS = 30.0


@dataclass(frozen=True)
class Mail:
    """One mail that was taken."""

    caught_at: datetime
    sender: str
    recipients: tuple[str, ...]
    message: EmailMessage

    @property
    def subject(self) -> str:
        """The subject, decoded."""
        return str(self.message["subject"] or "")

    @property
    def message_id(self) -> str:
        """By which a mail that was sent twice is known."""
        return str(self.message["message-id"] or "").strip()

    @property
    def text(self) -> str:
        """The body for those who read plain text, its lines ended by newlines."""
        return self._body("plain")

    @property
    def html(self) -> str:
        """The body for those who read HTML."""
        return self._body("html")

    def _body(self, kind: str) -> str:
        part = self.message.get_body((kind,))
        return "" if part is None else str(part.get_content()).replace("\r\n", "\n")


class Mails:
    """What the catcher of one stack has taken."""

    def __init__(self, run_dir: Path) -> None:
        self.folder = run_dir / FOLDER

    def all(self) -> list[Mail]:
        """Every mail, the newest last."""
        files = [*self.folder.glob("new/*"), *self.folder.glob("cur/*")]
        return [_read(path) for path in sorted(files, key=_arrival)]

    def to(self, address: str) -> list[Mail]:
        """The mails that were delivered to that address, the newest last."""
        return [mail for mail in self.all() if address in mail.recipients]

    def keep(self, envelope: bytes, content: bytes) -> None:
        """Writes one mail, so that it is there even when this process is killed as soon as this returns."""
        for part in ("tmp", "new", "cur"):
            # Not left to Maildir, which takes a folder for whole that was half made when it was killed.
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        Maildir(self.folder).add(envelope + content)


class MailCatcher:
    """Takes mail from anybody for anybody: never for production."""

    def __init__(self, control: Control, mails: Mails) -> None:
        self._control = control
        self._mails = mails
        self._connections: WeakSet[_Connection] = WeakSet()

    async def serve(self, host: str, port: int) -> None:
        """Listens, whenever it is not told to be gone, until SIGTERM or SIGINT."""
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)
        server: asyncio.Server | None = None
        while not stopped.is_set():
            gone = self._behaviour == "gone"
            if gone and server is not None:
                self._leave(server)
                server = None
            if not gone and server is None:
                server = await loop.create_server(self._connection, host, port)
            with suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), LOOK_SECONDS)

    @property
    def _behaviour(self) -> str:
        return str(self._control.orders().get("behaviour", "well"))

    def _connection(self) -> "_Connection":
        connection = _Silent() if self._behaviour == "hanging" else SMTP(self, hostname="mail.devstack", ident="ready")
        self._connections.add(connection)
        return connection

    def _leave(self, server: asyncio.Server) -> None:
        server.close()
        for connection in self._connections:
            _hang_up(connection)

    # What aiosmtpd calls; the names are its own.

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Says whether there is mail for that address."""
        if address in self._control.orders().get("refused", ()):
            return "550 5.1.1 there is nobody of that name"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Keeps a mail, or says why not."""
        behaviour = self._behaviour
        match behaviour:
            case "busy":
                return "451 4.3.0 told to be busy; try again later"
            case "refusing":
                return "550 5.7.1 told to refuse"
            case "slow":
                await asyncio.sleep(self._control.orders().get("seconds", SLOW_SECONDS))
        content = bytes(envelope.original_content or b"")
        # The disk is waited for here: a catcher has nothing better to do.
        self._mails.keep(_envelope_headers(envelope), content)
        print(f"a mail for {', '.join(envelope.rcpt_tos)}", flush=True)
        if behaviour == "forgetful":
            _hang_up(server)
        return "250 2.0.0 OK"


class _Silent(asyncio.Protocol):
    """A connection on which nothing is ever said."""

    transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport


_Connection = SMTP | _Silent


def _hang_up(connection: _Connection) -> None:
    if connection.transport is not None:
        cast("asyncio.Transport", connection.transport).abort()


def shown(mail: Mail) -> str:
    """A mail as a person reads it."""
    when = mail.caught_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return f"{when}  to {', '.join(mail.recipients)}\n{mail.subject}\n\n{mail.text.strip()}\n"


async def run(run_dir: Path, host: str, port: int) -> None:
    """Serves with the orders in that folder, and fills its Maildir, until SIGTERM or SIGINT."""
    await MailCatcher(Control(run_dir, NAME), Mails(run_dir)).serve(host, port)


def _envelope_headers(envelope: Envelope) -> bytes:
    lines = [f"Return-Path: <{envelope.mail_from}>", *(f"Delivered-To: {address}" for address in envelope.rcpt_tos)]
    return "".join(f"{line}\r\n" for line in lines).encode()


def _read(path: Path) -> Mail:
    message: Any = message_from_bytes(path.read_bytes(), policy=default)
    seconds, micros, _ = _arrival(path)
    return Mail(
        caught_at=datetime.fromtimestamp(seconds, UTC).replace(microsecond=micros),
        sender=str(message["return-path"]).strip("<>"),
        recipients=tuple(str(address) for address in message.get_all("delivered-to", ())),
        message=message,
    )


def _arrival(path: Path) -> tuple[int, int, int]:
    """Second, microsecond and number of a mail, from the name that a Maildir gave it."""
    parts = re.match(r"(\d+)\.M(\d+)P\d+Q(\d+)\.", path.name)
    if parts is None:
        return int(path.stat().st_mtime), 0, 0
    return int(parts[1]), int(parts[2]), int(parts[3])
