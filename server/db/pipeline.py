"""The statements of many callers over one connection, in PostgreSQL's pipeline mode.

A statement neither waits for a connection to come free nor for a round trip of its own: those that come in the same
turn of the event loop are sent together, and so are those that come while a batch of writes is being committed. That
is what a pool spends most of its time on, since most statements take PostgreSQL less time than the pool takes to lend
a connection; and writes that are sent together share a commit.

Between two syncs a pipeline is one transaction. So a statement that fails takes its neighbours with it, and all of them
are told to ask elsewhere, each on its own: nothing has taken place then. Locks are held until the sync: writes are sent
in the order of what they lock, so that two pipelines can't wait for each other, and fail where a lock takes its time.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg import AsyncConnection, pq
from psycopg.adapt import PyFormat, Transformer
from psycopg.rows import RowMaker

R = TypeVar("R")

Connect = Callable[[], Awaitable[AsyncConnection[Any]]]

RECONNECT_SECONDS = 0.5
# With so many on their way or waiting the next one is better off elsewhere.
MOST_ADDED = 64
# A batch that takes longer is one that others should not wait behind. A busy event loop takes some of that time itself,
# and is no reason to do without what saves it work.
STALLED_SECONDS = 0.1

_ANSWERED = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)
# "cached plan must not change result type", and a statement of whose name PostgreSQL knows nothing.
_OUTDATED = (b"0A000", b"26000")


class Unanswered(Exception):
    """The statement has had no effect here; run it over a connection of its own."""


class AnswerLost(Exception):
    """The session ended while the statement was under way: whether it has had its effect is not known."""


class Habits(NamedTuple):
    """How a pipeline is used."""

    most_batches: int
    """How many batches may be under way. With one, whatever comes meanwhile makes up the next one."""
    are_answers_final: bool
    """Whether rows are handed out as they come, since nothing is committed; else at the end of their batch."""


READS = Habits(most_batches=MOST_ADDED, are_answers_final=True)
# A batch that waits for the commit of the one before it grows meanwhile, and one commit does for all of it.
WRITES = Habits(most_batches=1, are_answers_final=False)


class _Asked(NamedTuple):
    """A statement with its parameters, what each row becomes, and where the rows go."""

    sql: str
    parameters: Sequence[object]
    make: RowMaker[Any]
    rank: Any
    answer: asyncio.Future[list[Any]]

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


_RANK = attrgetter("rank")


class _Preparing(NamedTuple):
    """A statement that is being prepared: its text and the types of its parameters."""

    sql: str
    types: Sequence[int]


_Step = _Asked | _Preparing


class _Batch:
    """What was sent between two syncs."""

    def __init__(self, sent_at: float) -> None:
        self.sent_at = sent_at
        self.steps: deque[_Step] = deque()
        """What has no result so far."""
        self.rows: list[tuple[_Asked, list[Any]]] = []
        self.asked: list[_Asked] = []
        self.has_failed = False

    def end(self) -> None:
        """Hand out the answers, which hold from now on."""
        if self.has_failed:
            self.fail(Unanswered())
        for asked, rows in self.rows:
            if not asked.answer.done():
                asked.answer.set_result(rows)

    def fail(self, error: Exception) -> None:
        for asked in self.asked:
            asked.fail(error)


class _Session:
    """One connection in pipeline mode, until it is lost."""

    def __init__(self, connection: AsyncConnection[Any], habits: Habits) -> None:
        self.lost = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._habits = habits
        self._pgconn = connection.pgconn
        self._socket = connection.pgconn.socket
        self._values = Transformer(connection)
        self._waiting: list[_Asked] = []
        self._under_way: deque[_Batch] = deque()
        self._names: dict[_Preparing, bytes] = {}
        self._prepared = 0
        self._pgconn.enter_pipeline_mode()
        self._loop.add_reader(self._socket, self._on_results)

    @property
    def has_room(self) -> bool:
        """Whether a statement that comes now is answered soon."""
        if self.lost.is_set() or len(self._waiting) >= MOST_ADDED:
            return False
        batches = self._under_way
        return not batches or (len(batches) < MOST_ADDED and self._loop.time() - batches[0].sent_at < STALLED_SECONDS)

    def add(self, asked: _Asked) -> None:
        """Send the statement with all others of this turn of the event loop, or with those that wait."""
        self._waiting.append(asked)
        if len(self._waiting) == 1 and len(self._under_way) < self._habits.most_batches:
            self._loop.call_soon(self._send)

    def lose(self) -> None:
        """Give the connection up; whoever waits is told."""
        if self.lost.is_set():
            return
        self.lost.set()
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        for batch in self._under_way:
            batch.fail(AnswerLost())
        for asked in self._waiting:
            asked.fail(Unanswered())

    def _send(self) -> None:
        if self.lost.is_set():
            return
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return  # they went with the end of the batch before
        batch = _Batch(self._loop.time())
        self._under_way.append(batch)
        try:
            for asked in sorted(waiting, key=_RANK) if len(waiting) > 1 else waiting:
                self._send_one(asked, batch)
            self._pgconn.pipeline_sync()
            self._flush()
        except psycopg.Error:
            self.lose()
            for asked in waiting:
                asked.fail(Unanswered())  # but for those that were sent, which have been told

    def _send_one(self, asked: _Asked, batch: _Batch) -> None:
        if asked.answer.done():
            return  # its caller has gone meanwhile
        try:
            parameters = self._values.dump_sequence(asked.parameters, [PyFormat.AUTO] * len(asked.parameters))
        except Exception:  # noqa: BLE001 - whatever is wrong with them, its neighbours are to be sent all the same
            asked.fail(Unanswered())
            return
        batch.asked.append(asked)
        name = self._name(_Preparing(asked.sql, self._values.types or ()), batch)
        self._pgconn.send_query_prepared(name, parameters, self._values.formats, pq.Format.BINARY)
        batch.steps.append(asked)

    def _name(self, wanted: _Preparing, batch: _Batch) -> bytes:
        name = self._names.get(wanted)
        if name is None:
            self._prepared += 1
            name = self._names[wanted] = b"shared_%d" % self._prepared
            self._pgconn.send_prepare(name, wanted.sql.encode(), wanted.types)
            batch.steps.append(wanted)
        return name

    def _flush(self) -> None:
        if self._pgconn.flush():
            self._loop.add_writer(self._socket, self._on_writable)

    def _on_writable(self) -> None:
        self._loop.remove_writer(self._socket)
        try:
            self._flush()
        except psycopg.Error:
            self.lose()

    def _on_results(self) -> None:
        try:
            self._pgconn.consume_input()
            while self._under_way and not self.lost.is_set() and not self._pgconn.is_busy():
                self._take(self._pgconn.get_result(), self._under_way[0])
        except psycopg.Error:
            self.lose()

    def _take(self, result: "pq.abc.PGresult | None", batch: _Batch) -> None:
        if result is None:  # follows whatever was said about one step
            if batch.steps:
                batch.steps.popleft()
        elif result.status == pq.ExecStatus.PIPELINE_SYNC:
            self._under_way.popleft()
            batch.end()
            if self._waiting:
                self._send()
        elif result.status in _ANSWERED:
            self._note(batch, result)
        else:
            batch.has_failed = True
            if batch.steps:
                self._forget(batch.steps[0], result)

    def _forget(self, failed: _Step, result: "pq.abc.PGresult") -> None:
        """What was not prepared, or is prepared for tables that have been altered since, is prepared anew."""
        if isinstance(failed, _Preparing):
            self._names.pop(failed, None)
        elif result.error_field(pq.DiagnosticField.SQLSTATE) in _OUTDATED:
            self._names = {known: name for known, name in self._names.items() if known.sql != failed.sql}

    def _note(self, batch: _Batch, result: "pq.abc.PGresult") -> None:
        asked = batch.steps[0]
        if isinstance(asked, _Preparing) or asked.answer.done():
            return
        try:
            self._values.set_pgresult(result)
            rows = self._values.load_rows(0, result.ntuples, asked.make)
            if self._habits.are_answers_final:
                asked.answer.set_result(rows)
            else:
                batch.rows.append((asked, rows))
        except Exception as error:  # noqa: BLE001 - rows that their caller can't read are that caller's trouble alone
            asked.fail(error)


class Pipeline:
    """Keeps a session as well as it can; while there is none, statements are run elsewhere."""

    def __init__(self, connect: Connect, habits: Habits) -> None:
        self._connect = connect
        self._habits = habits
        self._session: _Session | None = None
        self._keeping: asyncio.Task[None] | None = None

    @property
    def is_connected(self) -> bool:
        """Whether there is a session."""
        return self._session is not None

    def open(self) -> None:
        """Connect, and go on connecting, in the background."""
        self._keeping = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """End the session."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])

    async def fetch(self, sql: str, parameters: Sequence[object], make: RowMaker[R], rank: object = 0) -> list[R]:
        """Every row of the result, each through `make`; what the statement did is committed.

        Args:
            rank: among the statements that are sent together, where it stands.

        Raises:
            Unanswered: there is no session, it is slow or full at the moment, or a statement beside this one failed, or
                this one.
            AnswerLost: the session ended meanwhile.
        """
        session = self._session
        if session is None or not session.has_room:
            raise Unanswered
        answer: asyncio.Future[list[R]] = asyncio.get_running_loop().create_future()
        session.add(_Asked(sql, parameters, make, rank, answer))
        return await answer

    async def _keep(self) -> None:
        while True:
            # Calls tell it better: they get no answer elsewhere either.
            with contextlib.suppress(psycopg.Error):
                await self._serve(await self._connect())
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _serve(self, connection: AsyncConnection[Any]) -> None:
        try:
            session = self._session = _Session(connection, self._habits)
            try:
                await session.lost.wait()
            finally:
                self._session = None
                session.lose()
        finally:
            await connection.close()
