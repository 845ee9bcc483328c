"""International bank account numbers: each country's length and structure and the check digits are python-stdnum's."""

import re
from collections.abc import Iterator
from functools import cache

from stdnum import iban, numdb

from server.detection.reading import Reading

# A country and check digits, not within a word, or after "IBAN" written in one with it.
_BEGINNING = re.compile(r"(?:(?<=iban)|(?<![^\W_]))([a-z]{2}) ?\d ?\d(?=[ .\-\n]?[a-z0-9])")
_SEPARATORS = re.compile(r"[ .\-\n]")
_LENGTH_OF = re.compile(r"(\d+)!([nac])")
_CHARACTERS = {"n": r"\d", "a": "[a-z]", "c": "[a-z0-9]"}


def ibans(reading: Reading) -> Iterator[tuple[int, int]]:
    """Account numbers of the countries that have IBANs, in either case, in one piece or in groups."""
    end = 0
    for beginning in _BEGINNING.finditer(reading.lower):
        whole = _shape(beginning[1])
        found = whole.match(reading.lower, beginning.start()) if whole and beginning.start() >= end else None
        if found and iban.is_valid(_SEPARATORS.sub("", found[0]), check_country=False):
            end = found.end()
            yield found.span()


@cache
def _shape(country: str) -> re.Pattern[str] | None:
    """What an IBAN of the country looks like, at most one sign before each character; None for a country without."""
    # The structure is given as "8!n10!n": so many digits, letters or either.
    known = numdb.get("iban").info(country.upper())[0][1].get("bban")
    if known is None:
        return None
    parts = "".join(rf"(?:[ .\-\n]?{_CHARACTERS[kind]}){{{size}}}" for size, kind in _LENGTH_OF.findall(known))
    return re.compile(rf"{country}(?: ?\d){{2}}{parts}(?![^\W_])")
