"""Numbers that states give to people: python-stdnum knows their check digits, dates and lengths.

Shapes that are hardly anything else stand alone; digits that order numbers have too need their name near them.
"""

import re
from bisect import bisect
from collections.abc import Callable, Iterator
from typing import NamedTuple

from stdnum.at import vnr
from stdnum.be import nn
from stdnum.bg import egn
from stdnum.ch import ssn as ahv
from stdnum.cz import rc
from stdnum.de import idnr
from stdnum.dk import cpr
from stdnum.ee import ik
from stdnum.es import dni, nie
from stdnum.fi import hetu
from stdnum.fr import nir
from stdnum.gr import amka
from stdnum.hr import oib
from stdnum.ie import pps
from stdnum.is_ import kennitala
from stdnum.it import codicefiscale
from stdnum.lt import asmens
from stdnum.nl import bsn
from stdnum.no import fodselsnummer
from stdnum.pl import pesel
from stdnum.pt import cc, nif
from stdnum.ro import cnp
from stdnum.se import personnummer
from stdnum.si import emso
from stdnum.tr import tckimlik
from stdnum.ua import rntrc
from stdnum.us import itin, ssn

from server.detection.cards import without_uuids
from server.detection.reading import Reading
from server.detection.words import Names, gap_after

_SEPARATORS = re.compile(r"[ .\-/]")
_STANDS_ALONE = r"(?<![^\W_])(?<![\d][.,:/\-+])(?:{})(?![^\W_]|[.,:/\-]\d)"
_NINO = re.compile(r"(?!BG|GB|NK|KN|TN|NT|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]\d{6}[A-D]")


class _Scheme(NamedTuple):
    """How a state writes its numbers, in capitals, and whether one (without separators) is right."""

    shape: str
    valid: Callable[[str], bool]


def _digits(count: int) -> str:
    return rf"\d(?:[ .\-/]?\d){{{count - 1}}}"


def _is_hetu(number: str) -> bool:
    return hetu.is_valid(number, allow_temporary=True)


def _is_nino(number: str) -> bool:
    return _NINO.fullmatch(number) is not None


def _is_personnummer(number: str) -> bool:
    return personnummer.is_valid(number)


def _any(number: str) -> bool:
    """For numbers without check digits, or whose check nobody maintains."""
    return bool(number)


_CODICE_FISCALE = _Scheme(
    r"[A-Z]{3} ?[A-Z]{3} ?[\dL-V]{2} ?[A-Z] ?[\dL-V]{2} ?[A-Z] ?[\dL-V]{3} ?[A-Z]", codicefiscale.is_valid
)
_NIR = _Scheme(r"[1-478] ?\d\d ?\d\d ?\d[\dAB] ?\d{3} ?\d{3} ?\d\d", nir.is_valid)
_DNI = _Scheme(r"\d\d\.?\d{3}\.?\d{3}[ \-]?[A-Z]", dni.is_valid)
_NIE = _Scheme(r"[XYZ][ \-]?\d\.?\d{3}\.?\d{3}[ \-]?[A-Z]", nie.is_valid)
_UK = _Scheme(r"[A-Z]{2} ?\d\d ?\d\d ?\d\d ?[A-D]", _is_nino)
_HETU = _Scheme(r"\d{6}[\-+A-FU-Y]\d{3}[\dA-Y]", _is_hetu)
_CARTAO = _Scheme(r"\d{8} ?\d ?[A-Z\d]{2}\d", cc.is_valid)
_RODNE_CISLO = _Scheme(r"\d{6} ?/ ?\d{3,4}|\d{9,10}", rc.is_valid)
_PERSONNUMMER = _Scheme(r"(?:19|20)?\d{6}[ \-+]?\d{4}", _is_personnummer)
_AHV = _Scheme(_digits(13), ahv.is_valid)
_SSN = _Scheme(r"\d{3}[ \-]?\d\d[ \-]?\d{4}", lambda number: ssn.is_valid(number) or itin.is_valid(number))
_BELGIAN = _Scheme(_digits(11), nn.is_valid)
_CPR = _Scheme(r"\d{6}[ \-]?\d{4}", cpr.is_valid)
_FODSELSNUMMER = _Scheme(r"\d{6} ?\d{5}", fodselsnummer.is_valid)
_EMSO = _Scheme(_digits(13), emso.is_valid)
_VNR = _Scheme(r"\d{4}[ \-]?\d{6}", vnr.is_valid)
_NIF = _Scheme(_digits(9), nif.is_valid)

# Found wherever they stand: capitals as written, so that "12345678 a" in a sentence is none.
_ALONE = {
    "it": _CODICE_FISCALE._replace(shape=r"[A-Za-z]{6}\d\d[A-Za-z]\d\d[A-Za-z]\d{3}[A-Za-z]"),
    "fr": _NIR._replace(shape=r"[12] ?\d\d ?(?:0[1-9]|1[0-2]|[2-9]\d) ?\d[\dAB] ?\d{3} ?\d{3} ?\d\d"),
    "es": _DNI._replace(shape=r"(?!20[0-4]\d[01]\d[0-3])\d{8}-?[A-Z]|\d\d\.\d{3}\.\d{3}-?[A-Z]"),
    "nie": _NIE._replace(shape=r"[XYZ]-?\d{7}-?[A-Z]"),
    "uk": _UK,
    "fi": _HETU,
    "pt": _CARTAO._replace(shape=r"\d{8} \d ?[A-Z][A-Z\d]\d|\d{9}[A-Z]{2}\d"),
    "cz": _RODNE_CISLO._replace(shape=r"\d{6}/\d{4}"),
    "se": _PERSONNUMMER._replace(shape=r"19\d{6}-\d{4}"),
    "ch": _AHV._replace(shape=r"756[. ]\d{4}[. ]\d{4}[. ]\d\d"),
    "us": _SSN._replace(shape=r"\d{3}-\d\d-\d{4}"),
    "be": _BELGIAN._replace(shape=r"\d\d\.\d\d\.\d\d-\d{3}\.\d\d"),
}
_ALONE_SHAPES = re.compile(
    _STANDS_ALONE.format("|".join(f"(?P<{name}>{scheme.shape})" for name, scheme in _ALONE.items()))
)

# Found near their names.
_NAMED: dict[str, tuple[_Scheme, ...]] = {
    "steuer_id steuerid~ steuer_identnummer identnummer "
    "steuerliche_identifikationsnummer identifikationsnummer steueridentifikationsnummer "
    "steuer_identifikationsnummer id_nr idnr tax_id steuernummer": (_Scheme(_digits(11), idnr.is_valid),),
    "sozialversicherungsnummer sv_nummer svnr sozialversicherungsnr rentenversicherungsnummer versicherungsnummer": (
        _VNR,
        _AHV,
        _Scheme(r"\d\d ?\d{6} ?[A-Z] ?\d{3}", _any),
    ),
    "ahv ahv_nummer ahv_nr avs numéro_avs": (_AHV,),
    "dni nif nie documento documento_nacional numero_de_identidad identidad": (_DNI, _NIE),
    "sécurité_sociale n°_sécu sécu nir numero_secu insee": (_NIR,),
    "codice_fiscale cf cod_fisc cod_fiscale codicefiscale": (_CODICE_FISCALE,),
    "pesel pesel~": (_Scheme(_digits(11), pesel.is_valid),),
    "bsn bsn_nummer burgerservicenummer burger_service_nummer sofinummer sofi_nummer": (
        _Scheme(_digits(9), bsn.is_valid),
    ),
    "rijksregisternummer rijksregister insz niss numéro_national registre_national inss": (_BELGIAN,),
    "nif contribuinte contribuintes n_contribuinte": (_NIF,),
    "cartão_de_cidadão cartão_cidadão cc": (_CARTAO,),
    "personnummer personnummeret personnr pers_nr pnr person_nr samordningsnummer": (
        _PERSONNUMMER,
        _FODSELSNUMMER,
        _CPR,
    ),
    "cpr cpr_nummer cpr_nr cprnr": (_CPR,),
    "henkilötunnu~ henkilötunnukseni hetu hetuni sotu": (_HETU,),
    "fødselsnummer fødselsnummeret fnr fødselsnr d_nummer": (_FODSELSNUMMER,),
    "cnp cod_numeric_personal": (_Scheme(_digits(13), cnp.is_valid),),
    "rodné_číslo rodného_čísla rodné_č rč r_č": (_RODNE_CISLO,),
    "егн egn": (_Scheme(_digits(10), egn.is_valid),),
    "tc tc_kimlik t.c t.c. tckn tc_no kimlik kimlik_no kimlik_numaram kimlik_numarası tc_kimlik_no": (
        _Scheme(_digits(11), tckimlik.is_valid),
    ),
    "ssn ssns social_security social_security_number itin": (_SSN,),
    "national_insurance ni_number nino ni_no": (_UK,),
    "pps ppsn pps_number pps_no": (_Scheme(r"\d{7}[A-W][A-IW]?", pps.is_valid),),
    "oib oib~": (_Scheme(_digits(11), oib.is_valid),),
    "αμκα amka α.μ.κ.α": (_Scheme(_digits(11), amka.is_valid),),
    "isikukood isikukoodi": (_Scheme(_digits(11), ik.is_valid),),
    "asmens_kodas asmens_kodo": (_Scheme(_digits(11), asmens.is_valid),),
    "personas_kods": (_Scheme(r"\d{6}-?\d{5}", _any),),
    "emšo jmbg mbg emso": (_EMSO,),
    "kennitala kennitölu kt": (_Scheme(r"\d{6}-?\d{4}", kennitala.is_valid),),
    "рнокпп ідентифікаційний_код іпн": (_Scheme(_digits(10), rntrc.is_valid),),
    "személyi_szám személyi_azonosító adóazonosító adóazonosító_jel taj taj_szám": (
        _Scheme(r"\d(?:[ \-]?\d){8,10}", _any),
    ),
}
_NEAR = tuple(
    (
        Names(names),
        tuple((re.compile(_STANDS_ALONE.format(scheme.shape), re.IGNORECASE), scheme.valid) for scheme in schemes),
    )
    for names, schemes in _NAMED.items()
)
_REACH_ON, _REACH_BACK = 60, 30

# Papers of any state: what is said to be their number is taken for it, since every state counts them in its own way.
_PAPERS = Names("""
national_id national_id_number national_identity_number identity_number identity_card id_card id_card_number
personal_id citizen_id
passport passport_number passport_no personalausweis personalausweisnummer ausweisnummer ausweis reisepass
reisepassnummer passnummer
pasaporte passeport carte_d'identité passaporto carta_d'identità carta_identità dowód dowodu dowodu_osobistego
dowód_osobisty numer_dowodu paszport paszportu
paspoort paspoortnummer identiteitskaart passaporte bilhete_de_identidade pasaport pasaportum passnummer legitimation
pas_nummer
občanský_průkaz občanky паспорт паспорта серия_паспорта
""")
_PAPER_NUMBER = re.compile(
    r"(?:[a-z]{1,3} ?)?\d(?:[ .\-/]?\d){5,13}[a-z]?(?![^\W_]|[.,:/\-]\d| ?[€$£])"
    r"|(?=[a-z]{0,9}\d[a-z]{0,9}\d[a-z]{0,9}\d)[a-z0-9]{7,12}(?![^\W_])"
)


def national_ids(reading: Reading) -> Iterator[tuple[int, int]]:
    """Numbers of people in the registers of the states that Nibble delivers in."""
    view = without_uuids(reading.seen)
    for found in _ALONE_SHAPES.finditer(view):
        if found.lastgroup and _ALONE[found.lastgroup].valid(_compact(found[0])):
            yield found.span()
    yield from _near_names(reading.lower, view)
    yield from _of_papers(reading.lower)


def _near_names(lower: str, view: str) -> Iterator[tuple[int, int]]:
    for names, schemes in _NEAR:
        if places := list(names.within(lower)):
            for shape, valid in schemes:
                numbers = (number for number in shape.finditer(view) if _is_near(number.span(), places))
                yield from (number.span() for number in numbers if valid(_compact(number[0])))


def _is_near(number: tuple[int, int], places: list[tuple[int, int]]) -> bool:
    """Whether one of the places, which are in order, ends a little before the number or starts a little after it."""
    start, end = number
    after = bisect(places, number)
    return (after > 0 and start - places[after - 1][1] <= _REACH_ON) or (
        after < len(places) and places[after][0] - end <= _REACH_BACK
    )


def _of_papers(lower: str) -> Iterator[tuple[int, int]]:
    for _, name_end in _PAPERS.within(lower):
        gap = gap_after(lower, name_end)
        number = _PAPER_NUMBER.match(lower, gap.end) if gap.links else None
        if number:
            yield number.span()


def _compact(number: str) -> str:
    plain = _SEPARATORS.sub("", number).upper()
    # A sign is part of the Finnish and Swedish numbers: it tells the century.
    return number.upper() if "+" in number or (len(plain) == 10 and number[6:7] == "-") else plain
