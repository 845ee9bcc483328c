"""The public keys that sign tokens: where they are read, and how they stay fresh."""

import asyncio
import concurrent.futures
import json
import logging
import math
import random
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.error import HTTPError

import jwt

from server import telemetry

T = TypeVar("T")

REFRESH_SECONDS = 30.0
"""The mean time between two looks at the key source; see `KeySet.keep_fresh`."""

FIRST_KEYS_SECONDS = 1.0
"""The mean time between two looks as long as there are no keys at all."""

COOL_DOWN_SECONDS = 10.0
"""The least time between the end of a look and the next one that an unknown key id may cause."""

LOOK_SECONDS = 5.0
"""How long the source may take; half of the usual deadline of a call that waits for it."""

MOST_HANGING = 4
"""How many looks that were given up may still hang; a thread can't be ended from outside."""

LARGEST_KEY_SET = 1_000_000
"""Bytes; what is larger is refused."""

_THREAD = "signing-keys"
_log = logging.getLogger("nibble.auth")

_ALGORITHM_OF: dict[tuple[str, str | None], str] = {
    ("EC", "P-256"): "ES256",
    ("RSA", None): "RS256",
    ("OKP", "Ed25519"): "EdDSA",
}

KeySource = Callable[[], bytes]
"""Reads a JSON Web Key Set, on any thread. Raises OSError or ValueError where there is none to be had."""

_Name = tuple[str, str]
"""A key's id and its algorithm: a token that names another algorithm than the key's finds no key."""


def keys_in_file(path: Path) -> KeySource:
    """A JSON Web Key Set in a file, read anew at each look."""

    def read() -> bytes:
        with path.open("rb") as file:
            return _bounded(file.read(LARGEST_KEY_SET + 1))

    return read


def keys_at_url(url: str) -> KeySource:
    """A JSON Web Key Set behind an http or https URL, which must answer itself: redirects are not followed.

    Whoever could redirect would choose who is believed, from https to http as well.
    """
    opener = urllib.request.build_opener(_NoRedirects)

    def fetch() -> bytes:
        late = time.monotonic() + LOOK_SECONDS
        try:
            with opener.open(url, timeout=LOOK_SECONDS) as answer:
                return _bounded(_slow_read(answer, late))
        except HTTPError as error:
            error.close()
            raise OSError(f"{url} answers {error.code}, not 200") from None
        except HTTPException as error:
            raise OSError(f"{url} does not speak HTTP as it should: {error!r}") from error

    return fetch


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """None makes a redirect an error."""


class _Readable(Protocol):
    def read1(self, n: int, /) -> bytes: ...


def _slow_read(answer: _Readable, late: float) -> bytes:
    """What the answer holds, at most one byte more than may be. The socket's timeout alone would not end a trickle."""
    body = b""
    while len(body) <= LARGEST_KEY_SET and (chunk := answer.read1(LARGEST_KEY_SET + 1 - len(body))):
        body += chunk
        if time.monotonic() > late:
            raise TimeoutError(f"the key set was not read within {LOOK_SECONDS:g} s")
    return body


def _bounded(document: bytes) -> bytes:
    if len(document) > LARGEST_KEY_SET:
        raise ValueError(f"the key set is larger than {LARGEST_KEY_SET} bytes")
    return document


class KeySet:
    """The public keys that sign tokens; the last good set is kept while its source is down or broken.

    All of it runs on one event loop; only the source is read on threads, by one look at a time.
    """

    def __init__(
        self,
        source: KeySource,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[float, float], float] = random.uniform,
        most_waiting: int = 20,
    ) -> None:
        """Args:
        clock: seconds that only grow, for the cool-down.
        draw: a number between two others, for the jitter.
        most_waiting: how many callers of `find` may wait for a look at once.
        """
        self._source = source
        self._clock = clock
        self._draw = draw
        self._most_waiting = most_waiting
        self._document = b""
        self._keys: Mapping[_Name, jwt.PyJWK] = {}
        self._look: asyncio.Task[None] | None = None
        self._looked_at = -math.inf
        self._waiting = 0
        self._problem = ""
        self._on_change: list[Callable[[], None]] = []
        telemetry.KEYS.set(0)

    @property
    def is_empty(self) -> bool:
        """Whether no key was found so far, so that no token can be judged."""
        return not self._keys

    def on_change(self, act: Callable[[], None]) -> None:
        """Have `act` called whenever the keys are others than before."""
        self._on_change.append(act)

    def load(self) -> None:
        """Read the source here and now.

        Raises:
            OSError: the source can't be read.
            ValueError: what it holds is not a key set with at least one usable key.
        """
        self._take(self._read())
        self._looked_at = self._clock()
        telemetry.KEYS_READ.set_to_current_time()

    async def refresh(self) -> None:
        """Look at the source, or share the look that is under way. A failure is logged, and changes nothing."""
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._look_once())
        # Whoever waits may go away; the look is for the others too.
        await asyncio.shield(self._look)

    async def find(self, kid: str, algorithm: str) -> jwt.PyJWK | None:
        """The key with this id that signs by this algorithm, or None.

        One that is not known may be new: it is worth another look at the source, which the caller waits for, unless
        there was one a moment ago or too many wait already. Tokens with made-up ids so cost the source at most one
        look per cool-down, and hold few places that calls with good tokens need.
        """
        key = self._keys.get((kid, algorithm))
        if key is None and self._is_worth_a_look():
            self._waiting += 1
            try:
                await self.refresh()
            finally:
                self._waiting -= 1
            key = self._keys.get((kid, algorithm))
        return key

    async def keep_fresh(self) -> None:
        """Refresh for ever, in the background.

        The pause is drawn anew each time, between half and one and a half of its mean, so that many processes that
        start together don't ask together. Even at the longest a new key works well within the contract's two minutes.
        """
        if self.is_empty:
            await self.refresh()
        while True:
            mean = FIRST_KEYS_SECONDS if self.is_empty else REFRESH_SECONDS
            await asyncio.sleep(mean * self._draw(0.5, 1.5))
            await self.refresh()

    def _is_worth_a_look(self) -> bool:
        if self._look is not None and not self._look.done():
            return self._waiting < self._most_waiting
        return self._clock() >= self._looked_at + COOL_DOWN_SECONDS

    async def _look_once(self) -> None:
        try:
            self._take(await _on_a_thread(self._read, LOOK_SECONDS))
        except Exception as error:  # noqa: BLE001 - whatever it was, the next look may find a new key
            telemetry.KEYS_FAILED.inc()
            self._report(repr(error))
        else:
            telemetry.KEYS_READ.set_to_current_time()
            self._report("")
        finally:
            self._looked_at = self._clock()

    def _read(self) -> tuple[bytes, Mapping[_Name, jwt.PyJWK]] | None:
        """What the source holds and the keys in it; None when it holds what it held before."""
        document = self._source()
        return None if document == self._document else (document, _parse(document))

    def _take(self, found: tuple[bytes, Mapping[_Name, jwt.PyJWK]] | None) -> None:
        if found is not None:
            self._document, self._keys = found
            telemetry.KEYS.set(len(self._keys))
            for act in self._on_change:
                act()

    def _report(self, problem: str) -> None:
        """Log what is wrong with the source, when that is something else than at the last look."""
        if problem == self._problem:
            return
        self._problem = problem
        if not problem:
            _log.info("the signing keys can be read again")
        elif self.is_empty:
            _log.warning("the signing keys can't be read; no token can be judged before they are: %s", problem)
        else:
            _log.warning("the signing keys could not be refreshed; the last good ones stay: %s", problem)


async def _on_a_thread(work: Callable[[], T], seconds: float) -> T:
    """The result of `work`; TimeoutError when it takes longer.

    The thread is one of its own that nobody waits for: a source that hangs holds up neither other work nor the end of
    the process. Only when several hang, which takes a source that sends its headers byte by byte, nothing more is tried
    until one of them ends.
    """
    if sum(thread.name == _THREAD for thread in threading.enumerate()) >= MOST_HANGING:
        raise TimeoutError("earlier attempts hang")
    outcome: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is awaited
            outcome.set_exception(error)

    outcome.set_running_or_notify_cancel()
    threading.Thread(target=run, name=_THREAD, daemon=True).start()
    try:
        return await asyncio.wait_for(asyncio.wrap_future(outcome), seconds)
    except TimeoutError as error:
        raise TimeoutError(str(error) or f"no answer within {seconds:g} s") from error


def _parse(document: bytes) -> dict[_Name, jwt.PyJWK]:
    """The usable keys of a set. Raises ValueError where there is none."""
    try:
        found = list(json.loads(document)["keys"])
    except (TypeError, KeyError, ValueError, RecursionError) as error:
        raise ValueError(f"not a JSON Web Key Set: {error!r}") from error
    keys = {(kid, key.algorithm_name): key for kid, key in map(_key, found) if key is not None}
    if not keys:
        raise ValueError("the key set holds no key with a kid that signs by ES256, RS256 or EdDSA")
    return keys


def _key(entry: Any) -> tuple[str, jwt.PyJWK | None]:  # noqa: ANN401 - whatever JSON holds
    """One key of a set by its name; None where it has none, or is not for signing in one of the three ways.

    Keys for other uses may stand beside, and one odd entry must not spoil the others.
    """
    match entry:
        case {"kid": str(kid), "kty": str(kind)}:
            algorithm = _ALGORITHM_OF.get((kind, _text(entry.get("crv"))))
            fits = entry.get("alg", algorithm) == algorithm and entry.get("use", "sig") == "sig"
            return kid, _parsed(entry) if algorithm and fits else None
        case _:
            return "", None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _parsed(entry: Mapping[str, Any]) -> jwt.PyJWK | None:
    try:
        key = jwt.PyJWK(dict(entry))
    except (jwt.PyJWTError, TypeError, ValueError) as error:
        _log.warning("a key of the key set is passed over: %r", error)
        return None
    if weakness := key.Algorithm.check_key_length(key.key):
        _log.warning("a key of the key set is passed over: %s", weakness)
        return None
    return key
