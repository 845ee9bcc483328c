"""Access tokens and keys: those that their makers let begin with a mark, and long ones that a word announces."""

import re
from collections.abc import Iterator

from server.detection.reading import Reading
from server.detection.words import Names, far_links, gap_after

# Marks that makers give their keys so that they can be found, with what follows: GitHub, GitLab, Stripe, Slack, AWS,
# Google, npm, PyPI, SendGrid, Shopify, DigitalOcean, Hugging Face, OpenAI, Anthropic, Square, Telegram; and JWTs.
_MARKED = re.compile(
    r"(?<![A-Za-z0-9])(?:gh[pousr]_[A-Za-z0-9]{20,255}|github_pat_[A-Za-z0-9_]{20,255}|gl[a-z]{2,6}-[A-Za-z0-9_\-]{20,255}"
    r"|[sr]k_(?:live|test)_[A-Za-z0-9]{10,255}|whsec_[A-Za-z0-9+/=]{16,255}|xox[abeoprs]-[A-Za-z0-9\-]{10,255}|xapp-[A-Za-z0-9\-]{10,255}"
    r"|A(?:KI|SI)A[A-Z0-9]{16}|AIza[A-Za-z0-9_\-]{35}|ya29\.[A-Za-z0-9_\-]{20,255}|GOCSPX-[A-Za-z0-9_\-]{20,255}"
    r"|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_\-]{16,255}|SG\.[A-Za-z0-9_\-]{16,64}\.[A-Za-z0-9_\-]{16,64}"
    r"|shp(?:at|ca|pa|ss)_[A-Fa-f0-9]{32}|do[opr]_v1_[a-f0-9]{64}|hf_[A-Za-z0-9]{30,64}|sk-[A-Za-z0-9_\-]{20,255}"
    r"|sq0(?:atp|csp)-[A-Za-z0-9_\-]{22,64}|\d{8,10}:AA[A-Za-z0-9_\-]{33}"
    r"|eyJ[A-Za-z0-9_\-]{8,4096}+\.eyJ[A-Za-z0-9_\-]{8,8192}+(?:\.[A-Za-z0-9_\-]{0,2048}+)?)"
)
_MARKS = (
    "gh", "gl", "k_live_", "k_test_", "whsec_", "xox", "xapp-", "AKIA", "ASIA", "AIza", "ya29.", "GOCSPX-", "npm_",
    "pypi-", "SG.", "shp", "do", "hf_", "sk-", "sq0", ":AA", "eyJ",
)  # fmt: skip
_KEY_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_KEY_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_HEADER = re.compile(r"(?<![^\W_])(?:bearer|basic)[ :=]{1,3}([a-z0-9._~+/\-]{16,8192}+={0,2})")
_NAMED = Names("""
token tokens access_token auth_token refresh_token session_token bot_token api_token api_key apikey api_keys secret
secret_key
client_secret webhook_secret access_key private_key signing_secret authorization x_api_key
schlüssel api_schlüssel zugriffstoken geheimschlüssel clave_api clave_de_api clave_de_la_api clave_secreta clé_api
clé_d'api clé_secrète jeton
jeton_d'accès chiave_api chiave_segreta klucz klucz_api klucz_do_api chave_api chave_da_api chave_de_api chave_secreta
api_anahtarı anahtar~
nyckel api_nyckel~ api_nøgle~ api_nøkkel~ sleutel api_sleutel api_avain api_klíč klíč ключ ключ_api api_ключ токен
токена токен_доступа
""")
_LONG = re.compile(r"[A-Za-z0-9_\-./+~]{16,512}+={0,2}")
_LETTER_AND_DIGIT = re.compile(r"(?=[^\d]*\d)(?=[^A-Za-z]*[A-Za-z])")


def access_tokens(reading: Reading) -> Iterator[tuple[int, int]]:
    """Private keys, marked tokens, what authorizes a request, and what is called a token or key and looks like one."""
    yield from _private_keys(reading.seen)
    if any(mark in reading.seen for mark in _MARKS):
        yield from (token.span() for token in _MARKED.finditer(reading.seen))
    yield from (header.span(1) for header in _HEADER.finditer(reading.lower) if _LETTER_AND_DIGIT.match(header[1]))
    yield from _named_tokens(reading)


def _private_keys(seen: str) -> Iterator[tuple[int, int]]:
    """From the first line of a private key to its last, or to the end of a text in which the last is missing."""
    end = 0
    while begin := _KEY_BEGIN.search(seen, end):
        last = _KEY_END.search(seen, begin.end())
        end = last.end() if last else len(seen)
        yield begin.start(), end


def _named_tokens(reading: Reading) -> Iterator[tuple[int, int]]:
    for _, name_end in _NAMED.within(reading.lower):
        gap = gap_after(reading.lower, name_end)
        for start in (gap.end, *far_links(reading.lower, name_end)):
            if value := _long_value(reading.seen, start):
                yield start, start + len(value)
                break


def _long_value(seen: str, start: int) -> str:
    """What stands at `start`, if it looks like a key; nothing otherwise."""
    value = _LONG.match(seen, start)
    return value[0].rstrip(".") if value and _LETTER_AND_DIGIT.match(value[0]) and "//" not in value[0] else ""
