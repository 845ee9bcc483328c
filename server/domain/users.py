"""Somebody whom the User Service knows, and what of their name and address is believed.

It is other people's data: what can't be used as it stands counts as none, so that nothing in it reaches a mail's
headers, the SMTP dialogue or a terminal.
"""

import re
from typing import NamedTuple
from uuid import UUID

from server.domain.foreign_texts import UNSHOWABLE

LONGEST_NAME = 200
LONGEST_EMAIL = 254
# HTML's notion of an address: no quotes, comments, blanks or brackets. ASCII alone: not every server speaks SMTPUTF8.
_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = re.compile(rf"[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@{_LABEL}(?:\.{_LABEL})*")


class User(NamedTuple):
    """Somebody whom the User Service knows; None for a name or an address that it did not tell, or no usable one."""

    id: UUID
    name: str | None
    email: str | None


def usable_name(name: str) -> str | None:
    """The name without blanks around it, or None for one that is too long or can't be shown."""
    trimmed = name.strip()
    return trimmed if 0 < len(trimmed) <= LONGEST_NAME and not UNSHOWABLE.search(trimmed) else None


def usable_email(email: str) -> str | None:
    """The address, or None for one that is none or needs quoting."""
    # RFC 2047's encoded words look like that; what reads headers would put something else in their place.
    return email if len(email) <= LONGEST_EMAIL and _EMAIL.fullmatch(email) and "=?" not in email else None
