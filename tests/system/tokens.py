"""Tokens of every kind, good and bad, and whether they are to be believed: one table for every door."""

import base64
import json
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jwt
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from tests.unit.signing import AUDIENCE, ISSUER, Signer, key_set, signer, token
from tests.unit.vocabulary import ROLES

ALGORITHMS = ("ES256", "RS256", "EdDSA")
LEEWAY = 60
LATE_KEY = "late"
# More than a call takes on a machine that is busy with other things; less than the leeway.
MARGIN = 25
LARGEST_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class Kind(NamedTuple):
    """A kind of token: the whole value of the header, made when it is sent, and whether it is to be believed."""

    is_good: bool
    authorization: Callable[[], str]


@cache
def odd_keys() -> dict[str, Signer]:
    """Keys that stand in the key set too, and of which only `bare` signs tokens of ours."""
    p384 = ec.generate_private_key(ec.SECP384R1())
    weak, other = (rsa.generate_private_key(public_exponent=65537, key_size=bits) for bits in (1024, 2048))
    rsa_jwk = RSAAlgorithm.to_jwk(other.public_key(), as_dict=True)
    bare = signer("ES256", "bare")
    return {
        "p384": Signer(p384, "ES384", {**ECAlgorithm.to_jwk(p384.public_key(), as_dict=True), "kid": "p384"}),
        "weak": Signer(weak, "RS256", {**RSAAlgorithm.to_jwk(weak.public_key(), as_dict=True), "kid": "weak"}),
        "pss": Signer(other, "PS256", {**rsa_jwk, "kid": "pss", "alg": "PS256"}),
        "encryption": Signer(other, "RS256", {**rsa_jwk, "kid": "encryption", "use": "enc"}),
        "shared": Signer(b"x" * 32, "HS256", {"kty": "oct", "k": _base64(b"x" * 32), "kid": "shared", "alg": "HS256"}),
        "bare": Signer(bare.key, "ES256", {name: bare.jwk[name] for name in ("kty", "crv", "x", "y", "kid")}),
    }


def publish(file: Path, *signers: Signer) -> None:
    """Adds keys to a key set in a file, all at once."""
    known = json.loads(file.read_text())["keys"]
    added = json.loads(key_set(*signers))["keys"]
    unfinished = file.with_suffix(".new")
    unfinished.write_text(json.dumps({"keys": [*known, *added]}))
    unfinished.replace(file)


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _claims(**changes: Any) -> dict[str, Any]:  # noqa: ANN401
    """The claims of an ordinary token, with changes."""
    return {**json.loads(_bytes(token(signer("ES256"), role="support_agent").split(".")[1])), **changes}


def _sealed(header: bytes, payload: bytes, by: Signer, algorithm: str | None = None) -> str:
    """Any bytes, signed as they are."""
    signing_input = f"{_base64(header)}.{_base64(payload)}"
    method = jwt.get_algorithm_by_name(algorithm or by.algorithm)
    return f"{signing_input}.{_base64(method.sign(signing_input.encode(), method.prepare_key(by.key)))}"


def _header(by: Signer, **more: Any) -> bytes:  # noqa: ANN401
    header = {"alg": by.algorithm, "typ": "JWT", "kid": by.kid, **more}
    return json.dumps({name: value for name, value in header.items() if value is not None}).encode()


ES = signer("ES256")


def signed(by: Signer = ES, /, **claims: Any) -> Callable[[], str]:  # noqa: ANN401
    """An agent's token with these claims; None leaves one out, and a callable is called when the token is sent."""

    def authorization() -> str:
        said = {name: value() if callable(value) else value for name, value in claims.items()}
        return f"Bearer {token(by, **{'role': 'support_agent', **said})}"

    return authorization


def headed(by: Signer = ES, algorithm: str | None = None, /, **header: Any) -> Callable[[], str]:  # noqa: ANN401
    """A token with these members in its header, signed by `algorithm` whatever the header says."""
    return lambda: f"Bearer {_sealed(_header(by, **header), json.dumps(_claims()).encode(), by, algorithm)}"


def written(payload: Callable[[str], str | bytes], by: Signer = ES) -> Callable[[], str]:
    """A token whose claims are written as `payload` makes them from the ordinary ones."""

    def authorization() -> str:
        text = payload(json.dumps(_claims()))
        return f"Bearer {_sealed(_header(by), text if isinstance(text, bytes) else text.encode(), by)}"

    return authorization


def raw_header(header: Callable[[str], str | bytes]) -> Callable[[], str]:
    """A token whose header is written as `header` makes it from the ordinary one."""

    def authorization() -> str:
        text = header(_header(ES).decode())
        payload = json.dumps(_claims()).encode()
        return f"Bearer {_sealed(text if isinstance(text, bytes) else text.encode(), payload, ES)}"

    return authorization


def bent(change: Callable[[str, str, str], str], by: Signer = ES) -> Callable[[], str]:
    """A good token whose three parts somebody changed afterwards."""
    return lambda: f"Bearer {change(*token(by, role='support_agent').split('.'))}"


def framed(frame: str) -> Callable[[], str]:
    """A good token with this around it."""
    return lambda: frame.format(token(ES, role="support_agent"))


def adding(members: str) -> Callable[[str], str]:
    """JSON text of an object with more members at its end."""
    return lambda text: f"{text[:-1]}, {members}}}"


def since(seconds: float) -> Callable[[], float]:
    """So many seconds from the moment when the token is sent."""
    return lambda: int(time.time()) + seconds


def _hmac(public: Callable[[Signer], bytes], of: Signer) -> Callable[[], str]:
    """Signed with a public key as if it were a secret."""
    secret = Signer(None, "HS256", of.jwk)

    def authorization() -> str:
        signing_input = f"{_base64(_header(secret))}.{_base64(json.dumps(_claims()).encode())}"
        seal = jwt.get_algorithm_by_name("HS256").sign(signing_input.encode(), public(of))
        return f"Bearer {signing_input}.{_base64(seal)}"

    return authorization


def _pem(of: Signer) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    encoded: bytes = of.key.public_key().public_bytes(serialization.Encoding.PEM, form)
    return encoded


def _jwk(of: Signer) -> bytes:
    return json.dumps(of.jwk).encode()


def _asn1(header: str, payload: str, _seal: str) -> str:
    """The signature in the form that X.509 uses, rather than JWS."""
    seal: bytes = ES.key.sign(f"{header}.{payload}".encode(), ec.ECDSA(hashes.SHA256()))
    return f"{header}.{payload}.{_base64(seal)}"


def _mirrored(header: str, payload: str, seal: str) -> str:
    """The other signature that is as valid: s and n - s are alike."""
    data = _bytes(seal)
    r, s = int.from_bytes(data[:32]), int.from_bytes(data[32:])
    assert decode_dss_signature(encode_dss_signature(r, s)) == (r, s)
    return f"{header}.{payload}.{_base64(data[:32] + (LARGEST_P256 - s).to_bytes(32))}"


def _uncanonical(header: str, payload: str, seal: str) -> str:
    """The same bytes in base64 that sets bits which nobody reads: 64 bytes leave four of them in the last character."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet[alphabet.index(seal[-1]) | 1]
    assert last != seal[-1]
    assert _bytes(seal[:-1] + last) == _bytes(seal)
    return f"{header}.{payload}.{seal[:-1]}{last}"


def _good() -> dict[str, Callable[[], str]]:
    return {
        **{f"by {algorithm}": signed(signer(algorithm)) for algorithm in ALGORITHMS},
        **{f"of a {role}": signed(role=role) for role in ROLES if role.startswith("support")},
        "of a service": signed(role="service"),
        "by a key that names no algorithm and no use": signed(odd_keys()["bare"]),
        "for several audiences": signed(aud=["another-api", AUDIENCE]),
        "with a subject in upper case": signed(sub="0192F0C1-2345-7ABC-8DEF-0123456789AB"),
        "with claims of others": signed(scope="a b", realm_access={"roles": ["admin", {"deep": [1, None, True]}]}),
        "with a name of many languages": signed(name="Zoë 小笼包 🥟"),
        "with an id": signed(jti="7"),
        "ended a moment ago": signed(exp=since(-LEEWAY + MARGIN)),
        "with an end between seconds": signed(exp=since(100.5)),
        "of a near future": signed(iat=since(LEEWAY - MARGIN)),
        "valid from a near future": signed(nbf=since(LEEWAY - MARGIN)),
        "valid since long": signed(nbf=1, iat=0),
        "with an end in a far future": signed(exp=253_402_300_799),
        "with a time that has an exponent": written(adding('"nbf": 1.7e9')),
        "with a key of its own in the header": headed(jwk=signer("ES256", "forger").jwk),
        "with places of keys in the header": headed(jku="https://evil.example/jwks", x5u="https://evil.example/x"),
        "with a chain in the header": headed(x5c=["MIIB"], x5t="AA"),
        "of another type": headed(typ="at+jwt"),
        "of no type": headed(typ=None),
        "with the mirrored signature": bent(_mirrored),
        "after bearer": framed("bearer {}"),
        "after BEARER": framed("BEARER {}"),
        "after two blanks": framed("Bearer  {}"),
        "of 7 KB": signed(note="x" * 5_000),
    }


def _badly_signed() -> dict[str, Callable[[], str]]:
    forger, rs, ed = signer("ES256", "forger"), signer("RS256"), signer("EdDSA")
    odd = odd_keys()
    return {
        "by a key that nobody knows": signed(forger),
        "forged under a known id": headed(Signer(forger.key, "ES256", ES.jwk)),
        "forged under a known id for RS256": headed(Signer(_strange_rsa(), "RS256", rs.jwk)),
        "without a key id": headed(kid=None),
        "with an empty key id": headed(kid=""),
        "with a number for a key id": headed(kid=7),
        "with a list for a key id": headed(kid=[ES.kid]),
        "with the key id of another key": headed(kid=rs.kid),
        "by another curve": signed(odd["p384"]),
        "by another curve said to be ES256": headed(Signer(odd["p384"].key, "ES256", odd["p384"].jwk), "ES384"),
        "by a weak key": headed(odd["weak"]),
        "by PS256": signed(odd["pss"]),
        "by a key that is for encryption": signed(odd["encryption"]),
        "by a shared secret in the key set": signed(odd["shared"]),
        "by RS512 with a key for RS256": headed(rs, "RS512", alg="RS512"),
        "by PS256 with a key for RS256": headed(rs, "PS256", alg="PS256"),
        "of the algorithm none": lambda: f"Bearer {_base64(_header(ES, alg='none'))}.{_base64(_payload())}.",
        "of the algorithm nOnE, with a signature": headed(alg="nOnE"),
        "of an empty algorithm": headed(alg=""),
        "of no algorithm": headed(alg=None),
        "of a list of algorithms": headed(alg=["ES256"]),
        "of es256": headed(alg="es256"),
        "by ES256, said to be RS256": headed(alg="RS256"),
        "by ES256, said to be EdDSA": headed(alg="EdDSA"),
        "by EdDSA, said to be ES256": headed(Signer(ed.key, "EdDSA", ed.jwk), alg="ES256"),
        **{f"by the public {a} key as a secret": _hmac(_pem, signer(a)) for a in ALGORITHMS},
        **{f"by the {a} JWK as a secret": _hmac(_jwk, signer(a)) for a in ALGORITHMS},
        "with something critical": headed(crit=["exp"], exp=1),
        "with an empty list of critical things": headed(crit=[]),
        "with a payload that is not encoded": headed(crit=["b64"], b64=False),
        "with a cut signature": bent(lambda h, p, s: f"{h}.{p}.{s[:-4]}"),
        "with half a signature": bent(lambda h, p, s: f"{h}.{p}.{s[:43]}"),
        "with a longer signature": bent(lambda h, p, s: f"{h}.{p}.{s}AAAA"),
        "with a signature of zeros": bent(lambda h, p, s: f"{h}.{p}.{_base64(bytes(64))}"),
        "without a signature": bent(lambda h, p, s: f"{h}.{p}."),
        "with a signature in ASN.1": bent(_asn1),
        "with a signature in base64 that is not canonical": bent(_uncanonical),
        "with a padded signature": bent(lambda h, p, s: f"{h}.{p}.{s}=="),
        "with a padded payload": bent(lambda h, p, s: f"{h}.{p}=.{s}"),
        "with a changed role": bent(
            lambda h, p, s: f"{h}.{_base64(_bytes(p).replace(b'support_agent', b'support_supervisor'))}.{s}"
        ),
        "with another token's signature": bent(lambda h, p, s: f"{h}.{p}.{token(ES, role='customer').split('.')[2]}"),
    }


def _payload() -> bytes:
    return json.dumps(_claims()).encode()


@cache
def _strange_rsa() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _badly_claimed() -> dict[str, Callable[[], str]]:
    return {
        **{f"without {claim}": signed(**{claim: None}) for claim in ("iss", "aud", "sub", "exp", "iat", "role")},
        "of another issuer": signed(iss="https://identity.other.example"),
        "of a longer issuer": signed(iss=f"{ISSUER}.evil.example"),
        "of an issuer with a slash more": signed(iss=f"{ISSUER}/"),
        "of a list of issuers": signed(iss=[ISSUER]),
        "for another audience": signed(aud="another-api"),
        "for other audiences": signed(aud=["another-api", "and-another"]),
        "for no audience": signed(aud=[]),
        "for an audience with a slash more": signed(aud=f"{AUDIENCE}/"),
        "for an audience that is an address": signed(aud=f"https://{AUDIENCE}"),
        "for an audience in upper case": signed(aud=AUDIENCE.upper()),
        "for an audience among numbers": signed(aud=[AUDIENCE, 7]),
        "for a number": signed(aud=7),
        "for an object": signed(aud={AUDIENCE: True}),
        "with a subject that is no UUID": signed(sub="root"),
        "with an empty subject": signed(sub=""),
        "with a subject without hyphens": signed(sub="0192f0c123457abc8def0123456789ab"),
        "with a number for a subject": signed(sub=7),
        "with a list for a subject": signed(sub=["0192f0c1-2345-7abc-8def-0123456789ab"]),
        "with the subject that stands for the service itself": signed(sub="00000000-0000-0000-0000-000000000000"),
        "with an unknown role": signed(role="admin"),
        "with an empty role": signed(role=""),
        "with a role in upper case": signed(role="SUPPORT_AGENT"),
        "with a list of roles": signed(role=["support_agent"]),
        "with an object for a role": signed(role={"support_agent": 1}),
        "with a number for an id": signed(jti=7),
        "ended beyond the leeway": signed(exp=since(-LEEWAY - 2)),
        "ended long ago": signed(exp=1_600_000_000),
        "issued beyond the leeway": signed(iat=since(LEEWAY + MARGIN)),
        "valid from beyond the leeway": signed(nbf=since(LEEWAY + MARGIN)),
        "valid in a far future": signed(nbf=4_000_000_000),
        **{
            f"with {claim} {value}": written(_replacing(claim, value))
            for claim in ("exp", "iat", "nbf")
            for value in ("null", '"4000000000"', "true", "[4000000000]", "-1", "NaN", "Infinity", "1e300", "1e400")
        },
        "with an end at the last integer": written(_replacing("exp", "18446744073709551615")),
        "with an end beyond every double": written(_replacing("exp", "9" * 400)),
        "with an end of zero": signed(exp=0),
        "with an end before everything": signed(exp=0.5),
    }


def _replacing(claim: str, value: str) -> Callable[[str], str]:
    """The claims with this text for a value."""

    def text_of(text: str) -> str:
        claims = {name: held for name, held in json.loads(text).items() if name != claim}
        return adding(f'"{claim}": {value}')(json.dumps(claims))

    return text_of


def _badly_written() -> dict[str, Callable[[], str]]:
    return {
        "with the role twice": written(adding('"role": "support_supervisor"')),
        "with a name twice deep inside": written(adding('"deep": [{"a": 1, "a": 2}]')),
        "with NaN somewhere": written(adding('"n": NaN')),
        "with a number that is too large somewhere": written(adding('"n": 1e999')),
        "with half a character": written(adding('"n": "\\ud83e"')),
        "with half a character in a name": written(adding('"\\udd5f": 1')),
        "nested without end": written(adding(f'"n": {"[" * 2_000}{"]" * 2_000}')),
        "nested deep": written(adding(f'"n": {"[" * 120}{"]" * 120}')),
        "in UTF-16": written(lambda text: text.encode("utf-16")),
        "with a byte order mark": written(lambda text: text.encode("utf-8-sig")),
        "with bytes that are not UTF-8": written(lambda text: adding('"n": "X"')(text).encode().replace(b"X", b"\xff")),
        "with a comment": written(lambda text: f"{text} // so"),
        "with a comma at the end": written(lambda text: f"{text[:-1]},}}"),
        "with single quotes": written(lambda text: text.replace('"', "'")),
        "with a line break in a text": written(adding('"n": "a\nb"')),
        "with two objects": written(lambda text: text * 2),
        "whose claims are a list": written(lambda text: f"[{text}]"),
        "whose claims are a text": written(json.dumps),
        "without claims": written(lambda _: ""),
        "whose header is a list": raw_header(lambda text: f"[{text}]"),
        "whose header is null": raw_header(lambda _: "null"),
        "whose header is no JSON": raw_header(lambda text: text[:-1]),
        "whose header names the algorithm twice": raw_header(adding('"alg": "ES256"')),
        "whose header has NaN": raw_header(adding('"n": NaN')),
        "whose header is in UTF-16": raw_header(lambda text: text.encode("utf-16")),
        "whose header is nested without end": raw_header(lambda _: "[" * 4_000),
    }


def _badly_framed() -> dict[str, Callable[[], str]]:
    return {
        "not there at all": lambda: "",
        "of the scheme alone": lambda: "Bearer",
        "nonsense": lambda: "Bearer nonsense",
        "of two empty parts": lambda: "Bearer .",
        "of three empty parts": lambda: "Bearer ..",
        "of four parts": framed("Bearer {}.AAAA"),
        "of five parts": framed("Bearer {}.AAAA.AAAA"),
        "without a scheme": framed("{}"),
        "after another scheme": framed("Basic {}"),
        "after a longer scheme": framed("Bearers {}"),
        "after a scheme and then Bearer": framed("Basic Bearer {}"),
        "after bEaReR": framed("bEaReR {}"),
        "right after the scheme": framed("Bearer{}"),
        "after a colon": framed("Bearer: {}"),
        "after a comma": framed("Bearer ,{}"),
        "before a comma": framed("Bearer {},"),
        "before another token": lambda: f"Bearer {token(ES)} {token(ES)}",
        "with another token after a comma": lambda: f"Bearer {token(ES)}, Bearer {token(ES)}",
        "in quotes": framed('Bearer "{}"'),
        "in angle brackets": framed("Bearer <{}>"),
        "of plus and slash": bent(lambda h, p, s: f"{h}.{p}.+/{s[2:]}"),
        "percent-encoded": bent(lambda h, p, s: f"{h}%2E{p}%2E{s}"),
        "with a blank inside": bent(lambda h, p, s: f"{h}.{p}. {s}"),
        "of 9 KB": signed(note="x" * 6_600),
        "of 12 KB": signed(note="x" * 9_000),
        "of 9 KB of nonsense": lambda: f"Bearer {'A' * 9_000}",
    }


def kinds() -> Mapping[str, Kind]:
    """Every kind of token, by a name that goes on from "a token"."""
    bad = {**_badly_signed(), **_badly_claimed(), **_badly_written(), **_badly_framed()}
    return {name: Kind(True, made) for name, made in _good().items()} | {
        name: Kind(False, made) for name, made in bad.items()
    }
