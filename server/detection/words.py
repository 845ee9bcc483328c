"""The words between a name and its value ("the PIN of my card is …"), and how patterns of words are put together.

All words stand in this room as they are written, and are folded as texts are.
"""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from server.detection.reading import fold

QUOTES = frozenset("\"'`")
_HINT_LENGTH = 5
_ENDING = r"(?:'[^\W\d_]{1,5}|-(?:ul|ului|u|om|em|a|nr|no|nummer|number))?"


class Names:
    """The names of one thing: words that stand alone, no letter or digit beside them, no hyphen with a word after them.

    In `words` blanks separate them, `_` stands for a blank, hyphen, underscore or nothing, `~` for an ending of up to
    five letters. Endings that languages put after an apostrophe or hyphen may follow every name ("PIN's", "CNP-ul").
    """

    def __init__(self, words: str) -> None:
        folded = fold(words.lower()).split()
        # Every word has one of these beginnings: to look for them costs a thirtieth of the pattern.
        self._hints = frozenset(re.split("[_~]", word)[0][:_HINT_LENGTH] for word in folded)
        self._pattern = re.compile(rf"(?<![^\W_])(?:{_one_of(folded)}){_ENDING}(?![^\W_]|-[^\W_]|_)")

    def within(self, lower: str) -> Iterator[tuple[int, int]]:
        """Where they stand, start and end, in `Reading.lower` or a part of it."""
        if any(hint in lower for hint in self._hints):
            yield from (name.span() for name in self._pattern.finditer(lower))

    def stand_in(self, lower: str) -> bool:
        """Whether one of them stands in `Reading.lower` or a part of it."""
        return any(hint in lower for hint in self._hints) and self._pattern.search(lower) is not None


def _one_of(words: Iterable[str]) -> str:
    longest_first = sorted(words, key=len, reverse=True)
    return "|".join(re.escape(word).replace("_", r"[ \-_]?").replace(r"\~", r"[^\W\d_]{0,5}") for word in longest_first)


# Says that what follows is the value.
_COPULAS = """
is was are equals ist lautet war heißt es era son est était è é jest to brzmi był było var är er oli je bylo byl este
это есть е є це είναι ήταν van az yra ir glasi هو هي
"""  # "c'est" is two words, the first of which is among the nouns
# What the value belongs to, or which of several it is; the value may follow at once ("PIN code 1234").
_NOUNS = """
code codes number no nr num numer numero número numéro numerot value card cards bank account app login site web wifi
wlan
karte kreditkarte konto kontos nummer carte compte cuenta tarjeta carta conto karty konta kart kartı kartım kartımın
kodu kodum kodun numarası numaram hesap kortet kort kontot kontoen kaart rekening cartão conta cont cardul cardului
карты карта карте код номер аккаунта аккаунт рахунку κάρτας číslo kártya kortin kortti new old current temporary
neues altes neu nuevo nueva nouveau nuovo nuova nowe nieuw nieuwe novo nova yeni nytt nya nyt ny
dostępu accesso acceso acesso accès visuel user nibble driver restaurant
mea meu minha mia mój moja meni min mitt mijn benim мой моя моё ми ти c bancomat dostępem wejścia
"""
# Leads on to more words, and stands right before a value only after a copula or a colon.
_FUNCTIONS = """
the a an my your our his her their this that for of on in back with from and
der die das dem den des für von vom zu zum zur mein meine meiner meines im am auf
el la los las de del mi tu su para en al le les du pour sur ma mes mon votre l
il lo di della dello per mio sul do dla mojego mojej moje od na z het een voor op mijn bij
still now currently always not noch immer nicht jetzt aktuell todavía ahora siempre toujours encore ancora sempre nadal
teraz nie nog altijd niet ainda agora sempre hala fortfarande stadig
o os as da dos till til av på det ke k к от для моей моего на у до від της του μου στο
"""
_BEFORE_A_NAME = """
is as for was ist war als für es como por est comme pour e come per to jako är er som on je este
"""
_OWNERS = """
my the your our his her mein meine das der die mi el la mon le il il_mio la_mia moj moja moje mijn het min mitt
o_meu a_minha
"""
_COPULA, _NOUN, _FUNCTION = (frozenset(fold(words.lower()).split()) for words in (_COPULAS, _NOUNS, _FUNCTIONS))

# "auf … geändert"
_OF_CHANGES = frozenset(fold("from auf von z desde från van").split())
# "… as password"
AS = "as|als|como|comme|come|jako|som"
# "… is my PIN": what leads from a value back to its name.
BEFORE_A_NAME, OWNERS = (_one_of(fold(words).split()) for words in (_BEFORE_A_NAME, _OWNERS))

# Bounded, so that a name costs the same before whatever stands after it.
_SIGNS = re.compile(r"[ \t\n:=\->#(\"'`]{0,6}")
# A word with more of its line after it: the last word of a line is a value.
_WORD = re.compile(r"([^\W\d_]{1,20}+)\.?(?=[ \t:=\->#(\"'`]{1,6}[^\s.,;!?])")
_MOST_WORDS = 8
_CLAUSE = re.compile(r"[^\n.,;!?]{0,48}")
_FAR_LINK = re.compile(rf"(?:[:=>]|(?<![^\W_])(?:{_one_of(_COPULA)})(?![^\W_]))[ \"'(:=]{{1,3}}")


class Gap(NamedTuple):
    """What stands between a name and its value.

    `said`: a copula, a colon or the like announces the value. `loose`: the last word before it leads on to more words.
    `quoted`: the quote that opens right before the value, or nothing. `last`: the last word before the value, or
    nothing. `end`: where the value starts.
    """

    said: bool
    loose: bool
    quoted: str
    last: str
    end: int

    @property
    def links(self) -> bool:
        """Whether what follows can be the value at all."""
        return self.said or not self.loose

    @property
    def reaches(self) -> bool:
        """Whether what follows can be the value where that can't be one more word ("change it from …")."""
        return self.links or self.last in _OF_CHANGES


def gap_after(lower: str, name_end: int) -> Gap:
    """The gap from the end of a name on: as many signs, copulas, nouns and function words as there are."""
    said, last, end = False, "", name_end
    for _ in range(_MOST_WORDS):
        signs = _signs(lower, end)
        said, end = said or _announces(signs), end + len(signs)
        word = _WORD.match(lower, end)
        if word is None or not _passes(word[1]):
            break
        last, end = word[1], word.end()
        said = said or last in _COPULA
    return Gap(said, last in _FUNCTION, _open_quote(lower, name_end, end), last, end)


def far_links(lower: str, name_end: int) -> Iterator[int]:
    """Where values would start that a copula or colon later in the same clause announces, whatever stands before it."""
    clause = _CLAUSE.match(lower, name_end)
    if clause:
        yield from (link.end() for link in _FAR_LINK.finditer(lower, name_end, clause.end()))


def _signs(lower: str, start: int) -> str:
    signs = _SIGNS.match(lower, start)
    return signs[0] if signs else ""


def _announces(signs: str) -> bool:
    return ":" in signs or "=" in signs or ">" in signs


def _passes(word: str) -> bool:
    return word in _COPULA or word in _NOUN or word in _FUNCTION


def _open_quote(lower: str, start: int, end: int) -> str:
    before = lower[end - 1] if end > start else ""
    return before if before in QUOTES else ""
