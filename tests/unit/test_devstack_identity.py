"""The stand-in for the identity provider: its key, its key set, its tokens."""

import json
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

import jwt
import pytest
from jwt import PyJWKSet

from devstack.errors import StackError
from devstack.identity import AUDIENCE, ISSUER, ROLES, InsecureDevelopmentIdentity, check_caller, hide_from_git, secret


@pytest.fixture
def identity(tmp_path: Path) -> InsecureDevelopmentIdentity:
    return InsecureDevelopmentIdentity.create(tmp_path / "identity")


def verified(token: str, identity: InsecureDevelopmentIdentity) -> dict[str, Any]:
    keys = PyJWKSet.from_dict(json.loads(identity.jwks_file.read_text()))
    key = keys[jwt.get_unverified_header(token)["kid"]]
    return jwt.decode(token, key, algorithms=["ES256"], audience=AUDIENCE, issuer=ISSUER)


@pytest.mark.parametrize("role", ROLES)
def test_a_token_is_believed_by_whoever_reads_the_key_set(identity: InsecureDevelopmentIdentity, role: str) -> None:
    caller = str(uuid.uuid4())
    claims = verified(identity.mint_token(role, caller), identity)
    assert (claims["sub"], claims["role"]) == (caller, role)
    assert claims["exp"] - claims["iat"] == 8 * 60 * 60
    assert abs(claims["iat"] - time.time()) < 60


def test_callers_without_a_name_differ(identity: InsecureDevelopmentIdentity) -> None:
    first, second = (verified(identity.mint_token("driver"), identity)["sub"] for _ in range(2))
    assert uuid.UUID(first) != uuid.UUID(second)


def test_claims_can_be_replaced_added_and_left_out(identity: InsecureDevelopmentIdentity) -> None:
    token = identity.mint_token("driver", aud="elsewhere", exp=1, colour="red", role=None)
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims.keys() == {"iss", "aud", "sub", "iat", "exp", "colour"}
    assert (claims["aud"], claims["exp"]) == ("elsewhere", 1)


def test_the_key_stays_from_start_to_start_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    first = InsecureDevelopmentIdentity.create(tmp_path)
    token = first.mint_token("driver")
    assert verified(token, InsecureDevelopmentIdentity.create(tmp_path))
    assert (tmp_path / "signing-key.pem").stat().st_mode & 0o777 == 0o600
    assert "d" not in json.loads(first.jwks_file.read_text())["keys"][0]


def test_the_key_id_is_the_thumbprint_of_rfc_7638(identity: InsecureDevelopmentIdentity) -> None:
    (key,) = json.loads(identity.jwks_file.read_text())["keys"]
    assert jwt.PyJWK(key).key_id == key["kid"]
    assert len(key["kid"]) == 43


def test_without_a_key_there_is_no_identity(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        InsecureDevelopmentIdentity(tmp_path)


def test_secrets_stay_and_differ_between_files(tmp_path: Path) -> None:
    first = secret(tmp_path / "a")
    assert first == secret(tmp_path / "a") != secret(tmp_path / "b")
    assert len(first) == 43


def test_git_sees_nothing_of_a_folder_whatever_its_name_nor_of_what_comes_into_it(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    hide_from_git(tmp_path / "elsewhere")
    InsecureDevelopmentIdentity.create(tmp_path / "elsewhere" / "identity")
    status = ["git", "-C", str(tmp_path), "status", "--porcelain", "--untracked-files=all"]
    assert subprocess.run(status, check=True, capture_output=True, text=True).stdout == ""


def test_a_folder_that_tells_git_something_itself_keeps_to_that(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("dist/\n")
    hide_from_git(tmp_path)
    assert (tmp_path / ".gitignore").read_text() == "dist/\n"


@pytest.mark.parametrize(("role", "sub"), [("admin", None), ("", None), ("driver", "me"), ("driver", "123")])
def test_callers_that_the_service_does_not_know_are_refused(role: str, sub: str | None) -> None:
    with pytest.raises(StackError, match=r"^(ROLE|SUB) is"):
        check_caller(role, sub)
