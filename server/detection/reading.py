"""A text as the detectors read it: one spelling for what people see as the same."""

import unicodedata
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple


def _folded(char: str) -> str:
    """The one spelling of a character: an ASCII digit, a letter without accents, a plain blank or sign; or nothing."""
    category = unicodedata.category(char)
    if category == "Nd":
        return str(unicodedata.decimal(char))
    if category in _BY_CATEGORY:
        return _BY_CATEGORY[category]
    if category.startswith("L"):
        return _without_accents(char)
    return unicodedata.normalize("NFKC", char) if "\uff01" <= char <= "\uff5e" else char


# Format characters (zero-width blanks, joiners, soft hyphens), variation selectors, combining accents and what encloses
# a character, as in keycap emoji, print nothing of their own, so a digit is next to a digit although one of them stands
# between.
_BY_CATEGORY = {"Cf": "", "Mn": "", "Me": "", "Zs": " ", "Zl": "\n", "Zp": "\n", "Pd": "-", "Pi": '"', "Pf": '"'}
_LETTERS = {"ı": "i", "ł": "l", "Ł": "L", "ø": "o", "Ø": "O", "đ": "d", "Đ": "D"}
_SIGNS = {"−": "-", "‚": '"', "„": '"', "…": "."}


def _without_accents(char: str) -> str:
    base = "".join(part for part in unicodedata.normalize("NFKD", char) if unicodedata.category(part) != "Mn")
    return base if len(base) == 1 else char


# The blocks that hold what is folded: the alphabets, full-width forms, and digits and selectors beyond the first plane.
_BLOCKS = (
    (0x80, 0x3100),
    (0xA000, 0xAC00),
    (0xFE00, 0x12000),
    (0x1D000, 0x1D800),
    (0x1E900, 0x1FC00),
    (0xE0000, 0xE0200),
)
_FOLDS: dict[int, str] = {
    code: folded
    for code in chain.from_iterable(range(*block) for block in _BLOCKS)
    if (folded := _folded(chr(code))) != chr(code)
} | {ord(char): folded for char, folded in (_LETTERS | _SIGNS).items()}
_DROPPED = frozenset(code for code, folded in _FOLDS.items() if not folded)


def fold(text: str) -> str:
    """The text in the spelling of `Reading.seen`."""
    return text if text.isascii() else text.translate(_FOLDS)


class Reading(NamedTuple):
    """A text in one spelling; its characters are those of the text less the ones that print nothing."""

    seen: str
    lower: str
    positions: Sequence[int]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Start and length, in the text as it was written, of the characters from `start` up to `end`."""
        first, last = self.positions[start], self.positions[end - 1]
        return first, last + 1 - first


def read(text: str) -> Reading:
    """The reading of a text; `lower` is as long as `seen`."""
    seen = fold(text)
    if len(seen) == len(text):
        return Reading(seen, _lower(seen), range(len(text)))
    return Reading(seen, _lower(seen), [at for at, char in enumerate(text) if ord(char) not in _DROPPED])


def _lower(seen: str) -> str:
    lower = seen.lower()
    # No letter that is left grows in lower case as of Unicode 15; one that came to would move every position after it.
    return lower if len(lower) == len(seen) else seen
