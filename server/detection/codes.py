"""Security codes of cards and PINs: a few digits, which only the words beside them make one."""

import re
from collections.abc import Iterator

from server.detection.reading import Reading
from server.detection.words import BEFORE_A_NAME, OWNERS, Names, far_links, gap_after

_SECURITY_CODE = Names("""
cvv cvv2 cvc cvc2 cvn cvd cvv_cvc cvc_cvv cvv_code cvc_code cvv_nummer cvc_nummer cvv_number cvc_number cvv_kod
cvv_kodu cvc_kodu
card_security_code security_code card_verification_code card_code
kartenprüfnummer prüfnummer kartenprüfziffer prüfziffer sicherheitscode sicherheitsnummer
código_de_seguridad
código_seguridad clave_de_seguridad crypto cryptogramme cryptogramme_visuel code_au_dos code_de_sécurité
codice_di_sicurezza codice_sicurezza
kod_bezpieczeństwa kodu_bezpieczeństwa kod_zabezpieczający beveiligingscode veiligheidscode código_de_segurança
güvenlik_kod~ säkerhetskod~ sikkerhedskode~ kontrolcifre~ sikkerhetskode~ turvakood~ turvaluku turvaluvu~
bezpečnostní_kód ochranný_kód cod~_de_securitate код_безопасности код_безпеки код_за_сигурност biztonsági_kód
κωδικός_ασφαλείας
""")
_PIN = Names("""
pin pin_code pin_number pin_nummer pin_kod pin_kode pin_kodu~ pinkod~ pinkoden pinkode~ pincode~ pinkood~ pin_koodi~
pin_koodi_on pin_koodini_on pin_nr
card_pin debit_pin geheimzahl geheimnummer kartenpin code_pin code_secret código_pin clave_pin número_secreto
codice_pin kod_pin numer_pin
código_secreto pinkódom pin_kód~ пин пин_код~ пін пін_код~ ПИН_код~ κωδικός_pin kart_şifre~ kartın_şifre~ nip pinim
pinem pinu
""")

# After the digits no more of them, and nothing that makes them an amount, a date, a time or a length.
_UNITS = (
    "eur euro euros usd gbp kr zł zl tl cent cents min minute minutes minuten m km meter meters metres st street times"
)
_ALONE = rf"(?![^\W_]|[.,:/\-][^\W_]|[ .\-]?\d| ?(?:[€$£%°]|(?:{'|'.join(_UNITS.split())})(?![^\W_])))"
_THREE_OR_FOUR = re.compile(rf"\d(?:[ \-]?\d){{2,3}}{_ALONE}")
_FOUR_TO_EIGHT = re.compile(rf"\d(?:[ \-]?\d){{3,7}}{_ALONE}")
# "123 is my CVV", "123 (CVV)": what stands right before the name.
_LEADING = rf"(?: ?[(\[]| ?= ?|,? (?:{BEFORE_A_NAME})? ?(?:(?:{OWNERS}) )?(?:card )?)$"
_THREE_OR_FOUR_BEFORE, _FOUR_TO_EIGHT_BEFORE = (
    re.compile(rf"(?<![^\W_])(?<!\d[.,:/\-])(\d{{{count}}})[\"')]?{_LEADING}") for count in ("3,4", "4,8")
)
_REACH_BACK = 28
_APPOSED = re.compile(r"[,.)]|$")


def security_codes(reading: Reading) -> Iterator[tuple[int, int]]:
    """Three or four digits beside words for the security code of a card."""
    return _beside(reading, _SECURITY_CODE, _THREE_OR_FOUR, _THREE_OR_FOUR_BEFORE)


def pins(reading: Reading) -> Iterator[tuple[int, int]]:
    """Four to eight digits beside words for a PIN."""
    return _beside(reading, _PIN, _FOUR_TO_EIGHT, _FOUR_TO_EIGHT_BEFORE)


def _beside(
    reading: Reading, wanted: Names, after: re.Pattern[str], before: re.Pattern[str]
) -> Iterator[tuple[int, int]]:
    for start, end in wanted.within(reading.lower):
        if value := _after(reading.lower, end, after):
            yield value.span()
        elif earlier := before.search(reading.lower[max(0, start - _REACH_BACK) : start]):
            yield _moved(earlier.span(1), max(0, start - _REACH_BACK))


def _after(lower: str, name_end: int, digits: re.Pattern[str]) -> re.Match[str] | None:
    gap = gap_after(lower, name_end)
    value = digits.match(lower, gap.end) if gap.reaches else None
    if value is None and lower.startswith(", ", name_end):
        value = digits.match(lower, name_end + 2)  # "my PIN, 1234, …"
        return value if value and _APPOSED.match(lower, value.end()) else None
    return value or next(filter(None, (digits.match(lower, start) for start in far_links(lower, name_end))), None)


def _moved(span: tuple[int, int], by: int) -> tuple[int, int]:
    return span[0] + by, span[1] + by
