"""Keys of an identity provider that the unit tests own, and the tokens that they sign."""

import json
import time
from collections.abc import Callable, Coroutine, Mapping
from functools import cache
from typing import Any, NamedTuple, TypeVar

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from server.auth.keys import KeySet
from server.auth.tokens import TokenVerifier
from server.domain.callers import Caller
from tests.unit.vocabulary import OWNER

T = TypeVar("T")

ISSUER = "https://identity.nibble.example"
AUDIENCE = "nibble-api"
LEEWAY = 60


class Signer(NamedTuple):
    """A private key, the algorithm that it signs by, and its public half as a JWK."""

    key: Any
    algorithm: str
    jwk: dict[str, Any]

    @property
    def kid(self) -> str:
        """The key's id in the set."""
        return str(self.jwk["kid"])


@cache
def signer(algorithm: str, kid: str | None = None) -> Signer:
    """A key for ES256, RS256 or EdDSA, made once per id."""
    key, public = _new(algorithm)
    return Signer(key, algorithm, {**public, "kid": kid or f"key-{algorithm}", "use": "sig", "alg": algorithm})


def _new(algorithm: str) -> tuple[Any, dict[str, Any]]:
    if algorithm == "ES256":
        curve = ec.generate_private_key(ec.SECP256R1())
        return curve, ECAlgorithm.to_jwk(curve.public_key(), as_dict=True)
    if algorithm == "RS256":
        modulus = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        return modulus, RSAAlgorithm.to_jwk(modulus.public_key(), as_dict=True)
    edwards = ed25519.Ed25519PrivateKey.generate()
    return edwards, OKPAlgorithm.to_jwk(edwards.public_key(), as_dict=True)


def key_set(*signers: Signer) -> bytes:
    """The JSON Web Key Set of these keys."""
    return json.dumps({"keys": [each.jwk for each in signers]}).encode()


def verifier(*signers: Signer, leeway: float = LEEWAY, now: Callable[[], float] = time.time) -> TokenVerifier:
    """A verifier that knows these keys, and looks for no others: to its clock the last look was just now."""
    keys = KeySet(lambda: key_set(*signers), clock=lambda: 0.0)
    keys.load()
    return TokenVerifier(keys, ISSUER, AUDIENCE, leeway, now)


def verdict(of: TokenVerifier, authorization: str | bytes | None) -> Caller:
    """The caller that the verifier finds without waiting for anything."""
    return at_once(of.verify(authorization))


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """What the coroutine comes to, without an event loop; AssertionError when it waits for something."""
    try:
        work.send(None)
    except StopIteration as answer:
        result: T = answer.value
        return result
    finally:
        work.close()
    raise AssertionError("it waits")


def token(by: Signer, headers: Mapping[str, Any] | None = None, **claims: Any) -> str:  # noqa: ANN401
    """A customer's token for an hour; a claim that is None is left out, whatever is sent in is taken as it is."""
    now = int(time.time())
    usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": str(OWNER), "role": "customer", "iat": now, "exp": now + 3600}
    payload = {name: value for name, value in (usual | claims).items() if value is not None}
    header = {"typ": "JWT", "kid": by.kid, **(headers or {})}
    return jwt.PyJWS().encode(json.dumps(payload).encode(), by.key, header.get("alg", by.algorithm), header)


def bearer(by: Signer, headers: Mapping[str, Any] | None = None, **claims: Any) -> str:  # noqa: ANN401
    """A token as the `authorization` entry carries it."""
    return f"Bearer {token(by, headers, **claims)}"
