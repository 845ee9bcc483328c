"""Card numbers, IBANs and security codes in what another service tells: what may be kept of them, and where they hide.

Meant for a service that is careless, not for one that hides a number on purpose: against that nothing helps. In doubt a
number is masked, a long telephone number now and then among them.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence

SHORTEST_CARD_NUMBER, LONGEST_CARD_NUMBER = 13, 19
"""Digits (ISO/IEC 7812)."""
LONGEST_WRITTEN_NUMBER = 200
"""Characters: more than a number that is found can be spread over."""
LONGEST_TOLD = 64
PIECE = 5
"""So many digits of a number in a row are too many; the last four may be shown."""

# Nothing that anybody writes has so many digits in a row, however it is parted: it is not looked at one by one.
_MOST_DIGITS = 24
_GAP = r"[\W_]{0,5}"
_DIGIT = re.compile("[0-9]")
_DIGITS = re.compile(f"[0-9](?:{_GAP}[0-9]){{{PIECE - 1},}}")
_SECURITY_CODE = re.compile(rf"(?i)(?:cv[vc]2?|csc|security\ code){_GAP}([0-9]{{3,4}})(?![0-9])")
# Without consuming it, so that letters before an IBAN don't hide it.
_IBAN_START = re.compile("(?=[A-Za-z]{2}[0-9]{2})")
# Some countries have letters in theirs. A sentence with "at 12" in it may check by chance, but it has fewer digits.
_FEWEST_DIGITS_OF_AN_IBAN = 10
# ISO 13616's registry: how many letters and digits an IBAN of each country has.
_IBAN_LENGTHS = {
    country: int(length)
    for length, countries in {
        "15": "NO", "16": "BE", "18": "DK FI FK FO GL NL SD", "19": "MK SI", "20": "AT BA EE KZ LT LU MN XK",
        "21": "CH HR LI LV", "22": "BG BH CR DE GB GE IE ME RS VA", "23": "AE GI IL IQ OM SO TL",
        "24": "AD CZ ES MD PK RO SA SE SK TN VG", "25": "LY PT ST", "26": "IS TR", "27": "BI DJ FR GR IT MC MR SM",
        "28": "AL AZ BY CY DO GT HN HU LB NI PL", "29": "BR EG PS QA UA", "30": "JO KW MU YE", "31": "MT SC SV",
        "32": "LC", "33": "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip


def last_four_of_card(number: str) -> str | None:
    """The last four digits of a card's number, masked already or not; None for what is no such number."""
    digits = _digits(_plain(number[: LONGEST_TOLD + 1]))
    return digits[-4:] if len(number) <= LONGEST_TOLD and 4 <= len(digits) <= LONGEST_CARD_NUMBER else None


def last_four_of_iban(iban: str) -> str | None:
    """The last four characters of an IBAN, masked already or not; None for what is no such number."""
    signs = "".join(re.findall("[0-9A-Z]", _plain(iban[: LONGEST_TOLD + 1]).upper()))
    known = len(iban) <= LONGEST_TOLD and 4 <= len(signs) <= max(_IBAN_LENGTHS.values())
    return signs[-4:] if known and _DIGIT.search(signs[-4:]) else None


class Mask:
    """Puts stars in the place of payment numbers in texts: of those that are told to it, and of any that check."""

    def __init__(self, card_number: str = "", iban: str = "", security_code: str = "") -> None:
        """The numbers as they came, in whatever form; empty for one that did not come."""
        told = [_digits(_plain(card_number[:LONGEST_TOLD]))]
        told += re.findall("[0-9]+", re.sub(r"[\W_]", "", _plain(iban[:LONGEST_TOLD])))
        self._pieces = {piece for number in told for piece in _pieces(number)}
        code = _digits(_plain(security_code[:LONGEST_TOLD]))
        self._code = re.compile(f"(?<![0-9]){code}(?![0-9])") if len(code) in (3, 4) else None

    def masked(self, text: str) -> str:
        """The text, as long as it was."""
        plain = _plain(text)
        hidden = {*_ibans(plain), *self._numbers(plain), *self._codes(plain)}
        return "".join("*" if place in hidden else char for place, char in enumerate(text)) if hidden else text

    def _numbers(self, plain: str) -> Iterator[int]:
        for found in _DIGITS.finditer(plain):
            places = [digit.start() for digit in _DIGIT.finditer(plain, *found.span())]
            yield from self._among([plain[place] for place in places], places)

    def _among(self, digits: Sequence[str], places: Sequence[int]) -> Iterator[int]:
        number = "".join(digits)
        if has_card_number(number):
            # All of it: what follows a card's number is as a rule its expiry date and its security code.
            yield from places
            return
        for start, piece in enumerate(_pieces(number)):
            if piece in self._pieces:
                yield from places[start : start + PIECE]

    def _codes(self, plain: str) -> Iterator[int]:
        for found in _SECURITY_CODE.finditer(plain):
            yield from range(*found.span(1))
        for found in self._code.finditer(plain) if self._code else ():
            yield from range(*found.span())


def has_card_number(digits: str) -> bool:
    """Whether 13 to 19 digits in a row, wherever they begin, have the check digit of a card number (Luhn)."""
    if len(digits) > _MOST_DIGITS:
        return True
    # Sums from the left, with every second digit doubled: once the even ones, once the odd ones. The last digit of a
    # number counts once, so the parity of its end says which of the two sums is its own.
    sums = ([0], [0])
    for place, digit in enumerate(map(int, digits)):
        for parity in (0, 1):
            counted = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)[digit] if place % 2 == parity else digit
            sums[parity].append(sums[parity][-1] + counted)
    return any(
        (sums[end % 2][end] - sums[end % 2][end - length]) % 10 == 0
        for length in range(SHORTEST_CARD_NUMBER, LONGEST_CARD_NUMBER + 1)
        for end in range(length, len(digits) + 1)
    )


def is_iban(signs: str) -> bool:
    """Whether letters and digits, without blanks, are an IBAN: its country, its length and its check digits."""
    if _IBAN_LENGTHS.get(signs[:2].upper()) != len(signs) or not signs.isascii():
        return False
    if len(_DIGIT.findall(signs)) < _FEWEST_DIGITS_OF_AN_IBAN:
        return False
    return int("".join(str(int(sign, 36)) for sign in signs[4:] + signs[:4])) % 97 == 1


def _ibans(plain: str) -> Iterator[int]:
    places = [place for place, char in enumerate(plain) if char.isalnum()]
    signs = "".join(plain[place] for place in places)
    for start in (found.start() for found in _IBAN_START.finditer(signs)):
        end = start + _IBAN_LENGTHS.get(signs[start : start + 2].upper(), 0)
        if is_iban(signs[start:end]):
            yield from places[start:end]


def _plain(text: str) -> str:
    """The text with digits and letters of any script and width as ASCII has them, each in its place."""
    return text if text.isascii() else "".join(map(_plain_char, text))


def _plain_char(char: str) -> str:
    digit = unicodedata.digit(char, None)
    if digit is not None:
        return str(digit)
    folded = unicodedata.normalize("NFKC", char)
    return folded if len(folded) == 1 else char


def _digits(plain: str) -> str:
    return "".join(_DIGIT.findall(plain))


def _pieces(digits: str) -> list[str]:
    return [digits[start : start + PIECE] for start in range(len(digits) - PIECE + 1)]
