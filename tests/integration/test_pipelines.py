"""Statements that share a connection: each gets its own rows, and none suffers from its neighbours."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from operator import itemgetter
from typing import Any, NamedTuple

import psutil
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.json import Jsonb

from devstack.stack import Stack
from server.db.database import LOCK_MS, Database, PoolLimits, StatementFailed
from server.db.statement import SHARED, Sharing, Statement
from server.db.statements import PROBE
from server.domain.tickets import Ticket
from server.errors import DependencyUnavailable
from tests.frozen import frozen
from tests.integration.vocabulary import (
    EMPTY,
    Desk,
    as_agent,
    comments_on,
    counts,
    events_of,
    look_at,
    move,
    open_ticket,
    owner_of,
    query,
    say,
    until,
    whole,
)

NUMBER = Statement("SELECT $1::integer, pg_backend_pid()", ("number",), sharing=Sharing.READS)
SERIES = Statement("SELECT n FROM generate_series(1, $1::integer) n", ("number",), sharing=Sharing.READS)
INVERSE = Statement("SELECT 1 / $1::integer", ("number",), sharing=Sharing.READS)
LENGTH = Statement("SELECT length($1::text), pg_backend_pid()", ("text",), sharing=Sharing.READS)
SLOW = NUMBER._replace(sql=f"{NUMBER.sql} FROM pg_sleep($2::float8)", names=("number", "seconds"))
PREPARED = Statement(
    "SELECT count(*), pg_backend_pid() FROM pg_prepared_statements WHERE name LIKE 'shared%'", (), sharing=Sharing.READS
)
DOCUMENT = Statement("SELECT $1::jsonb", ("document",), sharing=Sharing.READS)
BOWLS = Statement("SELECT number, pg_backend_pid() FROM bowls", (), sharing=Sharing.READS)
TOUCH = Statement(
    "UPDATE admin_service.support_tickets SET version = version WHERE id = $1::uuid"
    " RETURNING current_setting('lock_timeout')",
    ("ticket_id",),
    sharing=Sharing.WRITES,
)
# As it goes over the wire.
SYNC = b"S\0\0\0\4"
SESSIONS = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'
"""


class Answer(NamedTuple):
    """A number, and the pid of the session that gave it."""

    number: int
    session: int


@asynccontextmanager
async def database(dsn: str) -> AsyncIterator[Database]:
    """One whose pipeline is connected."""
    db = Database(dsn, PoolLimits(size=3), PROBE, SHARED)
    await db.open()
    try:
        await until_shared(db)
        yield db
    finally:
        await db.close()


async def ask(db: Database, number: int, statement: Statement = NUMBER, **values: object) -> Answer:
    """The number again."""
    answer = await db.fetch_one(statement, {"number": number, **values}, Answer._make)
    assert answer is not None
    return answer


async def asked_at_once(db: Database, count: int) -> list[Answer]:
    """The numbers from 0 on."""
    return await asyncio.gather(*(ask(db, number) for number in range(count)))


async def until_shared(db: Database) -> None:
    """Wait until reads are answered by the pipeline, whose statements have names of their own."""

    async def shared() -> bool:
        return (await ask(db, 0, PREPARED)).number > 0

    await until(shared)


async def until_elsewhere(db: Database, session: int) -> None:
    """Wait until reads are answered by another session than this one, which is busy."""

    async def elsewhere() -> bool:
        try:
            async with asyncio.timeout(0.1):
                return (await ask(db, 0)).session != session
        except TimeoutError:
            return False

    await until(elsewhere)


async def until_at_work(admin: psycopg.Connection[Any], session: int) -> None:
    """Wait until the session runs a statement."""
    statement = "SELECT state = 'active' FROM pg_stat_activity WHERE pid = %s"

    async def at_work() -> bool:
        return admin.execute(statement, [session]).fetchone() == (True,)

    await until(at_work)


async def test_reads_at_once_share_a_session_and_each_gets_its_own_rows(dsn: str) -> None:
    async with database(dsn) as db:
        answers = await asked_at_once(db, 40)
        assert [answer.number for answer in answers] == list(range(40))
        assert len({answer.session for answer in answers}) == 1
        series = [db.fetch_all(SERIES, {"number": number}, itemgetter(0)) for number in range(40)]
        assert await asyncio.gather(*series) == [list(range(1, number + 1)) for number in range(40)]


async def test_a_read_that_fails_says_so_and_its_neighbours_get_their_rows(dsn: str) -> None:
    async with database(dsn) as db:
        for _ in range(3):
            neighbours = [ask(db, number) for number in range(10)]
            failing = db.fetch_all(INVERSE, {"number": 0}, tuple)
            *answers, failure = await gathered(*neighbours[:5], *neighbours[5:], failing)
            assert [answer.number for answer in answers] == list(range(10))
            assert isinstance(failure, StatementFailed)
            await until_shared(db)


async def gathered(*work: Awaitable[Any]) -> list[Any]:
    """What each came to."""
    return await asyncio.gather(*work, return_exceptions=True)


async def test_rows_that_can_not_be_made_are_the_failure_of_their_own_caller(dsn: str) -> None:
    def refuse(_row: tuple[Any, ...]) -> int:
        raise ValueError("no such row")

    async with database(dsn) as db:
        failure, answer = await gathered(db.fetch_all(NUMBER, {"number": 1}, refuse), ask(db, 2))
        assert (str(failure), answer.number) == ("no such row", 2)


async def test_a_cancelled_caller_cancels_no_neighbour(dsn: str) -> None:
    async with database(dsn) as db:
        calls = [asyncio.create_task(ask(db, number, SLOW, seconds=0.01)) for number in range(6)]
        for rounds, call in enumerate(calls[::2]):
            for _ in range(rounds):
                await asyncio.sleep(0)
            call.cancel()
        answers = await gathered(*calls)
        assert [type(answer) for answer in answers[::2]] == [asyncio.CancelledError] * 3
        assert [answer.number for answer in answers[1::2]] == [1, 3, 5]


async def test_nobody_waits_behind_a_read_that_turns_out_to_be_slow(dsn: str) -> None:
    async with database(dsn) as db:
        session = (await ask(db, 0)).session
        slow = asyncio.create_task(ask(db, 1, SLOW, seconds=5.0))
        await until_elsewhere(db, session)
        async with asyncio.timeout(4):
            answers = await asked_at_once(db, 20)
        assert [answer.number for answer in answers] == list(range(20))
        assert not slow.done()
        slow.cancel()
        await gathered(slow)


async def test_reads_that_were_under_way_when_their_session_ended_are_answered_all_the_same(dsn: str) -> None:
    async with database(dsn) as db:
        session = (await ask(db, 0)).session
        calls = [asyncio.create_task(ask(db, number, SLOW, seconds=0.2)) for number in range(4)]
        with psycopg.connect(dsn, autocommit=True) as admin:
            await until_at_work(admin, session)
            admin.execute("SELECT pg_terminate_backend(%s, 5000)", [session])
        assert [answer.number for answer in await asyncio.gather(*calls)] == list(range(4))
        await until_shared(db)
        assert (await ask(db, 0)).session != session


async def test_a_parameter_that_no_socket_takes_at_once_is_sent_whole(dsn: str) -> None:
    async with database(dsn) as db:
        session = (await ask(db, 0)).session
        long = "x" * 20_000_000
        answers = [db.fetch_one(LENGTH, {"text": long}, Answer._make) for _ in range(2)]
        assert await asyncio.gather(*answers, ask(db, 7)) == [(len(long), session), (len(long), session), (7, session)]


async def test_a_session_that_is_frozen_is_joined_by_nobody_and_ended_by_nobody(own_dsn: str, stack: Stack) -> None:
    async with database(own_dsn) as db:
        session = (await ask(db, 0)).session
        with frozen([psutil.Process(session)]):
            waiting = asyncio.create_task(ask(db, 1))
            await until_elsewhere(db, session)
            assert not waiting.done()
        assert await waiting == (1, session)
        await until_shared(db)
        assert stack.part("postgres").pid  # the server lives


@pytest.mark.parametrize("size", [1, 2, 4])
async def test_the_pipeline_is_one_of_the_connections_that_a_process_may_take(own_dsn: str, size: int) -> None:
    db = Database(own_dsn, PoolLimits(size=size), PROBE, SHARED)
    await db.open()
    try:
        for _ in range(2):
            answers = [ask(db, number, SLOW, seconds=0.03) for number in range(20)]
            assert [answer.number for answer in await asyncio.gather(*answers)] == list(range(20))
        with psycopg.connect(own_dsn) as admin:
            (sessions,) = admin.execute(SESSIONS).fetchone() or (0,)
        assert sessions - 1 <= size
    finally:
        await db.close()


# --- Inserts ----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def desk_with_pipelines(dsn: str) -> AsyncIterator[Desk]:
    """One whose creates are sent together."""
    async with Desk.at(dsn, PoolLimits(size=4)) as desk:

        async def together() -> bool:
            before = await transactions(desk)
            await asyncio.gather(*(open_ticket(desk) for _ in range(9)))
            return await transactions(desk) - before < 9

        await until(together)
        await query(desk, EMPTY)
        yield desk


async def transactions(desk: Desk) -> int:
    """How many have created a ticket."""
    (row,) = await query(desk, "SELECT count(DISTINCT xmin::text) FROM admin_service.support_tickets")
    return int(row["count"])


async def assert_whole(desk: Desk) -> None:
    """Every ticket has its one event, and there is no other."""
    rows = await query(
        desk,
        "SELECT count(e.id) AS events, count(DISTINCT t.id) AS tickets FROM admin_service.support_tickets t"
        " FULL JOIN admin_service.ticket_events e ON e.ticket_id = t.id GROUP BY coalesce(t.id, e.ticket_id)",
    )
    assert {(row["events"], row["tickets"]) for row in rows} <= {(1, 1)}


async def test_creates_at_once_share_commits_and_each_answers_with_its_own_ticket(dsn: str) -> None:
    async with desk_with_pipelines(dsn) as desk:
        subjects = [f"Soup {number}" for number in range(60)]
        tickets = await asyncio.gather(*(open_ticket(desk, subject=subject) for subject in subjects))
        assert [ticket.subject for ticket in tickets] == subjects
        assert await transactions(desk) < 20
        assert await asyncio.gather(*(look_at(desk, ticket) for ticket in tickets)) == tickets
        await assert_whole(desk)


async def test_a_create_that_postgresql_refuses_takes_no_neighbour_with_it(own_dsn: str) -> None:
    async with desk_with_pipelines(own_dsn) as desk:
        await query(
            desk, "ALTER TABLE admin_service.support_tickets ADD CONSTRAINT no_soup CHECK (subject <> 'No soup')"
        )
        for _ in range(3):
            subjects = ["Soup"] * 7 + ["No soup"] + ["Soup"] * 7
            answers = await gathered(*(open_ticket(desk, subject=subject) for subject in subjects))
            refused = [answer for answer in answers if not isinstance(answer, Ticket)]
            assert [type(each) for each in refused] == [StatementFailed]
            assert "no_soup" in str(refused[0])
        assert (await counts(desk))["support_tickets"] == 3 * 14
        await assert_whole(desk)


async def test_a_cancelled_create_cancels_no_neighbour(dsn: str) -> None:
    async with desk_with_pipelines(dsn) as desk:
        for rounds in range(20):
            calls = [asyncio.create_task(open_ticket(desk)) for _ in range(10)]
            for _ in range(rounds):
                await asyncio.sleep(0)
            for call in calls[::2]:
                call.cancel()
            answers = await gathered(*calls)
            assert [type(answer) for answer in answers[1::2]] == [Ticket] * 5
        await assert_whole(desk)


async def test_no_create_is_made_twice_or_by_half_where_its_session_ends_in_the_middle(dsn: str) -> None:
    async with desk_with_pipelines(dsn) as desk:
        created = unavailable = 0
        while not unavailable:
            calls = [asyncio.create_task(open_ticket(desk)) for _ in range(200)]
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            await query(
                desk,
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND query LIKE '%%support_tickets%%' AND pid <> pg_backend_pid()",
            )
            answers = await gathered(*calls)
            assert {type(answer) for answer in answers} <= {Ticket, DependencyUnavailable}
            created += sum(isinstance(answer, Ticket) for answer in answers)
            unavailable += sum(isinstance(answer, DependencyUnavailable) for answer in answers)
        rows = (await counts(desk))["support_tickets"]
        assert created <= rows <= created + unavailable
        await assert_whole(desk)


async def test_comments_at_once_on_one_ticket_are_all_there_each_with_its_event(dsn: str) -> None:
    async with desk_with_pipelines(dsn) as desk, desk_with_pipelines(dsn) as other:
        tickets = [await open_ticket(desk) for _ in range(3)]
        said = [say(d, ticket, as_agent(), text=str(n)) for n in range(20) for ticket in tickets for d in (desk, other)]
        await asyncio.gather(*said)
        for ticket in tickets:
            events = await events_of(desk, ticket)
            assert [event["sequence"] for event in events] == list(range(1, 42))
            assert len(await whole(comments_on(desk, ticket))) == 40


async def test_nobody_waits_behind_a_comment_on_a_ticket_that_somebody_holds(dsn: str) -> None:
    async with desk_with_pipelines(dsn) as desk:
        held, free = await open_ticket(desk), await open_ticket(desk)
        async with await psycopg.AsyncConnection.connect(desk.dsn) as holder:
            await holder.execute(b"SELECT FROM admin_service.support_tickets WHERE id = %s FOR UPDATE", [held.id])
            waiting = asyncio.create_task(say(desk, held))
            for _ in range(5):
                async with asyncio.timeout(2):
                    await asyncio.gather(say(desk, free), open_ticket(desk))
            assert not waiting.done()
            await holder.rollback()
        await waiting
        assert [event["event_type"] for event in await events_of(desk, held)] == ["ticket_created", "ticket_commented"]


async def test_two_comments_of_one_batch_on_a_resolved_ticket_reopen_it_once(dsn: str) -> None:
    async with desk_with_pipelines(dsn) as desk:
        ticket = await move(desk, await open_ticket(desk), "resolved")
        await asyncio.gather(*(say(desk, ticket, owner_of(ticket)) for _ in range(4)))
        events = [event["event_type"] for event in await events_of(desk, ticket)]
        assert (events.count("ticket_commented"), events.count("ticket_status_changed")) == (4, 2)
        assert (await look_at(desk, ticket)).version == 3


# --- What is wrong with a batch ---------------------------------------------------------------------------------------


async def test_parameters_that_can_not_be_sent_are_the_failure_of_their_own_caller(dsn: str) -> None:
    async with database(dsn) as db:
        session = (await ask(db, 0)).session
        async with asyncio.timeout(5):
            unsendable = db.fetch_all(DOCUMENT, {"document": Jsonb(object())}, tuple)
            first, failure, last = await gathered(ask(db, 1), unsendable, ask(db, 2))
        assert (first, type(failure), last) == ((1, session), TypeError, (2, session))
        await until_shared(db)
        assert (await ask(db, 3)).session == session


async def test_a_shared_statement_is_prepared_anew_when_its_table_was_altered(own_dsn: str) -> None:
    async with database(own_dsn) as db:
        session = (await ask(db, 0)).session
        alter(own_dsn, "CREATE TABLE bowls (number integer)", "INSERT INTO bowls VALUES (1)")
        assert (await answers_of(db, BOWLS)) == [(1, session)]
        alter(own_dsn, "ALTER TABLE bowls ALTER number TYPE bigint")
        assert [number for number, _ in await answers_of(db, BOWLS)] == [1]
        assert (await answers_of(db, BOWLS)) == [(1, session)]


async def test_a_statement_on_its_own_fails_once_when_its_table_was_altered(own_dsn: str) -> None:
    db = Database(own_dsn, PoolLimits(size=1), PROBE)
    await db.open()
    try:
        alter(own_dsn, "CREATE TABLE bowls (number integer)", "INSERT INTO bowls VALUES (1)")
        ((_, session),) = await answers_of(db, BOWLS)
        alter(own_dsn, "ALTER TABLE bowls ALTER number TYPE bigint")
        with pytest.raises(StatementFailed, match="cached plan"):
            await answers_of(db, BOWLS)
        ((number, another),) = await answers_of(db, BOWLS)
        assert (number, another != session) == (1, True)
    finally:
        await db.close()


def alter(dsn: str, *statements: str) -> None:
    """Change what the tables are."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        for statement in statements:
            admin.execute(statement.encode())


async def answers_of(db: Database, statement: Statement) -> list[Answer]:
    """One for each row."""
    return await db.fetch_all(statement, {}, Answer._make)


class Line:
    """Lies between a client and PostgreSQL. When it is cut, what the client sends next arrives without its sync."""

    def __init__(self, dsn: str) -> None:
        to = conninfo_to_dict(dsn)
        self.is_cut = False
        self._path = f"{to['host']}/.s.PGSQL.{to['port']}"
        self._ends: list[asyncio.StreamWriter] = []

    @classmethod
    @asynccontextmanager
    async def laid(cls, dsn: str) -> AsyncIterator[tuple["Line", str]]:
        """A line to that database, and the URL of its other end."""
        line = cls(dsn)
        server = await asyncio.start_server(line._join, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        try:
            yield line, make_conninfo(dsn, host=host, port=port)
        finally:
            server.close()
            for end in line._ends:
                end.close()
                await gathered(end.wait_closed())

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_unix_connection(self._path)
        self._ends += writer, forth
        await asyncio.gather(self._pass_on(reader, forth), self._pass_on(back, writer))

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            sink.write(data.removesuffix(SYNC) if self.is_cut else data)
        sink.close()


async def test_a_batch_whose_end_does_not_arrive_holds_its_locks_for_a_while_only(dsn: str) -> None:
    async with Desk.at(dsn) as desk, Line.laid(dsn) as (line, far):
        ticket = await open_ticket(desk)
        db = Database(far, PoolLimits(size=3, statement_timeout=0.5), PROBE, SHARED)
        await db.open()
        try:
            await until_shared(db)
            await until_locking_is_shared(db, ticket)
            line.is_cut = True
            holding = asyncio.create_task(db.fetch_all(TOUCH, {"ticket_id": ticket.id}, tuple))
            await until_locked(desk, ticket)
            async with asyncio.timeout(5):
                await say(desk, ticket)
                with pytest.raises(DependencyUnavailable):
                    await holding
        finally:
            await db.close()


async def until_locking_is_shared(db: Database, ticket: Ticket) -> None:
    """Wait until writes have their session."""

    async def shared() -> bool:
        touched = await db.fetch_all(TOUCH, {"ticket_id": ticket.id}, itemgetter(0))
        return touched == [f"{LOCK_MS}ms"]

    await until(shared)


async def until_locked(desk: Desk, ticket: Ticket) -> None:
    """Wait until somebody holds the ticket."""
    statement = "SELECT FROM admin_service.support_tickets WHERE id = %s FOR UPDATE SKIP LOCKED"

    async def locked() -> bool:
        return not await query(desk, statement, ticket.id)

    await until(locked)
