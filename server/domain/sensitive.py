"""What readers of a text are not to see: which kinds there are, where one stands, and how it is masked."""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

MASK = "*"
# By its last digits an owner tells a card or an account from another; alone they are worth nothing to anybody else.
VISIBLE_END = 4


class Kind(StrEnum):
    """What was found."""

    CARD_NUMBER = "card_number"
    IBAN = "iban"
    SECURITY_CODE = "security_code"
    PIN = "pin"
    PASSWORD = "password"  # noqa: S105 - the name of a kind
    ACCESS_TOKEN = "access_token"  # noqa: S105
    NATIONAL_ID = "national_id"


_ENDS_VISIBLY = frozenset({Kind.CARD_NUMBER, Kind.IBAN})


class Finding(NamedTuple):
    """One value and where it stands: `start` counts from 0, both numbers are code points of the text as written."""

    kind: Kind
    start: int
    length: int


def mask(text: str, findings: Iterable[Finding]) -> str:
    """The text with the found values made unreadable, as long as it was, so that positions hold in both.

    Card numbers and IBANs keep their last four characters and what separates their groups; of the others nothing stays.
    Findings lie within the text.
    """
    characters = list(text)
    for finding in findings:
        for at in _hidden(text, finding):
            characters[at] = MASK
    return "".join(characters)


def _hidden(text: str, finding: Finding) -> Sequence[int]:
    span = range(finding.start, finding.start + finding.length)
    if finding.kind not in _ENDS_VISIBLY:
        return span
    return [at for at in span if text[at].isalnum() or text[at] == MASK][:-VISIBLE_END]
