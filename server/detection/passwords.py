"""Passwords: what follows a word for one, or in some phrases precedes it, and looks like a value, not like a word."""

import re
from collections.abc import Iterator

from server.detection.ordinary import ORDINARY
from server.detection.reading import Reading
from server.detection.words import AS, BEFORE_A_NAME, OWNERS, QUOTES, Gap, Names, far_links, gap_after

_PASSWORD = Names("""
pasword passwrod pasword passwor passwort~ password passwords passwd passwrd passcode passphrase pwd pw psw
passwort passwörter kennwort passw kenwort contraseña contrasenya clave claves password_wifi mot_de_passe mdp
motdepasse
hasło hasła hasłem wachtwoord ww paswoord senha palavra_passe palavra_chave
şifre şifrem şifremiz şifreniz şifresi parola parolam parolası parolamız lösenord lösenordet lösen adgangskode
adgangskoden kodeord kodeordet
passord passordet salasana salasanani salasana_on salasanani_on salasananı heslo hesla jelszó jelszava jelszavam
jelszó_az
κωδικός_πρόσβασης συνθηματικό lozinka lozinku zaporka geslo parool slaptažodis parole
пароль пароля паролем пароли парола паролата كلمة_المرور كلمة_السر كلمة_مرور סיסמה パスワード 密码
""")
# Words of other meanings too: only with a colon or the like.
_ONLY_SAID = Names("pass pin_pass user_pass")
_ACCOUNT_IN_ADDRESS = re.compile(r"://[^\s:/@]{1,64}+:([^\s@/]{1,64}+)@")
_BEFORE = re.compile(
    rf"(?<!\S)[\"']?([^\s\"']{{6,64}})[\"']? (?:(?:{BEFORE_A_NAME}) (?:{OWNERS})(?: [a-z]{{2,9}})?|{AS}) $"
)
_REACH_BACK = 70
_BETWEEN_TWO = re.compile(r" ?[ ,/|;:] ?")
_SHORTEST = 3

_VALUE = re.compile(r"[^\s\"'`<>]{3,128}+")
_QUOTED = {quote: re.compile(rf"[^{quote}\n]{{3,64}}(?={quote})") for quote in QUOTES}
_TRAILING = ".,;:?)]}"
_NEXT_PARAMETER = re.compile(r"&[a-z_]+=.*")
_ADDRESS = re.compile(r"[a-z]+://|www\.|mailto:|[^@\s]+@[^@\s]+\.[a-z]{2,}$")
_READABLE = re.compile(r"[^\W_]")
_LETTER, _DIGIT = re.compile(r"[^\W\d_]"), re.compile(r"\d")
_SIGN_WITHIN = re.compile(r"[^\W_][!@#$%^&*_+=?~.\-][^\W_]|[^\W_][!@#$%^&*+~]+$")
_CASES = re.compile(r"[a-z][A-Z]")
_END_OF_CLAUSE = re.compile(r"[.!,;:)\"']*(?:$|\n|(?<=[.!,;)\"']) )")
_MOSTLY_MASKED = re.compile(r"\*{3}|x{5}|•{3}|\.{3}", re.IGNORECASE)


def passwords(reading: Reading) -> Iterator[tuple[int, int]]:
    """Values beside words for a password, and those in addresses such as `https://user:…@host`."""
    if "://" in reading.seen:
        accounts = _ACCOUNT_IN_ADDRESS.finditer(reading.seen)
        yield from (account.span(1) for account in accounts if not _MOSTLY_MASKED.search(account[1]))
    for names, only_said in ((_PASSWORD, False), (_ONLY_SAID, True)):
        for start, end in names.within(reading.lower):
            yield from _beside(reading, start, end, only_said=only_said)


def _beside(reading: Reading, start: int, end: int, *, only_said: bool) -> Iterator[tuple[int, int]]:
    gap = gap_after(reading.lower, end)
    value = _value(reading.seen, gap.end, gap.quoted)
    if (gap.said or not only_said) and _is_value(reading.seen, gap, *value):
        yield value
    elif gap.said and (after := _after_address(reading.seen, *value)):
        yield after
    elif not only_said:
        yield from _further_off(reading, start, end)


def _after_address(seen: str, start: int, end: int) -> tuple[int, int] | None:
    """The value in "login and password: anna@example.com / hunter2"."""
    between = _BETWEEN_TWO.match(seen, end) if _ADDRESS.match(seen[start:end].lower()) else None
    value = _value(seen, between.end(), "") if between else (0, 0)
    return value if _looks_made_up(seen[slice(*value)]) and not _ADDRESS.match(seen[slice(*value)].lower()) else None


def _further_off(reading: Reading, name_start: int, name_end: int) -> Iterator[tuple[int, int]]:
    """Values with words between that say nothing by themselves, so only what is hardly a word; or before the name."""
    for start in far_links(reading.lower, name_end):
        value = _value(reading.seen, start, "")
        if _mixes(reading.seen[slice(*value)]) and not _ADDRESS.match(reading.lower[slice(*value)]):
            yield value
            return
    yield from _before(reading, name_start)


def _before(reading: Reading, name_start: int) -> Iterator[tuple[int, int]]:
    """The value in "hunter2 is my password"."""
    from_ = max(0, name_start - _REACH_BACK)
    found = _BEFORE.search(reading.lower[from_:name_start])
    if found and _mixes(found[1]) and not _ADDRESS.match(found[1]):
        yield from_ + found.start(1), from_ + found.end(1)


def _value(seen: str, start: int, quote: str) -> tuple[int, int]:
    """Start and end of what could be the value at `start`, less the signs that end a sentence."""
    quoted = _QUOTED[quote].match(seen, start) if quote else None
    if quoted:
        return quoted.span()
    found = _VALUE.match(seen, start)
    value = found[0] if found else ""
    return start, start + len((_NEXT_PARAMETER.sub("", value) if "&" in value else value).rstrip(_TRAILING))


def _is_value(seen: str, gap: Gap, start: int, end: int) -> bool:
    value = seen[start:end]
    if (
        len(value) < _SHORTEST
        or _MOSTLY_MASKED.search(value)
        or _ADDRESS.match(value.lower())
        or _is_said_of_one(value)
    ):
        return False
    if not gap.said:
        return (
            (gap.links and bool(gap.quoted))
            or (_mixes(value) and gap.reaches)
            or (value.isdecimal() and len(value) >= 6 and gap.links)
        )
    return _looks_made_up(value) or bool(gap.quoted) or (_ends_a_clause(seen, end) and not gap.loose)


def _is_said_of_one(value: str) -> bool:
    words = [word for word in value.lower().split() if _READABLE.search(word)]
    return not words or 2 * sum(word in ORDINARY for word in words) > len(words)


def _mixes(value: str) -> bool:
    """Six characters or more, letters and digits among them: hardly a word of any language."""
    return len(value) >= 6 and bool(_LETTER.search(value)) and bool(_DIGIT.search(value))


def _looks_made_up(value: str) -> bool:
    if value.isdecimal():
        return len(value) >= 4
    return bool(_DIGIT.search(value) and _LETTER.search(value)) or bool(
        _SIGN_WITHIN.search(value) or _CASES.search(value)
    )


def _ends_a_clause(seen: str, end: int) -> bool:
    return _END_OF_CLAUSE.match(seen, end) is not None
