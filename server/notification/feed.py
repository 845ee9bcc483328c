"""Who is woken when something arrives: one look at the database serves all streams of a process."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from uuid import UUID

import structlog

from server.db.database import Database
from server.db.statement import Statement
from server.errors import DependencyUnavailable
from server.notification import inbox_statements as statements
from server.notification.notification import Standing

_log = structlog.stdlib.get_logger("nibble.inbox")

POLL_SECONDS = 0.3
PATIENCE_SECONDS = 10.0
"""How long streams last while nothing can be read: longer than a restart of PostgreSQL takes."""
READ_SECONDS = 5.0
"""What a read of a stream may take; unlike a call's, its deadline is far away."""
MOST_READING = 4
"""Streams that read at the same time: even when a ticket is told to a thousand of them, calls find a connection."""


class Watcher:
    """One stream's eye on its recipient."""

    def __init__(self) -> None:
        self._seen: Standing | None = None
        self._woken = asyncio.Event()
        self._failure: DependencyUnavailable | None = None

    def has_seen(self, standing: Standing) -> None:
        """The stream knows this much; it is woken when there is something else."""
        self._seen = standing
        self._woken.clear()

    async def moved(self, within: float) -> bool:
        """Wait for something other than what was seen; False when there is nothing `within` so many seconds.

        Raises:
            DependencyUnavailable: nobody can tell, and could not for PATIENCE_SECONDS.
        """
        try:
            async with asyncio.timeout(within):
                await self._woken.wait()
        except TimeoutError:
            return False
        if self._failure is not None:
            raise self._failure
        return True

    def show(self, standing: Standing) -> None:
        """Wake the stream where it has seen something else. It may have read since: then it finds nothing new."""
        if standing != self._seen:
            self._woken.set()

    def give_up(self) -> None:
        """Wake the stream for its end."""
        self._failure = DependencyUnavailable()
        self._woken.set()


class Feed:
    """The streams of one process, and the loop that looks for all of them whether anything has moved."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._watchers: dict[UUID, set[Watcher]] = {}
        self._somebody = asyncio.Event()
        self._trouble_since: float | None = None
        self._places_to_read = asyncio.Semaphore(MOST_READING)

    async def read(self, statement: Statement, values: Mapping[str, object]) -> list[tuple[Any, ...]]:
        """The rows of a stream's statement, when it is its turn.

        Raises:
            DependencyUnavailable: they did not come within READ_SECONDS.
            Overloaded, DeadlineExceeded: as from any statement.
        """
        async with self._places_to_read, _within(READ_SECONDS):
            return await self._db.fetch_all(statement, values, tuple)

    @contextmanager
    def watch(self, user_id: UUID) -> Iterator[Watcher]:
        """An eye on that recipient; to be opened before the first read, so that nothing comes between the two."""
        watcher = Watcher()
        self._watchers.setdefault(user_id, set()).add(watcher)
        self._somebody.set()
        try:
            yield watcher
        finally:
            self._forget(user_id, watcher)

    async def keep_watch(self) -> None:
        """Look about every POLL_SECONDS, while there is somebody to look for; runs until it is cancelled."""
        while True:
            await self._somebody.wait()
            await self._look()
            await asyncio.sleep(POLL_SECONDS)

    async def _look(self) -> None:
        user_ids = list(self._watchers)
        try:
            async with _within(READ_SECONDS):
                rows = await self._db.fetch_all(statements.STANDINGS, {"user_ids": user_ids}, _standing)
        except Exception as error:  # noqa: BLE001 - whatever it is, the streams must not sleep for ever
            self._note_trouble(error)
            return
        self._note_success()
        standings = dict(rows)
        for user_id in user_ids:
            for watcher in self._watchers.get(user_id, ()):
                watcher.show(standings.get(user_id, Standing()))

    def _note_trouble(self, error: Exception) -> None:
        now = time.monotonic()
        if self._trouble_since is None:
            self._trouble_since = now
            _log.warning("can't see what arrives", cause=f"{type(error).__name__}: {error}")
        if now - self._trouble_since < PATIENCE_SECONDS:
            return
        for watcher in [watcher for watchers in self._watchers.values() for watcher in watchers]:
            watcher.give_up()

    def _note_success(self) -> None:
        if self._trouble_since is not None:
            _log.info("sees again what arrives", seconds=round(time.monotonic() - self._trouble_since, 1))
            self._trouble_since = None

    def _forget(self, user_id: UUID, watcher: Watcher) -> None:
        self._watchers[user_id].discard(watcher)
        if not self._watchers[user_id]:
            del self._watchers[user_id]
        if not self._watchers:
            self._somebody.clear()
            self._trouble_since = None


@asynccontextmanager
async def _within(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise DependencyUnavailable from error


def _standing(row: tuple[Any, ...]) -> tuple[UUID, Standing]:
    return row[0], Standing(*row[1:])
