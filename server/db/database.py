"""The one door to PostgreSQL for the API: a bounded pool, prepared statements, errors in the service's terms."""

import asyncio
import select
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

import psycopg
import structlog
from psycopg import AsyncConnection, AsyncRawCursor, errors
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import RowMaker
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from server import telemetry
from server.db.pipeline import READS, WRITES, AnswerLost, Pipeline, Unanswered
from server.db.statement import Sharing, Statement
from server.errors import (
    AgentAtCapacity,
    AgentNotActive,
    DeadlineExceeded,
    DependencyUnavailable,
    Overloaded,
    ServiceError,
)

R = TypeVar("R")

_log = structlog.stdlib.get_logger("nibble.database")

CONNECT_TIMEOUT_SECONDS = 3
RECONNECT_SECONDS = 2.0
CLOSE_SECONDS = 1.0
# What PostgreSQL gets to stop the statement of a call that has ended, before its connection is given up.
CANCEL_SECONDS = 0.5
# psycopg looks so often whether its socket was closed meanwhile.
WAIT_SECONDS = 0.1
# Where nothing comes back any more, not even an acknowledgement, a connection is dead after so long: in seconds, the
# last one in milliseconds. The URL of the database may say otherwise; a Unix socket has no use for them.
LIVELINESS = {
    "connect_timeout": CONNECT_TIMEOUT_SECONDS,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
# For a lock that takes longer, a write waits on a connection of its own: those beside it would wait too.
LOCK_MS = 20
# PostgreSQL has `transaction_timeout` from version 17 on.
_BOUND_TRANSACTIONS = "SELECT set_config(name, $1, false) FROM pg_settings WHERE name = 'transaction_timeout'"
# What a worker's statement may take, and how long a worker may say nothing amid a transaction.
WORKER_STATEMENT_MS = 30_000
WORKER_SILENCE_MS = 30_000
# Among ten million tickets PostgreSQL thinks what deletes a few old events so large that it would compile it each time,
# for longer than it runs; the longer lists are not far from that.
_NO_JIT = "-c jit=off"


class StatementFailed(Exception):
    """A statement failed in a way that its caller can't have caused: a defect, or a database that is not as expected.

    The message leaves out PostgreSQL's DETAIL, which quotes rows and so what callers wrote.
    """

    def __init__(self, error: psycopg.Error) -> None:
        named = [error.sqlstate, error.diag.message_primary, error.diag.constraint_name]
        super().__init__(" ".join([type(error).__name__, *(text for text in named if text)]))


REFUSED_BY: dict[str, type[ServiceError]] = {
    "agents_within_capacity": AgentAtCapacity,
    "agents_active": AgentNotActive,
}
"""The constraints that callers can run into, by name; their DETAIL is the assignee's id."""


class PoolLimits(NamedTuple):
    """How much of the database one process may take. Times in seconds."""

    size: int = 8
    """Connections, those of the pipelines included."""
    max_waiting: int = 200
    timeout: float = 3.0
    statement_timeout: float = 8.0


class _Connection(AsyncConnection[tuple[Any, ...]]):
    """A connection that a cancelled call gives up where PostgreSQL does not stop its statement within CANCEL_SECONDS.

    psycopg asks PostgreSQL to stop and waits for that, ten seconds in all: a frozen server would hold calls long past
    their deadline. A second interruption makes it close the connection at once, and the pool makes a new one.
    """

    _patience: asyncio.Timeout | None = None

    async def wait(
        self,
        gen: PQGen[R],
        interval: float = WAIT_SECONDS,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is psycopg's
    ) -> R:
        """As psycopg's, but bounded once the task has been cancelled."""
        async with asyncio.timeout(None) as self._patience:
            return await super().wait(gen, interval, timeout)

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:  # noqa: ASYNC109
        """As psycopg's, which calls it when a task that waits for a result is cancelled."""
        if self._patience is not None and not self._patience.expired():
            self._patience.reschedule(asyncio.get_running_loop().time() + CANCEL_SECONDS)
        await super().cancel_safe(timeout=timeout)


class Database:
    """Runs compiled statements, each its own transaction, prepared and with binary results.

    Raises, from every method:
        Overloaded: no connection came free in time, or the queue for one is full, while all of them work.
        DependencyUnavailable: PostgreSQL can't be reached.
        DeadlineExceeded: PostgreSQL stopped the statement at the statement timeout.
        AgentAtCapacity, AgentNotActive: what a constraint refused; see REFUSED_BY.
        StatementFailed: anything else that PostgreSQL refused.
    """

    def __init__(
        self,
        dsn: str,
        limits: PoolLimits,
        probe: Statement,
        shared: Sequence[Sharing] = (),
        *,
        tells_of_trouble: bool = True,
    ) -> None:
        """Args:
        probe: a statement without parameters that works as soon as the schema is in place.
        shared: the statements that are sent over a pipeline, as far as that leaves the others a connection.
        tells_of_trouble: log a line when PostgreSQL goes and one when it is back; False where the caller does.
        """
        self._probe = probe
        self._tells_of_trouble = tells_of_trouble
        self._dsn = with_liveliness(dsn)
        self._session: dict[str, Any] = {
            "autocommit": True,
            "cursor_factory": AsyncRawCursor,
            "options": _session(limits),
        }
        self._pipelines = {sharing: self._pipeline(sharing) for sharing in shared[: limits.size - 1]}
        self._size = limits.size - len(self._pipelines)
        # Twice what a statement may take: that stops the statement alone, this ends the session.
        self._longest_batch = f"{int(limits.statement_timeout * 2000)}ms"
        self._working = 0
        """Calls that hold a connection."""
        self._check: asyncio.Task[None] | None = None
        self._asking_why: asyncio.Task[None] | None = None
        self._trouble_told = False
        self._pool = AsyncConnectionPool(
            self._dsn,
            min_size=min(2, self._size),
            max_size=self._size,
            max_waiting=limits.max_waiting,
            timeout=limits.timeout,
            # The pool doubles its pause between attempts to connect as long as it tries; a new round, which the next
            # call begins, starts with a short one, so that PostgreSQL is found soon after it is back.
            reconnect_timeout=RECONNECT_SECONDS,
            connection_class=_Connection,
            check=self._refuse_dead,
            kwargs=self._session,
            open=False,
            name="api",
        )
        telemetry.DB_CONNECTIONS.set_function(self._connections)
        telemetry.DB_WAITING.set_function(lambda: self._pool.get_stats().get("requests_waiting", 0))

    async def open(self) -> None:
        """Open the pool without waiting for PostgreSQL: calls are refused until it answers."""
        await self._pool.open(wait=False)
        for pipeline in self._pipelines.values():
            pipeline.open()

    async def close(self) -> None:
        """Close every connection, waiting little for those that do not answer."""
        if self._asking_why is not None:
            self._asking_why.cancel()
        for pipeline in self._pipelines.values():
            await pipeline.close()
        await self._pool.close(timeout=CLOSE_SECONDS)

    async def problem(self) -> str | None:
        """What keeps this database from being worked with, in words; None where nothing does.

        Asked over a connection of its own, since the pool would only say that it has none.
        """
        try:
            async with await _Connection.connect(self._dsn, cursor_factory=AsyncRawCursor) as connection:
                await connection.execute(self._probe.sql)
        except errors.UndefinedTable:
            return "the schema is missing: run the migrations"
        except psycopg.Error as error:
            return str(error).strip()
        return None

    async def fetch_all(
        self, statement: Statement, values: Mapping[str, object], make: Callable[[tuple[Any, ...]], R]
    ) -> list[R]:
        """Every row of the result, each through `make`."""
        pipeline = self._pipelines.get(statement.sharing)
        if pipeline is None:
            return await self._fetch_by_pool(statement, values, make)
        try:
            rank = values["ticket_id"] if statement.sharing is Sharing.WRITES else 0
            rows = await pipeline.fetch(statement.sql, statement.bind(values), _row_maker(make), rank)
        except Unanswered:
            return await self._fetch_by_pool(statement, values, make)
        except AnswerLost as error:
            if statement.sharing is Sharing.READS:
                return await self._fetch_by_pool(statement, values, make)
            self._ask_why(error)
            raise DependencyUnavailable from error
        self._tell_that_it_is_over()
        return rows

    async def _fetch_by_pool(
        self, statement: Statement, values: Mapping[str, object], make: Callable[[tuple[Any, ...]], R]
    ) -> list[R]:
        cancelled = _cancellations()
        try:
            async with self._pool.connection() as connection:
                self._working += 1
                try:
                    if _cancellations() > cancelled:
                        # The pool waits by `wait_for`: until Python 3.12 that loses one that comes with the connection.
                        raise asyncio.CancelledError
                    rows = [make(row) for row in await _run(connection, statement, values)]
                    self._tell_that_it_is_over()
                    return rows
                finally:
                    self._working -= 1
        except (TooManyRequests, PoolTimeout) as error:
            # The pool says the same where there are no connections to be had and where all of them are busy.
            if self._working >= self._size:
                raise Overloaded from error
            self._ask_why(error)
            raise DependencyUnavailable from error
        except PoolClosed as error:
            raise DependencyUnavailable from error
        except errors.QueryCanceled as error:
            raise DeadlineExceeded from error
        except (psycopg.OperationalError, errors.ReadOnlySqlTransaction) as error:
            self._drop_dead_connections()
            self._ask_why(error)
            raise DependencyUnavailable from error
        except psycopg.Error as error:
            raise _refusal(error) or StatementFailed(error) from None

    async def _refuse_dead(self, connection: AsyncConnection[Any]) -> None:
        """Close an idle connection on which PostgreSQL has said something unasked, its farewell as a rule.

        So no call fails for a restart of PostgreSQL that is over. It asks the kernel alone: a question to PostgreSQL
        before every statement would cost as much as many statements do. The other idle ones are tested at once, since
        the pool takes seconds over them: it pauses longer after each that is refused.

        Raises:
            psycopg.OperationalError: the pool is to hand out another one.
        """
        looking = select.poll()
        looking.register(connection.pgconn.socket, select.POLLIN)
        if looking.poll(0):
            self._drop_dead_connections()
            await connection.close()
            raise psycopg.OperationalError("the connection ended while it was idle")

    def _pipeline(self, sharing: Sharing) -> Pipeline:
        if sharing is Sharing.READS:
            return Pipeline(self._connect, READS)
        return Pipeline(partial(self._connect, f"-c lock_timeout={LOCK_MS}"), WRITES)

    async def _connect(self, options: str = "") -> AsyncConnection[Any]:
        """A connection for a pipeline.

        A batch of which only a part arrives, since this process is frozen or cut off, is rolled back some time: else it
        would hold its locks until PostgreSQL learns that nobody is there.
        """
        session = self._session | {"options": f"{self._session['options']} {options}"}
        connection = await _Connection.connect(self._dsn, **session)
        try:
            await connection.execute(_BOUND_TRANSACTIONS, [self._longest_batch])
        except BaseException:
            await connection.close()
            raise
        return connection

    def _connections(self) -> int:
        shared = sum(pipeline.is_connected for pipeline in self._pipelines.values())
        return self._pool.get_stats().get("pool_size", 0) + shared

    def _drop_dead_connections(self) -> None:
        """Test the idle connections in the background: after a restart of PostgreSQL each would cost one more call."""
        if self._check is None or self._check.done():
            self._check = asyncio.create_task(self._pool.check())

    def _ask_why(self, error: Exception) -> None:
        """Say what is wrong, once for all calls that fail: the pool tells them only that it has no connection."""
        if self._tells_of_trouble and not self._trouble_told and (self._asking_why is None or self._asking_why.done()):
            self._asking_why = asyncio.create_task(self._tell_why(error))

    async def _tell_why(self, error: Exception) -> None:
        problem = await self.problem()
        _log.warning("the database does not answer as it should", problem=problem or str(error).strip())
        self._trouble_told = True

    def _tell_that_it_is_over(self) -> None:
        if self._trouble_told:
            _log.info("the database answers again")
        self._trouble_told = False

    async def fetch_one(
        self, statement: Statement, values: Mapping[str, object], make: Callable[[tuple[Any, ...]], R]
    ) -> R | None:
        """The first row of the result through `make`, or None where there is none."""
        rows = await self.fetch_all(statement, values, make)
        return rows[0] if rows else None


def _refusal(error: psycopg.Error) -> ServiceError | None:
    """What a caller is told where a constraint says no; None where that is no caller's doing."""
    refused = REFUSED_BY.get(error.diag.constraint_name or "")
    return refused(assigned_to=error.diag.message_detail) if refused else None


def _row_maker(make: Callable[[tuple[Any, ...]], R]) -> RowMaker[R]:
    """psycopg hands out tuples, and says that they are sequences."""
    return cast("RowMaker[R]", make)


async def _run(
    connection: AsyncConnection[Any], statement: Statement, values: Mapping[str, object]
) -> list[tuple[Any, ...]]:
    cursor = connection.cursor(binary=True)
    try:
        await cursor.execute(statement.sql, statement.bind(values), prepare=True)
    except errors.FeatureNotSupported:
        # Prepared for tables that have been altered since, it would fail as long as the connection lasts.
        await connection.close()
        raise
    return await cursor.fetchall()


def _cancellations() -> int:
    """How many the running task was asked for."""
    task = asyncio.current_task()
    return task.cancelling() if task else 0


def with_liveliness(dsn: str) -> str:
    """The URL with LIVELINESS for what it does not say itself."""
    said = conninfo_to_dict(dsn)
    return make_conninfo(dsn, **{name: value for name, value in LIVELINESS.items() if name not in said})


def worker_session() -> str:
    """Session settings of a worker, which has a connection of its own.

    One that is frozen amid a transaction loses it, and with it the locks that its successor would wait for without end.
    """
    return (
        f"-c statement_timeout={WORKER_STATEMENT_MS} -c timezone=UTC"
        f" -c idle_in_transaction_session_timeout={WORKER_SILENCE_MS} {_NO_JIT}"
    )


def _session(limits: PoolLimits) -> str:
    """Session settings as PostgreSQL takes them at connection time.

    Each statement is planned once, for any parameters: the lists are written so that one plan fits all, which the tests
    look at. Left to choose, PostgreSQL plans the longer ones anew at every call, which takes longer than running them.
    """
    timeout = int(limits.statement_timeout * 1000)
    return f"-c statement_timeout={timeout} -c timezone=UTC -c plan_cache_mode=force_generic_plan {_NO_JIT}"
