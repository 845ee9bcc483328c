"""Page tokens: only what was sealed comes open, and only where it was sealed for."""

import base64
from datetime import datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.paging import FIRST, LAST, PageTokens, Position
from tests.unit.vocabulary import NOW, OWNER, moments

TOKENS = PageTokens(b"k" * 32)
positions = st.builds(Position, moments, st.uuids(), st.integers(-1, 2**31 - 1))
scopes = st.text(max_size=40)
HERE = Position(NOW, OWNER, 2)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@given(scopes, positions)
def test_a_token_opens_to_the_position_it_was_sealed_with(scope: str, position: Position) -> None:
    assert TOKENS.open(scope, TOKENS.seal(scope, position)) == position


@given(positions)
def test_a_token_is_safe_in_a_url(position: Position) -> None:
    assert set(TOKENS.seal("scope", position)) <= set(ALPHABET)


@given(scopes, scopes, positions)
def test_a_token_of_another_scope_is_refused(mine: str, other: str, position: Position) -> None:
    opened = TOKENS.open(other, TOKENS.seal(mine, position))
    assert opened == (position if mine == other else None)


def test_a_token_of_another_key_is_refused() -> None:
    assert TOKENS.open("scope", PageTokens(b"j" * 32).seal("scope", HERE)) is None


def test_workers_with_the_same_key_open_each_others_tokens() -> None:
    assert PageTokens(b"k" * 32).open("scope", TOKENS.seal("scope", HERE)) == HERE


def test_a_token_with_any_character_changed_is_refused() -> None:
    token = TOKENS.seal("scope", HERE)
    for place, present in enumerate(token):
        for other in ALPHABET:
            if other != present:
                assert TOKENS.open("scope", token[:place] + other + token[place + 1 :]) is None


@pytest.mark.parametrize("junk", ["!", " ", "\n", "=", "==", "====", "!!!!", "\n\n\n\n", "é", "\0"])
def test_a_token_with_anything_put_in_is_refused(junk: str) -> None:
    token = TOKENS.seal("scope", HERE)
    for place in range(len(token) + 1):
        assert TOKENS.open("scope", token[:place] + junk + token[place:]) is None


def test_a_token_with_any_byte_changed_is_refused() -> None:
    raw = _raw(TOKENS.seal("scope", HERE))
    for place in range(len(raw)):
        for bit in range(8):
            changed = bytearray(raw)
            changed[place] ^= 1 << bit
            assert TOKENS.open("scope", _token(bytes(changed))) is None


def test_a_truncated_token_is_refused() -> None:
    token = TOKENS.seal("scope", HERE)
    for length in range(1, len(token)):
        assert TOKENS.open("scope", token[:length]) is None
        assert TOKENS.open("scope", token[-length:]) is None


@given(st.text() | st.text(ALPHABET))
def test_garbage_is_refused(token: str) -> None:
    assert TOKENS.open("scope", token) is None


@given(positions)
def test_every_position_lies_between_the_two_starts(position: Position) -> None:
    def key(of: Position) -> tuple[datetime, UUID]:
        return of.created_at, of.id

    assert key(FIRST) <= key(position) <= key(LAST)
    assert FIRST.number <= position.number


def _raw(token: str) -> bytes:
    return base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))


def _token(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
