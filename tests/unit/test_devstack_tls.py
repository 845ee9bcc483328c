"""The devstack's throw-away certificates: when they are made, when they are kept, and who can read them."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from devstack.errors import StackError
from devstack.tls import LIFETIME, RENEWED_BEFORE_END, SERVER_NAMES, Tls

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    made = Tls(tmp_path / "tls", mutual=False)
    made.provide(NOW)
    return made


def contents(tls: Tls) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in tls.folder.iterdir()}


@pytest.mark.parametrize(("value", "mutual"), [("1", False), ("mutual", True)])
def test_tls_says_which_kind(value: str, mutual: bool) -> None:
    tls = Tls.from_env({"TLS": value}, Path("tls"))
    assert tls is not None
    assert tls.mutual is mutual


@pytest.mark.parametrize("env", [{}, {"TLS": ""}, {"TLS": "0"}])
def test_without_it_nothing_speaks_tls(env: dict[str, str]) -> None:
    assert Tls.from_env(env, Path("tls")) is None


@pytest.mark.parametrize("value", ["2", "yes", "Mutual", "true"])
def test_any_other_value_is_refused_rather_than_taken_for_no(value: str) -> None:
    with pytest.raises(StackError, match=f"^TLS is '{value}'"):
        Tls.from_env({"TLS": value}, Path("tls"))


def test_only_the_owner_can_read_a_key_and_the_authoritys_is_written_nowhere(tls: Tls) -> None:
    keys = [path for path in tls.folder.iterdir() if b"PRIVATE KEY" in path.read_bytes()]
    assert set(keys) == {tls.server[1], tls.client[1]}
    assert all(path.stat().st_mode & 0o077 == 0 for path in keys)
    assert {path.name for path in tls.folder.iterdir()} == {path.name for path in tls.files}


def test_they_are_kept_so_that_pasted_commands_go_on_working(tls: Tls) -> None:
    before = contents(tls)
    tls.provide(NOW + LIFETIME - 2 * RENEWED_BEFORE_END)
    assert contents(tls) == before


def test_they_are_made_anew_before_they_end(tls: Tls) -> None:
    before = contents(tls)
    later = NOW + LIFETIME - RENEWED_BEFORE_END
    tls.provide(later)
    assert not set(before.values()) & set(contents(tls).values())
    assert x509.load_pem_x509_certificate(tls.server[0].read_bytes()).not_valid_after_utc == later + LIFETIME


def test_those_from_before_a_server_had_its_name_are_made_anew(tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(tls)
    monkeypatch.setattr("devstack.tls.SERVER_NAMES", (*SERVER_NAMES, "another-api"))
    tls.provide(NOW)
    assert not set(before.values()) & set(contents(tls).values())


@pytest.mark.parametrize("which", range(6))
@pytest.mark.parametrize("content", [None, b"", b"nonsense"], ids=["missing", "empty", "damaged"])
def test_a_missing_or_damaged_file_is_made_anew_with_all_that_belongs_to_it(
    tls: Tls, which: int, content: bytes | None
) -> None:
    before = contents(tls)
    file = tls.files[which]
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    tls.provide(NOW)
    assert contents(tls).keys() == before.keys()
    assert not set(before.values()) & set(contents(tls).values())
    tls.context()


def test_commands_carry_the_clients_certificate_where_it_is_needed(tmp_path: Path) -> None:
    folder = tmp_path / "with blanks"
    one, both = Tls(folder, mutual=False), Tls(folder, mutual=True)
    assert one.curl_options() == f"--cacert '{folder}/ca.pem'"
    assert (
        both.curl_options()
        == f"--cacert '{folder}/ca.pem' --cert '{folder}/client.pem' --key '{folder}/client-key.pem'"
    )
    assert one.grpcurl_options() == both.grpcurl_options()
    assert one.grpcurl_options().startswith("-cacert ")
