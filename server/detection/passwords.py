"""Passwords: what follows, or in a few phrases precedes, a word for one, and looks like a value rather than like more words."""

import re
from collections.abc import Iterator

from server.detection.reading import Reading, fold
from server.detection.words import QUOTES, Gap, Names, gap_after

_PASSWORD = Names("""
password passwords passwd passwrd passcode passphrase pwd pw
passwort passwörter kennwort passw kenwort contraseña contrasenya clave claves password_wifi mot_de_passe mdp motdepasse
hasło hasła hasłem wachtwoord ww paswoord senha palavra_passe palavra_chave
şifre şifrem şifremiz şifreniz şifresi parola parolam parolası parolamız lösenord lösenordet lösen adgangskode adgangskoden kodeord kodeordet
passord passordet salasana salasanani salasana_on salasanani_on salasananı heslo hesla jelszó jelszava jelszavam jelszó_az
κωδικός_πρόσβασης συνθηματικό lozinka lozinku zaporka geslo parool slaptažodis parole
пароль пароля паролем пароли парола паролата كلمة_المرور كلمة_السر كلمة_مرور סיסמה パスワード 密码
""")
# Words of other meanings too: only with a colon or the like.
_ONLY_SAID = Names("pass pin_pass user_pass clave claves parole parola ww pw lösen")
_ACCOUNT_IN_ADDRESS = re.compile(r"://[^\s:/@]{1,64}+:([^\s@/]{1,64}+)@")
_BEFORE = re.compile(
    r"(?<!\S)[\"']?([^\s\"']{6,64})[\"']? (?:is|as|was|ist|als|war|es|como|est|comme|e|come|to|jako|is|als|ar|som|er|je)"
    r" (?:my|the|our|mein|das|mi|la|mon|le|la mia|moje|mijn|het|a minha|mitt|min)(?: [a-z]{2,9})? $"
)
_REACH_BACK = 90

_VALUE = re.compile(r"[^\s\"'`<>]{3,128}+")
_QUOTED = {quote: re.compile(rf"[^{quote}\n]{{3,64}}(?={quote})") for quote in QUOTES}
_TRAILING = re.compile(r"[.,;:?)\]}]+$")
_NEXT_PARAMETER = re.compile(r"&[a-z_]+=.*")
_ADDRESS = re.compile(r"[a-z]+://|www\.|mailto:|[^@\s]+@[^@\s]+\.[a-z]{2,}$")
_LETTER, _DIGIT = re.compile(r"[^\W\d_]"), re.compile(r"\d")
_SIGN_WITHIN = re.compile(r"[^\W_][!@#$%^&*_+=?~.\-][^\W_]|[^\W_][!@#$%^&*+~]+$")
_CASES = re.compile(r"[a-z][A-Z]")
_END_OF_CLAUSE = re.compile(r"[.!,;:)\"']*(?:$|\n|(?<=[.!,;)\"']) )")
_MOSTLY_MASKED = re.compile(r"\*{3}|x{5}|•{3}|\.{3}", re.IGNORECASE)

# What is said of a password, or begins a sentence, where its value could stand.
_ORDINARY = frozenset(fold("""
wrong incorrect invalid expired correct right weak strong long short lost forgotten forgot missing empty blank secret secure unknown required
rejected refused blocked locked changed reset not no none too still always never what gone broken useless hidden fine okay good bad accepted safe
private confidential sensitive personal temporary new old same different mandatory optional unchanged stolen leaked compromised hacked needed
please help thanks cannot can't doesn't didn't won't isn't invalid error unavailable disabled enabled set saved sent pending yes nothing
something anything the and but because since when why how where who which this that these those there here now again once twice today yesterday
case-sensitive outdated ridiculous annoying impossible unrecognized unrecognised unsafe insecure suspended visible shown stored ask see above
below attached reset-link login username email n/a n.a tbd unknown protected credentials working failing known mine yours theirs ours ignored
falsch richtig korrekt ungültig abgelaufen vergessen geheim weg verloren gesperrt unbekannt nicht kein keine zu sicher unsicher leer neu alt kaputt
gehackt gestohlen lang kurz schwach stark erforderlich nötig bitte danke hilfe habe ich wurde geändert zurückgesetzt zurücksetzen inkorrekt verschwunden
fehlerhaft fehlt wieder immer noch schon auch gleich ändern keins geleakt bekannt privat wichtig siehe gestern heute
incorrecta incorrecto inválida válida errónea mala correcta olvidada olvidado perdida nueva vieja segura insegura caducada bloqueada secreta
por favor gracias no nunca siempre otra vez robada débil fuerte necesaria obligatoria equivocada desconocida demasiado larga corta vencida
incorrect refusé oublié oubliée perdu faux mauvais bon correct expiré invalide bloqué secret nouveau ancien sûr changé inconnu obligatoire merci
toujours pas plus jamais trop court faible volé compromis valable valide rejeté erroné
sbagliata errata scaduta dimenticata persa corretta giusta nuova vecchia bloccata segreta sicura debole grazie sempre mai non rifiutata rubata
obbligatoria sconosciuta cambiata invalida valida smarrita troppo
nieprawidłowe błędne złe zapomniane wygasło zablokowane nowe stare tajne słabe silne proszę nie poprawne niepoprawne zmienione skradzione za odrzucone
fout verkeerd verlopen vergeten kwijt onjuist juist goed nieuw oud geheim geblokkeerd zwak sterk niet alsjeblieft bedankt gestolen onbekend ongeldig veilig
errada incorreta correta inválida expirada esquecida perdida nova velha secreta bloqueada fraca forte não nunca obrigado obrigada roubada segura vencida
yanlış hatalı geçersiz doğru unuttum unutuldu eski yeni zayıf güçlü lütfen değil diyor çalışmıyor kabul etmiyor yok kayıp çalındı
fel felaktigt ogiltigt glömt borta rätt nytt gammalt hemligt spärrat svagt starkt inte tack stulet utgånget för okänt
forkert ugyldig glemt væk rigtig ny gammel hemmelig spærret svag stærk ikke tak stjålet udløbet feil riktig borte utløpt stjålet
väärä vanhentunut unohtunut oikea uusi lukittu heikko vahva ei kiitos väärin hukassa
špatné neplatné zapomenuté správné nové staré tajné zablokované slabé silné prosím chybné nefunguje vypršelo
greșită incorectă invalidă uitată corectă nouă veche blocată slabă nu mulțumesc expirată pierdută gresita
неверный неправильный забыл забыла истёк просрочен заблокирован новый старый слабый не спасибо пожалуйста правильный утерян сброшен невірний неправильний забув забула
rossz hibás érvénytelen elfelejtettem lejárt új régi helytelen nem λάθος ξέχασα έληξε λανθασμένος
""".lower()).split())  # fmt: skip


def passwords(reading: Reading) -> Iterator[tuple[int, int]]:
    """Values beside words for a password, and those in addresses such as `https://user:…@host`."""
    if "://" in reading.seen:
        yield from (account.span(1) for account in _ACCOUNT_IN_ADDRESS.finditer(reading.seen))
    for names, only_said in ((_PASSWORD, False), (_ONLY_SAID, True)):
        for start, end in names.within(reading.lower):
            yield from _beside(reading, start, end, only_said=only_said)


def _beside(reading: Reading, start: int, end: int, *, only_said: bool) -> Iterator[tuple[int, int]]:
    gap = gap_after(reading.lower, end)
    value = _value(reading.seen, gap)
    if gap.links and (gap.said or not only_said) and _is_value(reading.seen, gap, *value):
        yield value
    elif not only_said:
        yield from _before(reading, start)


def _before(reading: Reading, name_start: int) -> Iterator[tuple[int, int]]:
    """The value in "hunter2 is my password"."""
    from_ = max(0, name_start - _REACH_BACK)
    found = _BEFORE.search(reading.lower[from_:name_start])
    if found and _mixes(found[1]) and not _ADDRESS.match(found[1]):
        yield from_ + found.start(1), from_ + found.end(1)


def _value(seen: str, gap: Gap) -> tuple[int, int]:
    """Start and end of what could be the value after a gap, less the signs that end a sentence."""
    pattern = _QUOTED[gap.quoted] if gap.quoted else _VALUE
    found = pattern.match(seen, gap.end) or _VALUE.match(seen, gap.end)
    if found is None:
        return gap.end, gap.end
    text = found[0] if gap.quoted else _TRAILING.sub("", _NEXT_PARAMETER.sub("", found[0]))
    return gap.end, gap.end + len(text)


def _is_value(seen: str, gap: Gap, start: int, end: int) -> bool:
    value = seen[start:end]
    if len(value) < 3 or not value.strip("*•.-_") or _MOSTLY_MASKED.search(value) or _ADDRESS.match(value.lower()):
        return False
    words = value.lower().split()
    if 2 * sum(word in _ORDINARY for word in words) > len(words):
        return False
    if not gap.said:
        return _mixes(value) or (value.isdecimal() and len(value) >= 6)
    return _looks_made_up(value) or bool(gap.quoted) or (_ends_a_clause(seen, end) and not gap.loose)


def _mixes(value: str) -> bool:
    """Six characters or more, letters and digits among them: hardly a word of any language."""
    return len(value) >= 6 and bool(_LETTER.search(value)) and bool(_DIGIT.search(value))


def _looks_made_up(value: str) -> bool:
    if value.isdecimal():
        return len(value) >= 4
    return bool(_DIGIT.search(value) and _LETTER.search(value)) or bool(_SIGN_WITHIN.search(value) or _CASES.search(value))


def _ends_a_clause(seen: str, end: int) -> bool:
    return _END_OF_CLAUSE.match(seen, end) is not None
