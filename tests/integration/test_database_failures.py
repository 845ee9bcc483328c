"""What becomes of a call when PostgreSQL is gone, busy or slow: an error in the service's words, and no leak."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import psycopg
import pytest
from structlog.testing import capture_logs

from devstack.stack import Stack
from server.db.database import Database, PoolLimits
from server.db.statements import PROBE
from server.domain.tickets import Ticket
from server.errors import DeadlineExceeded, DependencyUnavailable, Overloaded, ServiceError
from tests.integration.vocabulary import Desk, counts, events_of, look_at, move, open_ticket, query, until

QUICK = 0.3
# What a busy machine may add to a timeout.
SLACK = 3.0


async def first_ticket(desk: Desk) -> Ticket:
    """A ticket, once there is a connection: on a busy machine the first one takes longer than QUICK."""
    opened: list[Ticket] = []

    async def is_open() -> bool:
        with suppress(DependencyUnavailable):
            opened.append(await open_ticket(desk))
        return bool(opened)

    await until(is_open)
    return opened[0]


@asynccontextmanager
async def locked(desk: Desk, ticket: Ticket) -> AsyncIterator[None]:
    """While somebody else holds the lock of this ticket's row."""
    async with await psycopg.AsyncConnection.connect(desk.dsn) as holder:
        await holder.execute(b"SELECT FROM admin_service.support_tickets WHERE id = %s FOR UPDATE", [ticket.id])
        yield
        await holder.rollback()


async def until_waiting(desk: Desk, backends: int = 1) -> None:
    """Wait until so many of the database's sessions wait for a lock."""

    async def there() -> bool:
        statement = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return len(await query(desk, statement)) == backends

    await until(there)


async def test_a_database_that_is_not_there_is_unavailable_within_the_pools_timeout(own_dsn: str) -> None:
    async with Desk.at(own_dsn.replace("/test_", "/no_such_"), PoolLimits(timeout=QUICK)) as desk:
        began = time.monotonic()
        with pytest.raises(DependencyUnavailable) as failure:
            await open_ticket(desk)
        assert QUICK <= time.monotonic() - began < QUICK + SLACK
    assert failure.value.__cause__ is not None
    assert failure.value.retry_after is not None
    assert "no_such" not in failure.value.message


async def test_a_database_that_stays_away_is_never_taken_for_overload(own_dsn: str) -> None:
    limits = PoolLimits(max_waiting=2, timeout=0.05)
    async with Desk.at(own_dsn.replace("/test_", "/no_such_"), limits) as desk:
        for _ in range(6):
            with pytest.raises(DependencyUnavailable):
                await open_ticket(desk)


async def test_a_database_that_goes_is_unavailable_and_serves_again_when_it_is_back(own_dsn: str, stack: Stack) -> None:
    async with Desk.at(own_dsn, PoolLimits(timeout=QUICK)) as desk:
        ticket = await first_ticket(desk)
        await allow_connections(stack, own_dsn, allowed=False)
        for _ in range(3):
            with pytest.raises(DependencyUnavailable):
                await look_at(desk, ticket)
        await allow_connections(stack, own_dsn, allowed=True)

        async def is_back() -> bool:
            try:
                return await look_at(desk, ticket) == ticket
            except DependencyUnavailable:
                return False

        await until(is_back)


async def test_a_database_that_goes_is_told_once_with_the_reason_and_once_when_it_is_back(
    own_dsn: str, stack: Stack
) -> None:
    async with Desk.at(own_dsn, PoolLimits(timeout=QUICK)) as desk:
        ticket = await first_ticket(desk)

        async def told(times: int) -> bool:
            with suppress(DependencyUnavailable):
                await look_at(desk, ticket)
            return len(lines) >= times

        with capture_logs() as lines:
            await allow_connections(stack, own_dsn, allowed=False)
            await until(lambda: told(1))
            for _ in range(3):
                await told(1)
            await allow_connections(stack, own_dsn, allowed=True)
            await until(lambda: told(2))
            await told(2)
    assert [line["event"] for line in lines] == [
        "the database does not answer as it should",
        "the database answers again",
    ]
    assert "is not currently accepting connections" in lines[0]["problem"]


async def test_a_database_whose_caller_tells_of_trouble_says_nothing_itself(own_dsn: str) -> None:
    async with AsyncExitStack() as opened:
        lines = opened.enter_context(capture_logs())

        async def has_told() -> bool:
            return any("told" in line["problem"] for line in lines)

        # The other one comes later: by the time that it has told, this one would have.
        for name, tells in (("kept", False), ("told", True)):
            away = own_dsn.replace("/test_", f"/{name}_")
            db = Database(away, PoolLimits(timeout=QUICK), PROBE, tells_of_trouble=tells)
            await db.open()
            opened.push_async_callback(db.close)
            with pytest.raises(DependencyUnavailable):
                await db.fetch_one(PROBE, {}, tuple)
        await until(has_told)
    assert len(lines) == 1


async def allow_connections(stack: Stack, dsn: str, *, allowed: bool) -> None:
    """Open a database to everybody, or close it to all and end their sessions."""
    name = dsn.split("/")[3].split("?")[0]
    admin = await psycopg.AsyncConnection.connect(stack.dsn_for("postgres"), autocommit=True)
    async with admin:
        await admin.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS {allowed}".encode())
        if not allowed:
            await admin.execute(
                b"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", [name]
            )


async def test_no_call_fails_for_sessions_that_were_ended_while_they_were_idle(own_dsn: str) -> None:
    async with Desk.at(own_dsn, PoolLimits(size=4)) as desk:
        ticket = await open_ticket(desk)
        await asyncio.gather(*(look_at(desk, ticket) for _ in range(20)))
        ended = await query(
            desk,
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
        )
        assert ended
        assert await asyncio.gather(*(look_at(desk, ticket) for _ in range(20))) == [ticket] * 20


async def test_one_call_alone_finds_a_database_that_was_restarted_while_all_connections_were_idle(own_dsn: str) -> None:
    async with Desk.at(own_dsn, PoolLimits(size=8, timeout=1.0)) as desk:
        ticket = await open_ticket(desk)
        asleep = "SELECT pg_backend_pid() AS pid FROM pg_sleep(0.2)"
        sleeping = await asyncio.gather(*(query(desk, asleep) for _ in range(8)))
        assert len({row["pid"] for [row] in sleeping}) > 4
        async with await psycopg.AsyncConnection.connect(own_dsn, autocommit=True) as operator:
            await operator.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
        assert await look_at(desk, ticket) == ticket


async def test_a_session_that_is_ended_in_the_middle_leaves_nothing_half_done(own_dsn: str) -> None:
    async with Desk.at(own_dsn, PoolLimits(size=1)) as desk:
        ticket = await open_ticket(desk)
        async with locked(desk, ticket):
            change = asyncio.create_task(move(desk, ticket, "resolved"))
            await until_waiting(desk)
            await query(
                desk,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'",
            )
            with pytest.raises(DependencyUnavailable):
                await change
        assert len(await events_of(desk, ticket)) == 1


async def test_a_statement_is_stopped_at_its_timeout(dsn: str) -> None:
    async with Desk.at(dsn, PoolLimits(statement_timeout=QUICK)) as desk:
        ticket = await open_ticket(desk)
        async with locked(desk, ticket):
            began = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                await move(desk, ticket, "resolved")
            assert QUICK <= time.monotonic() - began < QUICK + SLACK
        assert await look_at(desk, ticket) == ticket
        assert (await move(desk, ticket, "resolved")).version == 2


async def test_a_call_that_gets_no_connection_in_time_while_all_of_them_work_is_refused_as_overload(dsn: str) -> None:
    async with Desk.at(dsn, PoolLimits(size=1, timeout=QUICK)) as desk:
        ticket = await first_ticket(desk)
        async with locked(desk, ticket):
            first = asyncio.create_task(move(desk, ticket, "resolved"))
            await until_waiting(desk)
            with pytest.raises(Overloaded):
                await look_at(desk, ticket)
        assert (await first).status == "resolved"


async def test_a_call_beyond_the_queue_is_refused_at_once(dsn: str) -> None:
    async with Desk.at(dsn, PoolLimits(size=1, max_waiting=2, timeout=30)) as desk:
        ticket = await open_ticket(desk)
        async with locked(desk, ticket):
            running = asyncio.create_task(move(desk, ticket, "resolved"))
            await until_waiting(desk)
            calls = [asyncio.create_task(look_at(desk, ticket)) for _ in range(6)]
            done, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            assert {type(call.exception()) for call in done} == {Overloaded}
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(answer, Overloaded) for answer in answers) == 4
        assert sum(isinstance(answer, Ticket) for answer in answers) == 2
        assert waiting
        await running


async def test_a_cancelled_call_gives_its_connection_back_and_changes_nothing(dsn: str) -> None:
    async with Desk.at(dsn, PoolLimits(size=1, timeout=5)) as desk:
        ticket = await open_ticket(desk)
        async with locked(desk, ticket):
            for _ in range(3):
                call = asyncio.create_task(move(desk, ticket, "resolved"))
                await until_waiting(desk)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
                await until_waiting(desk, 0)
                assert await look_at(desk, ticket) == ticket
        assert len(await events_of(desk, ticket)) == 1


async def test_a_call_cancelled_while_it_queues_leaves_the_queue(dsn: str) -> None:
    async with Desk.at(dsn, PoolLimits(size=1, max_waiting=4, timeout=30)) as desk:
        ticket = await open_ticket(desk)
        async with locked(desk, ticket):
            running = asyncio.create_task(move(desk, ticket, "resolved"))
            await until_waiting(desk)
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(look_at(desk, ticket), 0.02)
        assert (await running).status == "resolved"
        assert (await look_at(desk, ticket)).status == "resolved"


async def test_a_write_that_is_cut_off_is_whole_or_not_there(dsn: str) -> None:
    async with Desk.at(dsn, PoolLimits(size=4)) as desk:
        calls = [asyncio.create_task(open_ticket(desk, key="k")) for _ in range(40)]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        for call in calls[::2]:
            call.cancel()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert not any(isinstance(answer, ServiceError) for answer in answers)
        rows = await counts(desk)
        assert rows["support_tickets"] == rows["ticket_events"] == rows["idempotency_keys"]
        assert rows["support_tickets"] >= sum(isinstance(answer, Ticket) for answer in answers)
