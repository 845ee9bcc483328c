"""Security codes of cards and PINs: a few digits, which only the words beside them make one."""

import re
from collections.abc import Iterator

from server.detection.reading import Reading
from server.detection.words import Names, gap_after

_SECURITY_CODE = Names("""
cvv cvv2 cvc cvc2 cvn cvd cvv_cvc cvc_cvv cvv_code cvc_code cvv_nummer cvc_nummer cvv_number cvc_number cvv_kod cvv_kodu cvc_kodu
card_security_code security_code card_verification_code card_code
kartenprüfnummer prüfnummer kartenprüfziffer prüfziffer sicherheitscode sicherheitsnummer
código_de_seguridad clave_de_seguridad cryptogramme code_de_sécurité codice_di_sicurezza
kod_bezpieczeństwa kodu_bezpieczeństwa kod_zabezpieczający beveiligingscode veiligheidscode código_de_segurança
güvenlik_kod~ säkerhetskod~ sikkerhedskode~ kontrolcifre~ sikkerhetskode~ turvakood~ turvaluku turvaluvu~
bezpečnostní_kód ochranný_kód cod~_de_securitate код_безопасности код_безпеки код_за_сигурност biztonsági_kód κωδικός_ασφαλείας
""")
_PIN = Names("""
pin pin_code pin_number pin_nummer pin_kod pin_kode pin_kodu~ pinkod~ pinkoden pinkode~ pincode~ pinkood~ pin_koodi~ pin_nr
card_pin debit_pin geheimzahl geheimnummer kartenpin code_pin code_secret código_pin clave_pin número_secreto codice_pin kod_pin numer_pin
código_secreto pinkódom pin_kód~ пин пин_код~ пін пін_код~ ПИН_код~ κωδικός_pin pinim pinem pinu
""")

# Three or four digits, or four to eight, next to no others; then what says that they are an amount, a date, a time or a length.
_NO_MORE = (
    r"(?![^\W_]|[.,:/\-][^\W_]|[ .\-]?\d| ?(?:[€$£%°]|(?:eur|euros?|usd|gbp|kr|zł|zl|tl|cent|cents|min|minutes?|minuten|"
    r"m|km|meters?|metres?|st|street|times|photos|photo)(?![^\W_])))"
)
_THREE_OR_FOUR = re.compile(rf"\d(?:[ \-]?\d){{2,3}}{_NO_MORE}")
_FOUR_TO_EIGHT = re.compile(rf"\d(?:[ \-]?\d){{3,7}}{_NO_MORE}")
# "123 is my CVV", "123 (CVV)": what stands right before the name.
_SAID_BEFORE = (
    r"(?<![^\W_])(?<![\d][.,:/\-])(\d{%s})[\"')]?(?: ?[(\[]| ?= ?|,? (?:is|was|ist|war|es|est|e|to|ar|er|on|je|este)?"
    r" ?(?:(?:my|the|your|mein|meine|der|die|mi|el|mon|le|il mio|il|moj|moja|mijn|min|o meu|a minha|his|her) )?(?:card )?)$"
)
_THREE_OR_FOUR_BEFORE = re.compile(_SAID_BEFORE % "3,4")
_FOUR_TO_EIGHT_BEFORE = re.compile(_SAID_BEFORE % "4,8")
_REACH_BACK = 28


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
        gap = gap_after(reading.lower, end)
        value = after.match(reading.lower, gap.end) if gap.links else None
        if value is not None:
            yield value.span()
        elif earlier := before.search(reading.lower[max(0, start - _REACH_BACK) : start]):
            yield _moved(earlier.span(1), max(0, start - _REACH_BACK))


def _moved(span: tuple[int, int], by: int) -> tuple[int, int]:
    return span[0] + by, span[1] + by
