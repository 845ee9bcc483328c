"""What an e-mail says: text and HTML from templates, around what callers wrote and nothing that they wrote at length.

Subjects of tickets, names and addresses are other people's words: they are cleaned before they reach a header, and
escaped by the HTML template. Python decodes encoded words (RFC 2047, =?utf-8?q?=0D=0A?=) in whatever is made a header,
line breaks too, and writes them out as they are: so nothing that could begin one gets there.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from itertools import groupby
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from server.notification.words import Priority, Status, Type

MOST_LISTED = 100
"""How many notifications one e-mail tells at most; beyond that it says how many more there are."""

LONGEST_HEADER = 150

# Control characters, line separators, and what turns the direction of the text around it.
_UNFIT_FOR_A_LINE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+")

_ENCODED_WORD = "=?"
# What a name has to be quoted for. Where Python breaks a long header into lines it can lose the quotes, and the address
# with them.
_UNFIT_FOR_A_NAME = re.compile(r'[()<>\[\]:;@\\,"]')

_HEADLINES = {
    Type.TICKET_CREATED: "New ticket",
    Type.TICKET_ASSIGNED: "We are working on your ticket",
    Type.TICKET_COMMENTED: "New comment",
    Type.TICKET_STATUS_CHANGED: "Your ticket is {status}",
    Type.TICKET_RESOLVED: "Your ticket is resolved",
    Type.TICKET_CLOSED: "Your ticket is closed",
}
_SENTENCES = {
    Type.TICKET_CREATED: "The ticket was opened.",
    Type.TICKET_ASSIGNED: "A member of our support team has taken the ticket on.",
    Type.TICKET_COMMENTED: "There is a new comment.",
    Type.TICKET_STATUS_CHANGED: "The ticket is now {status}.",
    Type.TICKET_RESOLVED: "The ticket was resolved. If the problem is not gone, please comment on it.",
    Type.TICKET_CLOSED: "The ticket was closed.",
}
_STATUSES = {
    Status.OPEN: "open again",
    Status.IN_PROGRESS: "in progress",
    Status.RESOLVED: "resolved",
    Status.CLOSED: "closed",
}
_PRESSING = frozenset({Priority.HIGH, Priority.URGENT})


class Unaddressable(Exception):
    """No mail can be addressed so."""


class Told(NamedTuple):
    """One notification, as an e-mail tells it."""

    type: Type
    ticket_id: UUID
    subject: str
    priority: Priority
    status: Status
    occurred_at: datetime


class Letter(NamedTuple):
    """An e-mail to be composed: to whom, and what it tells. `total` counts what is left out of `told`, too."""

    email_id: UUID
    address: str
    name: str | None
    told: Sequence[Told]
    total: int


class _Line(NamedTuple):
    sentence: str
    when: str


class _Ticket(NamedTuple):
    subject: str
    url: str
    priority: str
    is_pressing: bool
    lines: Sequence[_Line]


class Composer:
    """Makes mails of one sender.

    Args:
        sender: address of the sender, with or without a name: `Nibble Support <support@nibble.example>`.
        ticket_url: where a person reads a ticket, with `{ticket_id}` in it.

    Raises:
        ValueError: the sender is no address.
    """

    def __init__(self, sender: str, ticket_url: str) -> None:
        self._sender = address_of(sender)
        self._ticket_url = ticket_url
        self._templates = Environment(
            loader=FileSystemLoader(Path(__file__).with_name("templates")),
            autoescape=select_autoescape(["html"]),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )

    @property
    def domain(self) -> str:
        """The sender's domain."""
        return self._sender.domain

    def compose(self, letter: Letter, now: datetime) -> EmailMessage:
        """The mail; composed again for the same e-mail it has the same Message-ID.

        Raises:
            Unaddressable: the recipient's address is none.
        """
        message = EmailMessage(policy=SMTP)
        message["From"] = self._sender
        message["To"] = _recipient(letter)
        headline = _headline(letter)
        message["Subject"] = _header(headline)
        message["Date"] = format_datetime(now)
        message["Message-ID"] = f"<{letter.email_id}@{self.domain}>"
        message["List-Id"] = f"Nibble support <support-notifications.{self.domain}>"
        message["Auto-Submitted"] = "auto-generated"
        words = self._words(letter, headline)
        message.set_content(self._templates.get_template("email.txt").render(words))
        message.add_alternative(self._templates.get_template("email.html").render(words), subtype="html")
        return message

    def _words(self, letter: Letter, headline: str) -> dict[str, object]:
        return {
            "headline": headline,
            "name": _line(letter.name) if letter.name else None,
            "tickets": list(self._tickets(letter.told)),
            "more": letter.total - len(letter.told),
        }

    def _tickets(self, told: Sequence[Told]) -> Iterator[_Ticket]:
        """What is told by ticket, in the order in which the tickets first come; of each the newest subject."""
        first = {one.ticket_id: place for place, one in reversed(list(enumerate(told)))}
        for ticket_id, group in groupby(sorted(told, key=lambda one: first[one.ticket_id]), lambda one: one.ticket_id):
            news = list(group)
            yield _Ticket(
                subject=_line(news[-1].subject),
                url=self._ticket_url.replace("{ticket_id}", str(ticket_id)),
                priority=news[-1].priority,
                is_pressing=news[-1].priority in _PRESSING,
                lines=[_Line(_worded(_SENTENCES, one), _moment(one.occurred_at)) for one in news],
            )


def address_of(text: str) -> Address:
    """An address, with or without a name before it.

    Raises:
        ValueError: it is none, or one that not every mail server takes.
    """
    name, _, rest = text.rpartition("<")
    spec = rest.removesuffix(">") if name or text.startswith("<") else text
    return _address(name.strip().strip('"'), spec.strip())


def _address(name: str, spec: str) -> Address:
    """Raises ValueError for whatever is no plain address: no ASCII, no domain, a line break, an encoded word."""
    if not spec.isascii() or _UNFIT_FOR_A_LINE.search(spec) or _ENCODED_WORD in spec:
        raise ValueError("not an address")
    try:
        address = Address(name, addr_spec=spec)
    except (MessageError, ValueError, IndexError) as error:
        raise ValueError("not an address") from error
    if not (address.username and address.domain):
        raise ValueError("not an address")
    return address


def _recipient(letter: Letter) -> Address:
    try:
        name = _UNFIT_FOR_A_NAME.sub(" ", letter.name or "")
        return _address(_header(_line(name)), letter.address)
    except ValueError as error:
        raise Unaddressable from error


def _headline(letter: Letter) -> str:
    if letter.total > 1:
        tickets = len({one.ticket_id for one in letter.told})
        # Of more than are listed nobody has counted the tickets.
        on = "" if letter.total > len(letter.told) else f" on {tickets} ticket{'s' if tickets > 1 else ''}"
        return f"{letter.total} support updates{on}"
    (one,) = letter.told
    urgency = f"{one.priority} " if one.type is Type.TICKET_CREATED and one.priority in _PRESSING else ""
    headline = _worded(_HEADLINES, one).replace("New ", f"New {urgency}")
    return f"{headline}: {_line(one.subject)}"


def _worded(words: dict[Type, str], one: Told) -> str:
    return words[one.type].format(status=_STATUSES[one.status])


def _line(text: str) -> str:
    """The text as one line."""
    return " ".join(_UNFIT_FOR_A_LINE.sub(" ", text).split())


def _header(line: str) -> str:
    """As much of the line as a header should hold, without what Python would take for an encoded word."""
    plain = line.replace(_ENCODED_WORD, "= ?")
    return plain if len(plain) <= LONGEST_HEADER else f"{plain[: LONGEST_HEADER - 1]}…"


def _moment(time: datetime) -> str:
    return f"{time:%d %b %Y, %H:%M} UTC"
