"""What a field may hold (contract, section 3): every bad field is collected, and all are named at once."""

import re
import unicodedata
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TypeVar
from uuid import UUID

from server.errors import FieldViolation, InvalidFields

MAX_SUBJECT = 200
MAX_TEXT = 10_000
DEFAULT_PAGE_SIZE = 20
MAX_PAGE_SIZE = 100
NANOS_PER_SECOND = 1_000_000_000

E = TypeVar("E", bound=StrEnum)

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]{1,255}")
# Format characters (zero-width space, joiners, BOM) and fillers print nothing either: a text of only those is blank.
_BLANK_FILLERS = frozenset("\u115f\u1160\u2800\u3164\uffa0")
_NOWHERE = UUID(int=0)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END = datetime.max.replace(tzinfo=UTC)


def clean_text(text: str) -> str:
    """The text as it is stored: newlines for CRLF and CR, no blanks around it."""
    return _with_newlines(text).strip()


def _with_newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def is_uuid(text: str) -> bool:
    """Whether the text is a UUID in the one spelling that is taken: with hyphens, in either case."""
    return _UUID.fullmatch(text) is not None


def parse_uuid(text: str) -> UUID | None:
    """The UUID, or None for a text that is none."""
    return UUID(text) if is_uuid(text) else None


def is_blank(text: str) -> bool:
    """Whether a reader would see nothing."""
    return all(char.isspace() or char in _BLANK_FILLERS or unicodedata.category(char) == "Cf" for char in text)


class Fields:
    """Reads the fields of one request, noting each violation; `check` raises when there was any.

    A reader that met a bad value returns a placeholder of the right type, so that the remaining fields are read too.
    """

    def __init__(self) -> None:
        self._violations: list[FieldViolation] = []

    def check(self) -> None:
        """End the reading.

        Raises:
            InvalidFields: with every violation noted so far.
        """
        if self._violations:
            raise InvalidFields(self._violations)

    def refuse(self, field: str, description: str) -> None:
        """Note that `field` is not as `description` allows."""
        violation = FieldViolation(field, description)
        # Once is enough for a list of five hundred bad values, whose trailers would not fit otherwise.
        if violation not in self._violations:
            self._violations.append(violation)

    def text(self, field: str, value: str, longest: int) -> str:
        """A text of 1 to `longest` code points after trimming."""
        text = clean_text(value)
        if len(text) > longest:  # first, so that no more than that is looked at one by one
            self.refuse(field, f"must hold at most {longest} characters; it has {len(text)}")
        elif is_blank(text):
            self.refuse(field, f"must hold 1 to {longest} characters that are not blank")
        elif _CONTROL.search(_with_newlines(value)):  # before trimming, which takes some of them for blanks
            self.refuse(field, "must not hold control characters other than newline and tab")
        return text

    def uuid(self, field: str, value: str) -> UUID:
        """A UUID with hyphens, in either case."""
        parsed = parse_uuid(value)
        if parsed is None:
            self.refuse(field, "must be a UUID such as 0192f0c1-2345-7abc-8def-0123456789ab")
        return parsed or _NOWHERE

    def choice(self, field: str, value: str | None, kind: type[E]) -> E:
        """One of the values of `kind`; None stands for a value that was left out or is unknown."""
        for member in kind:
            if member == value:
                return member
        self.refuse(field, f"must be one of {', '.join(kind)}")
        return next(iter(kind))

    def choices(self, field: str, values: Iterable[str | None], kind: type[E]) -> frozenset[E]:
        """Some of the values of `kind`; none given means all of them."""
        return frozenset(self.choice(field, value, kind) for value in values) or frozenset(kind)

    def page_size(self, value: int) -> int:
        """The rows of a page: 0 means the default, more than the most is clamped."""
        if value < 0:
            self.refuse("page_size", f"must be 0 (the default, {DEFAULT_PAGE_SIZE}) to {MAX_PAGE_SIZE}")
        return min(value, MAX_PAGE_SIZE) or DEFAULT_PAGE_SIZE

    def whole_number(self, field: str, value: int, least: int, most: int) -> int:
        """A number from `least` to `most`."""
        if not least <= value <= most:
            self.refuse(field, f"must be {least} to {most}")
        return value

    def expected_version(self, value: int | None) -> int | None:
        """A version, from 1 up."""
        if value is not None and value < 1:
            self.refuse("expected_version", "must be 1 or more")
        return value

    def idempotency_key(self, value: str | bytes | None) -> str | None:
        """A key of 1 to 255 visible ASCII characters, or None where there is none."""
        if value is None or (isinstance(value, str) and _VISIBLE_ASCII.fullmatch(value)):
            return value
        self.refuse("idempotency-key", "must be 1 to 255 visible ASCII characters")
        return None

    def time(self, field: str, seconds: int, nanos: int) -> datetime | None:
        """A moment between the years 1 and 9999, to the microsecond above: the stored times have no finer parts."""
        try:
            second = _EPOCH + timedelta(seconds=seconds)
        except OverflowError:
            second = None
        if second is None or not 0 <= nanos < NANOS_PER_SECOND:
            self.refuse(field, "must be a time between the years 1 and 9999")
            return None
        # Rounding up stops at the last microsecond there is: many write the end of time with nine nines.
        return second + min(timedelta(microseconds=-(-nanos // 1000)), _END - second)
