"""From a token to a caller: what is believed, and that nothing else is."""

import base64
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from server.auth.tokens import TokenVerifier
from server.domain.callers import Caller, Role
from server.errors import Code, InvalidToken
from tests.unit.signing import LEEWAY, Signer, bearer, key_set, signer, token, verdict, verifier
from tests.unit.vocabulary import OWNER, ROLES, a_caller

ALGORITHMS = ("ES256", "RS256", "EdDSA")
KEY = signer("ES256")
VERIFIER = verifier(*(signer(algorithm) for algorithm in ALGORITHMS))
# More than a test takes, less than the leeway.
MARGIN = 20


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
def test_the_scheme_is_read_in_any_case(scheme: str) -> None:
    assert verdict(VERIFIER, f"{scheme} {token(KEY)}").id == OWNER


def test_one_of_several_audiences_is_enough() -> None:
    assert verdict(VERIFIER, bearer(KEY, aud=["another-api", "nibble-api"])).id == OWNER


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Bearer  ", "Basic bmliYmxl", token(KEY), b"Bearer x", f"Bearer{token(KEY)}"],
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
    ],
)
def test_a_claim_that_says_something_else_is_refused(claims: dict[str, Any]) -> None:
    refusal(bearer(KEY, **claims))


def test_a_token_within_the_leeway_of_its_end_is_believed() -> None:
    assert verdict(VERIFIER, bearer(KEY, exp=int(time.time()) - LEEWAY + MARGIN)).id == OWNER


def test_a_token_beyond_the_leeway_is_refused_and_told_why() -> None:
    assert "expired" in refusal(bearer(KEY, exp=int(time.time()) - LEEWAY - 1)).message


def test_without_leeway_a_token_ends_when_it_says() -> None:
    refusal(bearer(KEY, exp=int(time.time()) - 1), by=verifier(KEY, leeway=0))


@pytest.mark.parametrize("claim", ["iat", "nbf"])
def test_a_token_of_the_near_future_is_believed(claim: str) -> None:
    assert verdict(VERIFIER, bearer(KEY, None, **{claim: int(time.time()) + LEEWAY - MARGIN})).id == OWNER


@pytest.mark.parametrize("claim", ["iat", "nbf"])
def test_a_token_that_is_not_yet_valid_is_refused(claim: str) -> None:
    refusal(bearer(KEY, None, **{claim: int(time.time()) + LEEWAY + MARGIN}))


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
