"""The SMTP server that mails are handed to: one connection for many mails, and failures by what they mean."""

import math
import re
import smtplib
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.errors import MessageError
from email.message import EmailMessage
from enum import StrEnum
from typing import Any, NamedTuple, Self

TIMEOUT_SECONDS = 10.0
"""What one exchange may take."""

_OK = 250
_CLOSING = 421
_PERMANENT = 500
_ENHANCED_CODE = re.compile(r"^[245]\.\d{1,3}\.\d{1,3}\b")


class Security(StrEnum):
    """How the connection is protected: not at all, from STARTTLS on, or from its first byte on."""

    NONE = "none"
    STARTTLS = "starttls"
    TLS = "tls"


class MailServerSettings(NamedTuple):
    """Where the server is, and who sends. `hello` is what this side calls itself."""

    host: str
    port: int
    security: Security = Security.NONE
    username: str | None = None
    password: str | None = None
    hello: str = "localhost"


class MailNotTaken(Exception):
    """The server did not take a mail. The message names the reply by its code, since its text may quote an address."""


class MailServerDown(MailNotTaken):
    """It can't be reached, or takes mails from nobody just now: others would fare no better."""


class MailDelayed(MailNotTaken):
    """It does not take this mail now, and may later."""


class MailRefused(MailNotTaken):
    """It will never take this mail."""


class _Dialogue(smtplib.SMTP):
    """A dialogue in which a server can't be late a little at each step, and so a lot in all."""

    _ends_at = math.inf
    """In seconds of time.monotonic()."""

    @contextmanager
    def ending(self, within: float) -> Iterator[Self]:
        """The dialogue, with so many seconds for all that is said in the block."""
        self._ends_at = time.monotonic() + within
        try:
            yield self
        finally:
            self._ends_at = math.inf

    def send(self, s: Any) -> None:  # noqa: ANN401 - typeshed's: text or bytes
        """Say something; smtplib takes what is late for the end of the connection."""
        self._hurry()
        super().send(s)

    def getreply(self) -> tuple[int, bytes]:
        """Hear the answer."""
        self._hurry()
        return super().getreply()

    def _hurry(self) -> None:
        if self.sock is not None:
            # Never 0, which means something else.
            self.sock.settimeout(min(TIMEOUT_SECONDS, max(self._ends_at - time.monotonic(), 0.001)))


class _TlsDialogue(_Dialogue, smtplib.SMTP_SSL):
    """The same, protected from its first byte on."""


class MailServer:
    """A connection that is opened when it is needed. One thread at a time may use it."""

    def __init__(self, settings: MailServerSettings, context: ssl.SSLContext | None = None) -> None:
        self._settings = settings
        self._context = context or ssl.create_default_context()
        self._connection: _Dialogue | None = None

    def connect(self) -> None:
        """See to it that there is a connection that works.

        Raises:
            MailServerDown: there is none to be had.
        """
        try:
            self._connected()
        except (smtplib.SMTPException, OSError) as error:
            raise self._meaning(error) from error

    def send(self, message: EmailMessage, within: float) -> None:
        """Hand the mail over by the connection that there is; on return the server has taken responsibility for it.

        Args:
            within: seconds after which a mail that is not taken by then is given up for now.

        Raises:
            MailServerDown, MailDelayed, MailRefused: it was not taken; or, where the connection broke at the very end,
                it may have been.
        """
        try:
            with (self._connection or self._connected()).ending(within) as connection:
                connection.send_message(message)
        except (smtplib.SMTPException, OSError) as error:
            raise self._meaning(error) from error
        except (ValueError, MessageError) as error:
            # A mail that can't be written as SMTP has it. Nothing of it was said yet.
            raise MailRefused(type(error).__name__) from error

    def hang_up(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.quit()
            except (smtplib.SMTPException, OSError):
                connection.close()

    def _connected(self) -> _Dialogue:
        if self._connection is not None and not _is_alive(self._connection):
            # Servers close what is idle, and some take only so many mails by one connection.
            self._drop()
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> _Dialogue:
        settings = self._settings
        connection = self._open()
        try:
            if settings.security is Security.STARTTLS:
                connection.starttls(context=self._context)
            if settings.username is not None:
                connection.login(settings.username, settings.password or "")
        except BaseException:
            connection.close()
            raise
        return connection

    def _open(self) -> _Dialogue:
        settings = self._settings
        if settings.security is Security.TLS:
            return _TlsDialogue(
                settings.host, settings.port, settings.hello, timeout=TIMEOUT_SECONDS, context=self._context
            )
        return _Dialogue(settings.host, settings.port, settings.hello, timeout=TIMEOUT_SECONDS)

    def _meaning(self, error: Exception) -> MailNotTaken:
        failure = _failure(error)
        # After what concerns one mail alone the dialogue goes on; after anything else it starts over.
        if isinstance(failure, MailServerDown):
            self._drop()
        return failure

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _is_alive(connection: smtplib.SMTP) -> bool:
    try:
        return connection.noop()[0] == _OK
    except (smtplib.SMTPException, OSError):
        return False


def _failure(error: Exception) -> MailNotTaken:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        ((code, text),) = error.recipients.values()
        return _reply(code, text)
    if isinstance(error, smtplib.SMTPDataError):
        return _reply(error.smtp_code, error.smtp_error)
    # A sender that is not welcome, a login that fails: no mail's fault, and an operator will mend it.
    if isinstance(error, smtplib.SMTPResponseException):
        return MailServerDown(_named(error.smtp_code, error.smtp_error))
    # smtplib tells only so what broke the connection: no answer in time, or the server.
    cause = error.__context__ if isinstance(error, smtplib.SMTPServerDisconnected) else None
    return MailServerDown(type(cause or error).__name__)


def _reply(code: int, text: bytes | str) -> MailNotTaken:
    if code == _CLOSING or code < 0:
        return MailServerDown(_named(code, text))
    return (MailRefused if code >= _PERMANENT else MailDelayed)(_named(code, text))


def _named(code: int, text: bytes | str) -> str:
    words = text.decode("ascii", "replace") if isinstance(text, bytes) else text
    found = _ENHANCED_CODE.match(words)
    return f"SMTP {code} {found.group()}" if found else f"SMTP {code}"
