"""The signing keys: what a set may hold, that the last good one is kept, and how often the source is asked."""

import asyncio
import http.client
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from server.auth import keys as auth_keys
from server.auth.keys import COOL_DOWN_SECONDS, LARGEST_KEY_SET, KeySet, keys_at_url, keys_in_file
from tests.unit.signing import at_once, key_set, signer

OLD, NEW = signer("ES256", "old"), signer("ES256", "new")
NOT_A_KEY_SET = [
    b"",
    b"not json",
    b"<!doctype html><title>Sign in</title>",
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
    b'{"keys":' + b"[" * 100_000,
]
FAILURES = [OSError("down"), ValueError("broken"), http.client.BadStatusLine("x"), http.client.IncompleteRead(b"")]


class Source:
    """A key source whose document, or failure, a test changes; while `gate` is closed it hangs."""

    def __init__(self, document: bytes) -> None:
        self.document = document
        self.failure: Exception | None = None
        self.reads = 0
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self) -> bytes:
        self.reads += 1
        self.gate.wait(10)
        if self.failure:
            raise self.failure
        return self.document


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def loaded(source: Callable[[], bytes], clock: Clock | None = None, most_waiting: int = 20) -> KeySet:
    keys = KeySet(source, clock=clock or Clock(), most_waiting=most_waiting)
    keys.load()
    return keys


def knows(keys: KeySet, kid: str, algorithm: str = "ES256") -> bool:
    """Whether the key is there, without another look."""
    return at_once(keys.find(kid, algorithm)) is not None


async def is_found(keys: KeySet, kid: str) -> bool:
    """Whether the key is there, after another look where that is made."""
    return await keys.find(kid, "ES256") is not None


# --- what a set may hold ---


def test_keys_are_found_by_their_id() -> None:
    keys = loaded(Source(key_set(OLD, NEW)))
    assert knows(keys, "old")
    assert knows(keys, "new")
    assert not knows(keys, "other")


def test_a_key_is_found_for_its_own_algorithm_only() -> None:
    keys = loaded(Source(key_set(*(signer(algorithm) for algorithm in ("ES256", "RS256", "EdDSA")))))
    for algorithm in ("ES256", "RS256", "EdDSA"):
        found = [other for other in ("ES256", "RS256", "EdDSA", "HS256") if knows(keys, f"key-{algorithm}", other)]
        assert found == [algorithm]


@pytest.mark.parametrize("document", NOT_A_KEY_SET, ids=lambda document: repr(document[:40]))
def test_what_is_no_key_set_is_refused_and_the_last_good_one_stays(document: bytes) -> None:
    source = Source(key_set(OLD))
    keys = loaded(source)
    source.document = document
    with pytest.raises(ValueError, match=r"."):
        keys.load()
    assert knows(keys, "old")


@pytest.mark.parametrize(
    "stranger",
    [
        {"kid": "s", "kty": "oct", "k": "c2VjcmV0"},
        {"kid": "s", "kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"},
        {"kid": "s", "kty": "OKP", "crv": "X25519", "x": "AA"},
        {"kid": "s", "kty": "AKP"},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
        {**signer("ES256", "s").jwk, "use": "enc"},
        {**signer("ES256", "s").jwk, "alg": "ES384"},
        {**signer("ES256", "s").jwk, "alg": "RS256"},
        {**signer("RS256", "s").jwk, "alg": "PS256"},
        {**signer("RS256", "s").jwk, "alg": "HS256"},
    ],
)
def test_keys_of_other_kinds_are_passed_over(stranger: dict[str, str]) -> None:
    keys = loaded(Source(json.dumps({"keys": [stranger, OLD.jwk]}).encode()))
    assert knows(keys, "old")
    assert not any(knows(keys, "s", algorithm) for algorithm in ("ES256", "RS256", "EdDSA", "HS256", "PS256", "ES384"))


def test_a_key_that_is_too_short_is_passed_over() -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - that is the point
    short = RSAAlgorithm.to_jwk(weak.public_key(), as_dict=True)
    keys = loaded(Source(json.dumps({"keys": [{**short, "kid": "short"}, OLD.jwk]}).encode()))
    assert not knows(keys, "short", "RS256")


# --- where it is read ---


def test_a_file_is_read_anew_at_each_look(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(key_set(OLD))
    keys = loaded(keys_in_file(file))
    file.write_bytes(key_set(NEW))
    keys.load()
    assert knows(keys, "new")


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        keys_in_file(tmp_path / "none.json")()


def test_a_file_that_is_too_large_is_refused_rather_than_cut(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(key_set(OLD).ljust(LARGEST_KEY_SET))
    assert knows(loaded(keys_in_file(file)), "old")
    file.write_bytes(key_set(OLD).ljust(LARGEST_KEY_SET + 1))
    with pytest.raises(ValueError, match="larger"):
        loaded(keys_in_file(file))


def test_keys_are_fetched_from_an_url() -> None:
    with serving(b"HTTP/1.0 200 OK\r\n\r\n" + key_set(OLD)) as url:
        assert knows(loaded(keys_at_url(url)), "old")


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.0 500 Oh\r\n\r\n", b"nonsense\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"],
    ids=["an error", "no http", "nothing", "half of it"],
)
def test_whatever_an_url_answers_is_a_failure_that_a_look_lives_with(answer: bytes) -> None:
    with serving(answer) as url, pytest.raises((OSError, ValueError)):
        loaded(keys_at_url(url))


def test_an_answer_that_is_too_large_is_refused_rather_than_cut() -> None:
    fits, does_not = (
        b"HTTP/1.0 200 OK\r\n\r\n" + key_set(OLD).ljust(length) for length in (LARGEST_KEY_SET, LARGEST_KEY_SET + 1)
    )
    with serving(fits) as url:
        assert knows(loaded(keys_at_url(url)), "old")
    with serving(does_not) as url, pytest.raises(ValueError, match="larger"):
        loaded(keys_at_url(url))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    asked: list[str] = []
    with serving(b"HTTP/1.0 200 OK\r\n\r\n" + key_set(NEW), asked) as target:
        redirect = f"HTTP/1.0 {status} Elsewhere\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode()
        with serving(redirect) as url, pytest.raises(OSError, match=str(status)):
            loaded(keys_at_url(url))
    assert asked == []


def test_an_answer_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth_keys, "LOOK_SECONDS", 0.2)
    endless = (b"HTTP/1.0 200 OK\r\n\r\n", *[b" "] * 10_000)
    began = time.monotonic()
    with serving(endless, pause=0.01) as url, pytest.raises(TimeoutError):
        loaded(keys_at_url(url))
    assert time.monotonic() - began < 20


# --- how long it is believed ---


async def test_a_key_that_left_the_set_is_not_believed_after_the_next_look() -> None:
    source = Source(key_set(OLD))
    keys = loaded(source)
    source.document = key_set(NEW)
    await keys.refresh()
    assert not knows(keys, "old")
    assert knows(keys, "new")


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
async def test_a_source_that_is_down_keeps_the_last_good_set(failure: Exception) -> None:
    source = Source(key_set(OLD))
    keys = loaded(source)
    source.failure = failure
    await keys.refresh()
    assert knows(keys, "old")


async def test_who_listens_is_told_of_other_keys_and_of_nothing_else() -> None:
    source = Source(key_set(OLD))
    keys = loaded(source)
    told: list[bool] = []
    keys.on_change(lambda: told.append(knows(keys, "new")))
    await keys.refresh()
    source.failure = OSError("down")
    await keys.refresh()
    assert told == []
    source.failure, source.document = None, key_set(OLD, NEW)
    await keys.refresh()
    assert told == [True]


async def test_a_source_that_hangs_is_given_up_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(key_set(OLD))
    keys = loaded(source)
    monkeypatch.setattr(auth_keys, "LOOK_SECONDS", 0.05)
    source.gate.clear()
    await keys.refresh()
    assert knows(keys, "old")
    source.document = key_set(NEW)
    source.gate.set()
    monkeypatch.setattr(auth_keys, "LOOK_SECONDS", 10)
    await keys.refresh()
    assert knows(keys, "new")


async def test_a_source_that_hangs_for_ever_takes_a_few_threads_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(key_set(OLD))
    keys = loaded(source)
    monkeypatch.setattr(auth_keys, "LOOK_SECONDS", 0.01)
    source.gate.clear()
    for _ in range(3 * auth_keys.MOST_HANGING):
        await keys.refresh()
    assert source.reads == 1 + auth_keys.MOST_HANGING
    source.gate.set()
    monkeypatch.setattr(auth_keys, "LOOK_SECONDS", 10)
    source.document = key_set(NEW)
    async with asyncio.timeout(10):
        while not knows(keys, "new"):
            await keys.refresh()


async def test_a_failure_is_logged_when_it_begins_when_it_changes_and_when_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = Source(key_set(OLD))
    keys = loaded(source)
    with caplog.at_level(logging.INFO, "nibble.auth"):
        for failure in (None, OSError("down"), OSError("down"), OSError("down"), ValueError("broken"), None, None):
            source.failure = failure
            await keys.refresh()
    said = [record.getMessage() for record in caplog.records]
    assert [line.partition(": ")[2] for line in said] == ["OSError('down')", "ValueError('broken')", ""]
    assert all("the last good ones stay" in line for line in said[:2])
    assert "again" in said[2]


# --- how often the source is asked ---


async def test_looks_that_are_asked_for_at_once_are_one() -> None:
    source = Source(key_set(OLD))
    source.gate.clear()
    keys = KeySet(source)
    asked = [asyncio.create_task(keys.refresh()) for _ in range(20)]
    await until(lambda: source.reads == 1)
    source.gate.set()
    await asyncio.gather(*asked)
    assert source.reads == 1
    assert knows(keys, "old")


async def test_an_unknown_id_is_worth_one_look_in_a_cool_down() -> None:
    source, clock = Source(key_set(OLD)), Clock()
    keys = loaded(source, clock)
    source.document = key_set(OLD, NEW)
    assert not await is_found(keys, "new")
    clock.now += COOL_DOWN_SECONDS - 0.001
    assert not await is_found(keys, "new")
    assert source.reads == 1
    clock.now += 0.001
    assert await is_found(keys, "new")
    assert source.reads == 2


async def test_a_flood_of_unknown_ids_is_worth_one_look_in_a_cool_down_though_all_fail() -> None:
    source, clock = Source(key_set(OLD)), Clock()
    keys = loaded(source, clock)
    source.failure = OSError("down")
    for period in range(1, 4):
        clock.now += COOL_DOWN_SECONDS
        found = await asyncio.gather(*(is_found(keys, f"made up {number}") for number in range(200)))
        assert not any(found)
        for number in range(200):
            assert not await is_found(keys, f"made up again {number}")
        assert source.reads == 1 + period


async def test_the_cool_down_begins_when_a_look_ends() -> None:
    source, clock = Source(key_set(OLD)), Clock()
    keys = loaded(source, clock)
    clock.now += COOL_DOWN_SECONDS
    source.gate.clear()
    look = asyncio.create_task(is_found(keys, "made up"))
    await until(lambda: source.reads == 2)
    clock.now += COOL_DOWN_SECONDS
    source.gate.set()
    await look
    assert not await is_found(keys, "made up")
    assert source.reads == 2


async def test_a_known_id_is_found_at_once_while_the_source_hangs() -> None:
    source, clock = Source(key_set(OLD)), Clock()
    keys = loaded(source, clock)
    clock.now += COOL_DOWN_SECONDS
    source.gate.clear()
    waiting = [asyncio.create_task(is_found(keys, f"made up {number}")) for number in range(10)]
    await until(lambda: source.reads == 2)
    assert knows(keys, "old")
    source.gate.set()
    assert not any(await asyncio.gather(*waiting))


async def test_no_more_than_so_many_wait_for_a_look() -> None:
    source, clock = Source(key_set(OLD)), Clock()
    keys = loaded(source, clock, most_waiting=2)
    clock.now += COOL_DOWN_SECONDS
    source.gate.clear()
    waiting = [asyncio.create_task(is_found(keys, "new")) for _ in range(2)]
    await until(lambda: source.reads == 2)
    assert not knows(keys, "new")
    source.document = key_set(OLD, NEW)
    source.gate.set()
    assert await asyncio.gather(*waiting) == [True, True]


async def test_who_gives_up_waiting_does_not_end_the_look_for_the_others() -> None:
    source, clock = Source(key_set(OLD)), Clock()
    keys = loaded(source, clock, most_waiting=2)
    clock.now += COOL_DOWN_SECONDS
    source.gate.clear()
    impatient, patient = (asyncio.create_task(is_found(keys, "new")) for _ in range(2))
    await until(lambda: source.reads == 2)
    impatient.cancel()
    await asyncio.gather(impatient, return_exceptions=True)
    # Its place is free again.
    third = asyncio.create_task(is_found(keys, "new"))
    source.document = key_set(OLD, NEW)
    source.gate.set()
    assert await patient
    assert await third
    assert source.reads == 2


# --- in the background ---


@contextmanager
def kept_fresh(keys: KeySet) -> Iterator[asyncio.Task[None]]:
    """The refresh in the background, as long as the block lasts."""
    task = asyncio.create_task(keys.keep_fresh())
    try:
        yield task
    finally:
        task.cancel()


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
async def test_the_background_refresh_outlives_every_failure_of_the_source(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth_keys, "REFRESH_SECONDS", 0.002)
    source = Source(key_set(OLD))
    keys = loaded(source)
    changed = asyncio.Event()
    keys.on_change(changed.set)
    source.failure = failure
    with kept_fresh(keys) as task:
        await until(lambda: source.reads >= 3 or task.done())
        assert not task.done()
        assert knows(keys, "old")
        source.failure, source.document = None, key_set(NEW)
        await asyncio.wait_for(changed.wait(), 10)
    assert knows(keys, "new")


async def test_each_pause_is_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth_keys, "REFRESH_SECONDS", 1.0)
    drawn: list[tuple[float, float]] = []

    def draw(least: float, most: float) -> float:
        drawn.append((least, most))
        return 0.001

    source = Source(key_set(OLD))
    keys = KeySet(source, draw=draw)
    keys.load()
    with kept_fresh(keys):
        await until(lambda: source.reads >= 4)
    assert len(drawn) >= 3
    assert set(drawn) == {(0.5, 1.5)}


async def test_without_keys_the_source_is_asked_at_once_and_soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth_keys, "FIRST_KEYS_SECONDS", 0.002)
    source = Source(key_set(OLD))
    source.failure = OSError("down")
    keys = KeySet(source)
    assert keys.is_empty
    with kept_fresh(keys):
        await until(lambda: source.reads >= 3)
        assert keys.is_empty
        source.failure = None
        await until(lambda: not keys.is_empty)
    assert knows(keys, "old")


def test_a_new_key_works_within_two_minutes_even_where_one_look_in_between_fails() -> None:
    longest_pause = 1.5 * auth_keys.REFRESH_SECONDS
    assert 2 * (longest_pause + auth_keys.LOOK_SECONDS) < 120


async def until(condition: Callable[[], bool]) -> None:
    """Wait for the condition, at most ten seconds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nothing tells when a source was read
            await asyncio.sleep(0.001)


@contextmanager
def serving(answer: bytes | tuple[bytes, ...], asked: list[str] | None = None, pause: float = 0) -> Iterator[str]:
    """The URL of a server on loopback that gives this answer, byte for byte; in pieces, with a pause after each."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if asked is not None:
                asked.append(self.path)
            for piece in (answer,) if isinstance(answer, bytes) else answer:
                self.wfile.write(piece)
                stopping.wait(pause)
                if stopping.is_set():
                    break

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            del format, args

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A client that hung up does not matter."""

    stopping = threading.Event()
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/jwks"
        finally:
            stopping.set()
            server.shutdown()
            thread.join()
