"""From a token to a caller: what is believed, and that nothing else is."""

import base64
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from server.auth import tokens
from server.auth.keys import COOL_DOWN_SECONDS, KeySet
from server.auth.tokens import TokenVerifier
from server.domain.callers import Caller, Role
from server.errors import Code, InvalidToken, NoSigningKeys
from tests.unit.signing import AUDIENCE, ISSUER, LEEWAY, Signer, bearer, key_set, signer, token, verdict, verifier
from tests.unit.vocabulary import OWNER, ROLES, a_caller

ALGORITHMS = ("ES256", "RS256", "EdDSA")
KEY = signer("ES256")
VERIFIER = verifier(*(signer(algorithm) for algorithm in ALGORITHMS))
START = 1_750_000_000


class Clock:
    """Seconds since 1970, as a test has them."""

    def __init__(self) -> None:
        self.now: float = START

    def __call__(self) -> float:
        return self.now


class CountingKeys(KeySet):
    """Counts how often a key is looked for, which is once per token that is not remembered."""

    def __init__(self, *signers: Signer) -> None:
        super().__init__(lambda: self.document, clock=Clock())
        self.document = key_set(*signers)
        self.found = 0
        self.load()

    async def find(self, kid: str, algorithm: str) -> jwt.PyJWK | None:
        self.found += 1
        return await super().find(kid, algorithm)


def refusal(authorization: str | bytes | None, by: TokenVerifier = VERIFIER) -> InvalidToken:
    with pytest.raises(InvalidToken) as refused:
        verdict(by, authorization)
    assert refused.value.code is Code.UNAUTHENTICATED
    return refused.value


def part(content: object) -> str:
    """A part of a token: JSON in base64 without padding."""
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_by_each_of_the_three_algorithms_names_its_caller(algorithm: str) -> None:
    assert verdict(VERIFIER, bearer(signer(algorithm))) == Caller(OWNER, Role.CUSTOMER)


@pytest.mark.parametrize("role", ROLES)
def test_every_role_of_the_contract_is_known(role: str) -> None:
    assert verdict(VERIFIER, bearer(KEY, role=role)) == a_caller(role, OWNER)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_is_read_in_the_spellings_that_the_gateway_takes(scheme: str) -> None:
    assert verdict(VERIFIER, f"{scheme} {token(KEY)}").id == OWNER
    refusal(f"{scheme.swapcase()[:3]}{scheme[3:]} {token(KEY)}")


def test_one_of_several_audiences_is_enough() -> None:
    assert verdict(VERIFIER, bearer(KEY, aud=["another-api", "nibble-api"])).id == OWNER


@pytest.mark.parametrize(
    "authorization",
    [None, "", " ", "Bearer", "Bearer ", "Bearer  ", "Basic bmliYmxl", token(KEY), b"Bearer x", f"Bearer{token(KEY)}"],
)
def test_no_bearer_token_is_refused(authorization: str | bytes | None) -> None:
    refusal(authorization)


@given(st.text())
def test_garbage_is_refused(garbage: str) -> None:
    refusal(f"Bearer {garbage}")


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists), st.text())
def test_any_header_that_nobody_signed_is_refused(content: object, rest: str) -> None:
    refusal(f"Bearer {part(content)}.{part({})}.{rest}")
    refusal(f"Bearer {part({'alg': 'ES256', 'kid': content})}.{part({})}.{rest}")


def test_a_header_nested_without_end_is_refused() -> None:
    refusal("Bearer " + base64.urlsafe_b64encode(b"[" * 50_000).decode() + ".e30.AA")


@pytest.mark.parametrize("claim", ["iss", "aud", "sub", "exp", "iat", "role"])
def test_every_required_claim_is_required(claim: str) -> None:
    refusal(bearer(KEY, **{claim: None}))


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://identity.other.example"},
        {"iss": ["https://identity.nibble.example"]},
        {"aud": "another-api"},
        {"aud": []},
        {"aud": 7},
        {"sub": "nobody"},
        {"sub": ""},
        {"sub": 7},
        {"role": "admin"},
        {"role": ""},
        {"role": ["customer"]},
        {"role": "Customer"},
        {"exp": "soon"},
        {"exp": float("inf")},
        {"iat": "now"},
        {"iat": float("nan")},
        {"exp": True},
        {"exp": "4000000000"},
        {"exp": 2**53},
        {"exp": 1e300},
        {"exp": -1},
        {"iat": "1"},
        {"iat": -1},
        {"nbf": "1"},
        {"nbf": -1},
        {"jti": 7},
        {"sub": "00000000-0000-0000-0000-000000000000"},
        {"aud": ["nibble-api", 7]},
        {"aud": "nibble-api/"},
        {"name": "half a \ud83e character"},
    ],
)
def test_a_claim_that_says_something_else_is_refused(claims: dict[str, Any]) -> None:
    refusal(bearer(KEY, **claims))


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["iss", "aud", "sub", "exp", "iat", "nbf", "role", "jti"]), ANY_JSON, min_size=1)
)
def test_whatever_a_signed_claim_says_it_is_believed_or_refused(claims: dict[str, Any]) -> None:
    try:
        caller = verdict(VERIFIER, bearer(KEY, **claims))
    except InvalidToken:
        return
    # Left out or harmless.
    assert (caller.id, caller.role) == (OWNER, "customer")


@given(st.binary(max_size=200))
def test_whatever_bytes_are_signed_they_are_believed_or_refused(payload: bytes) -> None:
    refusal(f"Bearer {jwt.PyJWS().encode(payload, KEY.key, 'ES256', {'kid': KEY.kid})}")


@pytest.mark.parametrize("remembered", [False, True])
def test_a_token_is_believed_until_the_leeway_after_its_end_and_no_longer(remembered: bool) -> None:
    clock = Clock()
    by = verifier(KEY, now=clock)
    ending = bearer(KEY, exp=START + 100, iat=START)
    if remembered:
        verdict(by, ending)
    clock.now = START + 100 + LEEWAY - 0.001
    assert verdict(by, ending if remembered else f"bearer{ending[6:]}").id == OWNER
    clock.now = START + 100 + LEEWAY
    assert "expired" in refusal(ending, by).message


@pytest.mark.parametrize("claim", ["iat", "nbf"])
def test_a_token_is_believed_from_the_leeway_before_its_beginning_and_no_sooner(claim: str) -> None:
    clock = Clock()
    by = verifier(KEY, now=clock)
    beginning = bearer(KEY, None, **{"exp": START + 1000, "iat": START, claim: START + 100})
    clock.now = START + 100 - LEEWAY - 0.001
    refusal(beginning, by)
    clock.now = START + 100 - LEEWAY
    assert verdict(by, beginning).id == OWNER


def test_without_leeway_a_token_ends_when_it_says() -> None:
    clock = Clock()
    ending = bearer(KEY, exp=START + 100, iat=START)
    clock.now = START + 99.999
    assert verdict(verifier(KEY, leeway=0, now=clock), ending).id == OWNER
    clock.now = START + 100.0
    refusal(ending, verifier(KEY, leeway=0, now=clock))


@pytest.mark.parametrize("kid", ["another", "", None, 7, ["key-ES256"]])
def test_a_key_id_that_the_set_does_not_have_is_refused(kid: object) -> None:
    header = part({"alg": "ES256", "typ": "JWT", "kid": kid})
    _, payload, seal = token(KEY).split(".")
    refusal(f"Bearer {header}.{payload}.{seal}")


def test_a_token_without_a_key_id_is_refused_even_where_the_set_has_one_key() -> None:
    unnamed = jwt.encode(jwt.decode(token(KEY), options={"verify_signature": False}), KEY.key, "ES256")
    refusal(f"Bearer {unnamed}", by=verifier(KEY))


def test_another_key_under_a_known_id_is_refused() -> None:
    forger = signer("ES256", "forger")
    refusal(bearer(forger, {"kid": KEY.kid}))


def test_a_changed_payload_is_refused() -> None:
    header, _, seal = token(KEY).split(".")
    claims = jwt.decode(token(KEY), options={"verify_signature": False})
    refusal(f"Bearer {header}.{part(claims | {'role': 'support_supervisor'})}.{seal}")


@pytest.mark.parametrize("alg", ["none", "None", "NONE", ""])
def test_an_unsigned_token_is_refused(alg: str) -> None:
    claims = jwt.decode(token(KEY), options={"verify_signature": False})
    refusal(f"Bearer {part({'alg': alg, 'kid': KEY.kid})}.{part(claims)}.")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_public_key_is_no_secret_to_sign_with(algorithm: str) -> None:
    public = signer(algorithm)
    claims = jwt.decode(token(KEY), options={"verify_signature": False})
    signing_input = f"{part({'alg': 'HS256', 'kid': public.kid})}.{part(claims)}"
    for secret in _forms(public):
        seal = jwt.get_algorithm_by_name("HS256").sign(signing_input.encode(), secret)
        refusal(f"Bearer {signing_input}.{base64.urlsafe_b64encode(seal).decode().rstrip('=')}")


@pytest.mark.parametrize("alg", ["RS512", "PS256", "RS384"])
def test_an_algorithm_beside_the_three_is_refused_though_the_key_could(alg: str) -> None:
    refusal(bearer(signer("RS256"), {"alg": alg}))


@pytest.mark.parametrize("alg", ["RS512", "PS256"])
def test_a_key_that_the_set_gives_to_another_algorithm_signs_nothing(alg: str) -> None:
    rsa = signer("RS256")
    other = Signer(rsa.key, alg, {**rsa.jwk, "alg": alg, "kid": "other"})
    refusal(bearer(other), by=verifier(KEY, other))


def test_a_refusal_says_nothing_of_the_token_or_of_what_was_wrong_with_it() -> None:
    forged = bearer(signer("ES256", "forger"), {"kid": KEY.kid})
    other = bearer(KEY, iss="https://identity.other.example")
    assert refusal(forged).message == refusal(other).message
    assert refusal(forged).facts == {}


def _forms(of: Signer) -> list[bytes]:
    public = of.key.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return [pem, der, key_set(of), json.dumps(of.jwk).encode()]


# --- what is remembered ---


def test_a_good_token_is_checked_once() -> None:
    keys = CountingKeys(KEY)
    by = TokenVerifier(keys, ISSUER, AUDIENCE, LEEWAY)
    good = bearer(KEY)
    assert verdict(by, good) == verdict(by, good) == verdict(by, good)
    assert keys.found == 1


def test_a_bad_token_is_checked_each_time_and_takes_nobodys_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MOST_REMEMBERED", 2)
    keys = CountingKeys(KEY)
    by = TokenVerifier(keys, ISSUER, AUDIENCE, LEEWAY)
    good, bad = bearer(KEY), bearer(KEY, role="admin")
    verdict(by, good)
    for _ in range(5):
        refusal(bad, by)
    assert keys.found == 6
    verdict(by, good)
    assert keys.found == 6


def test_tokens_are_told_apart_however_alike() -> None:
    by = verifier(KEY)
    good = bearer(KEY)
    verdict(by, good)
    for other in (f"{good}A", good[:-1], f"{good}\0", f"{good}\ud800", good.swapcase(), f"{good}, {good}"):
        refusal(other, by)


def test_only_so_many_are_remembered_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MOST_REMEMBERED", 3)
    keys = CountingKeys(KEY)
    by = TokenVerifier(keys, ISSUER, AUDIENCE, LEEWAY)
    all_of_them = [bearer(KEY, jti=str(number)) for number in range(4)]
    for each in all_of_them:
        verdict(by, each)
    for each in all_of_them[1:]:
        verdict(by, each)
    assert keys.found == 4
    verdict(by, all_of_them[0])
    assert keys.found == 5


async def test_a_token_whose_key_has_left_the_set_is_forgotten() -> None:
    other = signer("ES256", "other")
    keys = CountingKeys(KEY, other)
    by = TokenVerifier(keys, ISSUER, AUDIENCE, LEEWAY)
    gone, staying = bearer(KEY), bearer(other)
    verdict(by, gone)
    verdict(by, staying)
    keys.document = key_set(other)
    await keys.refresh()
    refusal(gone, by)
    assert verdict(by, staying).id == OWNER


async def test_a_token_by_a_new_key_waits_for_it() -> None:
    new, clock = signer("ES256", "new"), Clock()
    keys = KeySet(lambda: key_set(KEY, new) if clock.now > START else key_set(KEY), clock=clock)
    keys.load()
    by = TokenVerifier(keys, ISSUER, AUDIENCE, LEEWAY)
    refusal(bearer(new), by)
    clock.now += COOL_DOWN_SECONDS
    assert (await by.verify(bearer(new))).id == OWNER


async def test_as_long_as_there_are_no_keys_nobody_can_tell() -> None:
    def down() -> bytes:
        raise OSError("down")

    by = TokenVerifier(KeySet(down), ISSUER, AUDIENCE, LEEWAY)
    with pytest.raises(NoSigningKeys) as failure:
        await by.verify(bearer(KEY))
    assert failure.value.code is Code.UNAVAILABLE
    with pytest.raises(InvalidToken):
        await by.verify(None)
