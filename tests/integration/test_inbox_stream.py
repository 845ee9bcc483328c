"""What a stream tells: everything once, in order, as it arrives; and what it costs when many are open."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID

import psutil
import psycopg
import pytest

from server.db.database import PoolLimits
from server.domain.callers import Caller
from server.errors import DependencyUnavailable, InvalidFields
from server.notification import feed, inbox, inbox_statements
from server.notification.inbox import Update
from tests.frozen import frozen
from tests.integration.inbox import Post, arrive
from tests.integration.vocabulary import as_agent, as_customer

SOON = 3.0


@pytest.fixture
async def post(shared_dsn: str) -> AsyncIterator[Post]:
    """The inbox on empty tables, with somebody who looks what has arrived."""
    async with Post.at(shared_dsn) as post, watched(post):
        yield post


@pytest.fixture
async def sender(post: Post) -> AsyncIterator[psycopg.AsyncConnection]:
    """By which notifications arrive."""
    async with await psycopg.AsyncConnection.connect(post.dsn, autocommit=True) as connection:
        yield connection


@asynccontextmanager
async def watched(post: Post) -> AsyncIterator[None]:
    task = asyncio.create_task(post.on.feed.keep_watch())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=3)
        assert task.cancelled()  # it ends for no other reason


class Stream:
    """One open stream."""

    def __init__(self, post: Post, caller: Caller, after: UUID | str | None = None) -> None:
        self._updates = inbox.follow(post.on, caller, None if after is None else str(after))

    async def __aenter__(self) -> "Stream":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._updates.aclose()

    async def next(self, within: float = SOON) -> Update:
        async with asyncio.timeout(within):
            return await anext(self._updates)

    async def ids(self, how_many: int) -> list[UUID]:
        """Of the next notifications; what tells the count alone is passed over."""
        found: list[UUID] = []
        while len(found) < how_many:
            update = await self.next()
            found += [update.notification.id] if update.notification else []
        return found


def sessions_of(dsn: str) -> list[psutil.Process]:
    """The processes of PostgreSQL that serve the database."""
    text = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with psycopg.connect(dsn) as connection:
        return [psutil.Process(pid) for (pid,) in connection.execute(text)]


class Looks:
    """Counts the looks at the database that serve all streams, and what streams read by themselves."""

    def __init__(self, post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ended, self.reads = 0, 0
        self._look, self._read = post.on.feed._look, post.on.feed.read
        monkeypatch.setattr(post.on.feed, "_look", self._counted_look)
        monkeypatch.setattr(post.on.feed, "read", self._counted_read)

    async def _counted_look(self) -> None:
        await self._look()
        self.ended += 1

    async def _counted_read(self, *what: Any) -> Any:  # noqa: ANN401 - as the feed's
        rows = await self._read(*what)
        self.reads += 1
        return rows

    async def more(self, count: int) -> None:
        """Waits until so many looks have ended that began after now."""
        # One may be under way.
        enough = self.ended + 1 + count
        await until(lambda: self.ended >= enough)


async def until(condition: Callable[[], bool]) -> None:
    """Waits for the condition, at most ten seconds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


async def all_begin(streams: list[Stream]) -> None:
    """Not all at once: like calls, no more of them than may wait for a connection."""
    for start in range(0, len(streams), 100):
        await asyncio.gather(*(stream.next(20) for stream in streams[start : start + 100]))


async def test_the_count_comes_first_and_then_what_arrives(post: Post, sender: psycopg.AsyncConnection) -> None:
    mine = as_customer()
    await arrive(sender, mine)
    async with Stream(post, mine) as stream:
        assert await stream.next() == Update(None, 1)
        new = await arrive(sender, mine)
        update = await stream.next()
        assert update.notification
        assert (update.notification.id, update.unread_count) == (new, 2)


async def test_after_an_id_comes_all_that_came_later(post: Post, sender: psycopg.AsyncConnection) -> None:
    mine = as_customer()
    ids = [await arrive(sender, mine) for _ in range(5)]
    async with Stream(post, mine, after=ids[1]) as stream:
        assert await stream.next() == Update(None, 5)
        assert await stream.ids(3) == ids[2:]


async def test_more_than_is_read_at_once_comes_whole(post: Post, sender: psycopg.AsyncConnection) -> None:
    mine = as_customer()
    ids = [await arrive(sender, mine, in_inbox=i % 7 != 3) for i in range(2 * inbox.BATCH + 30)]
    shown = [it for i, it in enumerate(ids) if i % 7 != 3]
    async with Stream(post, mine, after=ids[0]) as stream:
        assert await stream.ids(len(shown) - 1) == shown[1:]


async def test_what_is_muted_is_passed_over(
    post: Post, sender: psycopg.AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, looks = as_customer(), Looks(post, monkeypatch)
    async with Stream(post, mine) as stream:
        assert await stream.next() == Update(None, 0)
        update = asyncio.create_task(stream.next(20))
        before = looks.reads
        await arrive(sender, mine, in_inbox=False)
        await until(lambda: looks.reads > before)
        await looks.more(1)
        assert looks.reads == before + 1
        shown = await arrive(sender, mine)
        told = (await update).notification
        assert told
        assert told.id == shown


async def test_marking_elsewhere_is_told_as_a_new_count(post: Post, sender: psycopg.AsyncConnection) -> None:
    mine = as_customer()
    ids = [await arrive(sender, mine) for _ in range(3)]
    async with Stream(post, mine) as stream:
        assert await stream.next() == Update(None, 3)
        await inbox.mark_read(post.on, mine, [], str(ids[1]))
        assert await stream.next() == Update(None, 1)


async def test_a_quiet_stream_shows_that_it_lives(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "HEARTBEAT_SECONDS", 0.2)
    async with Stream(post, as_customer()) as stream:
        assert [await stream.next() for _ in range(4)] == [Update(None, 0)] * 4


@pytest.mark.parametrize("after", ["42", "0192f0c1-2345-7abc-8def-0123456789ab", ""])
async def test_a_stream_goes_on_from_a_notification_of_the_caller_alone(post: Post, after: str) -> None:
    with pytest.raises(InvalidFields) as refused:
        async with Stream(post, as_customer(), after) as stream:
            await stream.next()
    assert [violation.field for violation in refused.value.violations] == ["after_id"]


async def test_a_stream_does_not_go_on_from_anothers(post: Post, sender: psycopg.AsyncConnection) -> None:
    theirs = await arrive(sender, as_customer())
    with pytest.raises(InvalidFields):
        async with Stream(post, as_customer(), theirs) as stream:
            await stream.next()


async def test_streams_that_break_off_lose_and_repeat_nothing(post: Post, sender: psycopg.AsyncConnection) -> None:
    seed = random.randrange(2**32)  # noqa: S311
    print(f"seed {seed}")  # noqa: T201
    dice = random.Random(seed)  # noqa: S311
    mine, other = as_customer(), as_customer()
    first = await arrive(sender, mine)
    sent: list[UUID] = []

    async def arrivals() -> None:
        async with await psycopg.AsyncConnection.connect(post.dsn, autocommit=True) as connection:
            for _ in range(150):
                await asyncio.sleep(dice.uniform(0, 0.04))
                who = mine if dice.random() < 0.8 else other
                id_ = await arrive(connection, who)
                sent.extend([id_] if who == mine else [])

    async def breaks_off(seen: list[UUID]) -> None:
        while True:
            async with Stream(post, mine, seen[-1] if seen else first) as stream:
                for _ in range(dice.randrange(1, 12)):
                    update = await stream.next(20)
                    if update.notification:
                        seen.append(update.notification.id)

    seen: list[list[UUID]] = [[] for _ in range(4)]
    readers = [asyncio.create_task(breaks_off(it)) for it in seen]
    await arrivals()
    await until(lambda: all(len(it) >= len(sent) for it in seen))
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    assert seen == [sent] * 4


async def test_two_arrivals_of_which_the_first_commits_late_are_both_told(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, looks = as_customer(), Looks(post, monkeypatch)
    connect = psycopg.AsyncConnection.connect
    async with (
        Stream(post, mine) as stream,
        await connect(post.dsn) as early,
        await connect(post.dsn, autocommit=True) as late,
    ):
        await stream.next()
        first = await arrive(early, mine)
        second = asyncio.create_task(arrive(late, mine))
        await looks.more(1)
        assert not second.done()  # it waits for its number
        await early.commit()
        assert await stream.ids(2) == [first, await second]


async def test_many_open_streams_cost_one_look_at_a_time(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[object] = []
    fetch_all = post.on.db.fetch_all

    async def counting(statement: object, *rest: object) -> object:
        ran.append(statement)
        return await fetch_all(statement, *rest)  # type: ignore[arg-type]

    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(Stream(post, as_customer())) for _ in range(300)]
        await all_begin(streams)
        waiting = [asyncio.create_task(stream.next(20)) for stream in streams]
        monkeypatch.setattr(post.on.db, "fetch_all", counting)
        began = time.monotonic()
        await until(lambda: len(ran) >= 5)
        took = time.monotonic() - began
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    assert set(ran) == {inbox_statements.STANDINGS}
    # Between five there are four pauses.
    assert took >= 4 * feed.POLL_SECONDS


async def test_nobody_looks_for_the_while_of_twenty_looks_when_there_is_no_stream(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "POLL_SECONDS", 0.02)
    looks = Looks(post, monkeypatch)
    async with Stream(post, as_customer()) as stream:
        await stream.next()
        await until(lambda: looks.ended > 2)
    before = looks.ended
    await asyncio.sleep(20 * feed.POLL_SECONDS)
    # One may have been under way.
    assert looks.ended <= before + 1


async def test_a_thousand_streams_told_at_once_leave_connections_for_calls(shared_dsn: str) -> None:
    """With the usual limits, where 200 may wait for a connection."""
    async with Post.at(shared_dsn) as post, watched(post), AsyncExitStack() as stack:
        staff = [as_agent() for _ in range(1000)]
        async with await psycopg.AsyncConnection.connect(post.dsn) as sender:
            for it in staff:
                await arrive(sender, it)
            await sender.commit()
            streams = [await stack.enter_async_context(Stream(post, it)) for it in staff]
            await all_begin(streams)
            waiting = [asyncio.create_task(stream.ids(1)) for stream in streams]
            ids = [await arrive(sender, it) for it in staff]
            await sender.commit()
        counts = [await inbox.count_unread(post.on, it) for it in staff[:50]]
        assert counts == [2] * 50
        assert await asyncio.gather(*waiting) == [[it] for it in ids]


async def test_streams_outlast_a_database_that_is_away_for_a_moment(
    post: Post, sender: psycopg.AsyncConnection
) -> None:
    mine = as_customer()
    async with Stream(post, mine) as stream:
        await stream.next()
        new = await arrive(sender, mine)
        text = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = %s"
        await sender.execute(text, [sender.info.dbname])
        assert await stream.ids(1) == [new]


async def test_streams_end_as_unavailable_when_nobody_can_tell_for_long(
    own_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(feed, "READ_SECONDS", 0.5)
    limits = PoolLimits(timeout=0.5, statement_timeout=0.5)
    async with Post.at(own_dsn, limits) as post, watched(post), AsyncExitStack() as streams:
        opened = [await streams.enter_async_context(Stream(post, as_customer())) for _ in range(3)]
        for stream in opened:
            await stream.next()
        with frozen(sessions_of(post.dsn)):
            ended = await asyncio.gather(*(stream.next(10) for stream in opened), return_exceptions=True)
        assert [type(it) for it in ended] == [DependencyUnavailable] * 3
