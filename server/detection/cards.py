"""Payment cards: their numbers, and the security code that is often written after number and expiry."""

import re
from collections.abc import Iterator

from stdnum import luhn

from server.detection.reading import Reading
from server.detection.words import Names

# The ranges that issuers have, each with its usual length. What is in one and has the right check digit is taken for a
# card whatever it is called; of random numbers of sixteen digits one in fifty is.
_USUAL = re.compile(
    r"4\d{15}|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}|3[47]\d{13}|(?:6011|64[4-9]\d|65\d\d)\d{12}"
    r"|35(?:2[89]|[3-8]\d)\d{12}|62\d{14}|220[0-4]\d{12}|9792\d{12}|5019\d{12}"
    r"|(?:5000|5018|5020|5038|5[6-8]\d\d|6304|6759|676[1-37]|6771)\d{12}"
)
# Lengths that the same ranges have more rarely, and that phone numbers, SIRET, barcodes and parcels have too: only near
# a word for a card.
_RARE = re.compile(
    r"4(?:\d{12}|\d{18})|3(?:0[0-59]|[689]\d)\d{11}|36\d{17}|62\d{15,17}"
    r"|(?:5018|5020|5038|5[6-8]\d\d|6304|6759|676[1-37]|6771)(?:\d{9,11}|\d{13,15})"
)
_CARD = Names("""
card cards card_no credit debit visa mastercard maestro amex american_express diners jcb unionpay cc karte karten
kreditkarte
kartennummer kk_nr bankkarte carte carta tarjeta karta karty kartę kartą kart kartı kartım kort kortet kortnummer
kaart
kaartnummer creditcard cartão cartões card~ kortti korttini карта карты картой kártya κάρτα بطاقة بطاقتي
""")
_REACH = 40

# Groups as people write cards: of four, Amex and Diners, of two, digit by digit. Of the last two the whole row must be
# a card, so that a text full of such digits has one beginning and not thousands.
_GAP = r"[ .\-\t\n]{0,2}"
_WRITTEN = (
    rf"\d{{4}}(?:{_GAP}\d{{4}}){{3}}",
    rf"3\d{{3}}{_GAP}\d{{6}}{_GAP}\d{{4,5}}",
    rf"\d{{4}}(?:{_GAP}\d{{4}}){{2,3}}{_GAP}\d{{1,3}}",
    r"(?<!\d )(?:\d ){12,18}\d(?! \d)",
    r"(?<!\d[ \-])(?:\d\d[ \-]){6,8}\d\d(?![ \-]\d)",
)
_NOT_WITHIN = r"(?<![0-9A-Za-z_+])(?<!\d\.)"
_NOT_ON = r"(?![0-9A-Za-z_])"
# Every way of writing is looked for at every beginning; hence the look-aheads, which pass nothing.
_CANDIDATES = re.compile(_NOT_WITHIN + "(?=[2-69])" + "".join(rf"(?=({written}){_NOT_ON})?" for written in _WRITTEN))
_GROUP_BEFORE = re.compile(r"(?<!\d)\d{4}[ .\-\t\n]{1,2}$")
_LONGEST_GAP = 7
_NOT_A_DIGIT = re.compile(r"\D")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
# A month with a year, and three or four digits after it.
_EXPIRY_AND_CODE = re.compile(
    r"(?<=\d)[ ,;|/\n]{1,3}(?:exp\.? )?(?:0?[1-9]|1[0-2]) ?[/\-] ?(?:20)?\d\d"
    r"[ ,;|/\n]{1,3}(\d{3,4})(?![^\W_]|[.,:/\-]\d)"
)
_LONGEST_WRITTEN = 48


def card_numbers(reading: Reading) -> Iterator[tuple[int, int]]:
    """Numbers of 13 to 19 digits in an issuer's range with a valid check digit, in one piece or in groups."""
    yield from _cards(without_uuids(reading.lower))


def codes_after_expiry(reading: Reading) -> Iterator[tuple[int, int]]:
    """The security code in "4111 … 1111 12/27 123"."""
    for found in _EXPIRY_AND_CODE.finditer(reading.lower):
        before = reading.lower[max(0, found.start() - _LONGEST_WRITTEN) : found.start()]
        if any(end == len(before) for _, end in _cards(before)):
            yield found.span(1)


def without_uuids(text: str) -> str:
    """The text with something without digits in place of UUIDs, so that no number is found in one."""
    return _UUID.sub(lambda uuid: "x" * len(uuid[0]), text) if "-" in text else text


def _cards(view: str) -> Iterator[tuple[int, int]]:
    passed = 0
    for candidate in _CANDIDATES.finditer(view):
        if candidate.start() < passed:
            continue
        for group, written in enumerate(candidate.groups(), start=1):
            if written and _is_card(view, passed, *candidate.span(group)):
                passed = candidate.end(group)
                yield candidate.span(group)
                break


def _is_card(view: str, passed: int, start: int, end: int) -> bool:
    digits = _NOT_A_DIGIT.sub("", view[start:end])
    usual = _USUAL.fullmatch(digits) is not None
    if not (usual or _RARE.fullmatch(digits)) or not luhn.is_valid(digits):
        return False
    # Of a list of four-digit numbers some are a card by chance; only what `passed` ends was one itself.
    in_a_row = _GROUP_BEFORE.search(view[max(passed, start - _LONGEST_GAP) : start])
    return (usual and not in_a_row) or _says_card(view, start, end)


def _says_card(view: str, start: int, end: int) -> bool:
    return _CARD.stand_in(view[max(0, start - _REACH) : end + _REACH])
