"""The signing keys: what a set may hold, and that the last good one is kept."""

import asyncio
import http.client
import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from server import auth
from server.auth import KeySet, keys_at_url, keys_in_file
from tests.unit.signing import key_set, signer

OLD, NEW = signer("ES256", "old"), signer("ES256", "new")
NOT_A_KEY_SET = [
    b"",
    b"not json",
    b"\xff\xfe",
    b"[]",
    b"{}",
    b"null",
    b'{"keys": null}',
    b'{"keys": []}',
    b'{"keys": ["x"]}',
    b'{"keys": [null]}',
    b'{"keys": [{"kty": "EC", "crv": "P-256"}]}',
    b'{"keys": [{"kid": "a", "kty": "oct", "k": "c2VjcmV0"}]}',
    b'{"keys": [{"kid": "a", "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]}',
    b'{"keys": [{"kid": ["a"], "kty": "RSA", "n": "AQAB", "e": "AQAB"}]}',
]


class Source:
    """A key source whose document, or failure, a test changes."""

    def __init__(self, document: bytes) -> None:
        self.document = document
        self.failure: Exception | None = None
        self.reads = 0

    def __call__(self) -> bytes:
        self.reads += 1
        if self.failure:
            raise self.failure
        return self.document


def loaded(source: Callable[[], bytes]) -> KeySet:
    keys = KeySet(source)
    keys.refresh()
    return keys


def test_keys_are_found_by_their_id() -> None:
    keys = loaded(Source(key_set(OLD, NEW)))
    assert keys.find("old") is not None
    assert keys.find("new") is not None
    assert keys.find("other") is None


def test_a_key_that_left_the_set_is_no_longer_believed() -> None:
    source = Source(key_set(OLD))
    keys = loaded(source)
    source.document = key_set(NEW)
    keys.refresh()
    assert keys.find("old") is None
    assert keys.find("new") is not None


@pytest.mark.parametrize("document", NOT_A_KEY_SET)
def test_what_is_no_key_set_is_refused_and_the_last_good_one_stays(document: bytes) -> None:
    source = Source(key_set(OLD))
    keys = loaded(source)
    source.document = document
    with pytest.raises(ValueError, match=r"."):
        keys.refresh()
    assert keys.find("old") is not None


@pytest.mark.parametrize(
    "stranger",
    [
        {"kid": "s", "kty": "oct", "k": "c2VjcmV0"},
        {"kid": "s", "kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"},
        {"kid": "s", "kty": "OKP", "crv": "X25519", "x": "AA"},
        {"kid": "s", "kty": "AKP"},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
    ],
)
def test_keys_of_other_kinds_are_passed_over(stranger: dict[str, str]) -> None:
    keys = loaded(Source(json.dumps({"keys": [stranger, OLD.jwk]}).encode()))
    assert keys.find("old") is not None
    assert keys.find("s") is None


def test_a_source_that_is_down_keeps_the_last_good_set() -> None:
    source = Source(key_set(OLD))
    keys = loaded(source)
    source.failure = OSError("down")
    with pytest.raises(OSError, match="down"):
        keys.refresh()
    assert keys.find("old") is not None


def test_a_file_is_read_anew_at_each_refresh(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(key_set(OLD))
    keys = loaded(keys_in_file(file))
    file.write_bytes(key_set(NEW))
    keys.refresh()
    assert keys.find("new") is not None


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        keys_in_file(tmp_path / "none.json")()


def test_keys_are_fetched_from_an_url() -> None:
    with serving(b"HTTP/1.0 200 OK\r\n\r\n" + key_set(OLD)) as url:
        assert loaded(keys_at_url(url)).find("old") is not None


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.0 500 Oh\r\n\r\n", b"nonsense\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"],
    ids=["an error", "no http", "nothing", "half of it"],
)
def test_whatever_an_url_answers_is_a_failure_that_a_refresh_lives_with(answer: bytes) -> None:
    with serving(answer) as url, pytest.raises((OSError, ValueError)):
        loaded(keys_at_url(url))


@pytest.mark.parametrize(
    "failure",
    [OSError("down"), ValueError("broken"), http.client.BadStatusLine("x"), http.client.IncompleteRead(b"")],
    ids=lambda failure: type(failure).__name__,
)
async def test_the_background_refresh_outlives_every_failure_of_the_source(
    failure: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(auth, "REFRESH_SECONDS", 0.002)
    source = Source(key_set(OLD))
    keys = loaded(source)
    source.failure = failure
    with caplog.at_level(logging.WARNING, "nibble.auth"):
        task = asyncio.create_task(keys.keep_fresh())
        try:
            await until(lambda: source.reads >= 3 or task.done())
            assert not task.done()
            assert keys.find("old") is not None
            source.failure, source.document = None, key_set(NEW)
            await until(lambda: keys.find("new") is not None)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    assert "the last good ones stay" in caplog.text


async def until(condition: Callable[[], bool]) -> None:
    """Wait for the condition, at most five seconds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - nothing tells when a file was read
            await asyncio.sleep(0.001)


@contextmanager
def serving(answer: bytes) -> Iterator[str]:
    """The URL of a server on loopback that gives this answer, byte for byte."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            del format, args

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/jwks"
        finally:
            server.shutdown()
            thread.join()
