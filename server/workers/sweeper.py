"""The sweeper: what is due because time has passed, and not because somebody called, is done by sweeps.

A sweep is a function of `server.usecases`; this is the loop that calls each of them again and again. They don't wait
for each other, and several sweepers may run: a piece of work is guarded by the statement that does it, so that it is
done once, whoever comes first.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import NamedTuple

import structlog

from server import telemetry
from server.errors import DependencyUnavailable, ServiceError
from server.usecases.sweeping import TimeLeft

_log = structlog.stdlib.get_logger("nibble.sweeper")

# The pause between two rounds is the interval, give or take this share: sweepers that were started together part.
JITTER = 0.2
# What a round may take beyond its time to end the piece that it is at; then it is cut off.
OVERTIME_SECONDS = 10.0
# The same when the sweeper is stopped.
LAST_PIECE_SECONDS = 3.0


class Sweep(NamedTuple):
    """Work of one kind.

    `run` does what is due at `now`, piece by piece or in batches, until nothing more is due or no time is left, and
    returns how many pieces those were. It may be cut off anywhere, and fail anywhere: what is left is due at the next
    round. `oldest_due` tells since when the oldest piece has been due, None where nothing is.
    """

    name: str
    run: Callable[[datetime, TimeLeft], Awaitable[int]]
    oldest_due: Callable[[datetime], Awaitable[datetime | None]]


class Pace(NamedTuple):
    """How long a sweep pauses between its rounds, and how long a round goes on beginning pieces. In seconds."""

    interval: float = 5.0
    round: float = 20.0


class Sweeper:
    """Runs every sweep until it is stopped, each at its own pace and through its own failures."""

    def __init__(self, sweeps: Sequence[Sweep], pace: Pace, clock: Callable[[], datetime]) -> None:
        self._sweeps = sweeps
        self._pace = pace
        self._clock = clock
        self._troubles = _Troubles()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, and to the end of the pieces that are under way then, if that comes soon."""
        _log.info("sweeping", sweeps=[sweep.name for sweep in self._sweeps])
        try:
            async with asyncio.timeout(None) as patience, asyncio.TaskGroup() as group:
                for sweep in self._sweeps:
                    group.create_task(self._repeat(sweep, stop), name=sweep.name)
                await stop.wait()
                patience.reschedule(asyncio.get_running_loop().time() + LAST_PIECE_SECONDS)
        except TimeoutError:
            _log.warning("the last pieces were cut off", seconds=LAST_PIECE_SECONDS)

    async def _repeat(self, sweep: Sweep, stop: asyncio.Event) -> None:
        telemetry.SWEEP_DONE.labels(sweep.name)
        while not stop.is_set():
            if not await self._round(sweep, stop):
                await _pause(stop, self._pace.interval)

    async def _round(self, sweep: Sweep, stop: asyncio.Event) -> bool:
        """Returns whether there may be more to do at once: the round has come forward, and ended for lack of time."""
        loop, now = asyncio.get_running_loop(), self._clock()
        end = loop.time() + self._pace.round

        def time_left() -> float:
            return 0.0 if stop.is_set() else end - loop.time()

        try:
            async with asyncio.timeout_at(end + OVERTIME_SECONDS):
                done = await sweep.run(now, time_left)
                self._tell(sweep.name, done, await sweep.oldest_due(now))
        except Exception as error:  # noqa: BLE001 - one that fails, by a defect of its own even, must not stop others
            self._troubles.note(sweep.name, error)
            return False
        self._troubles.end(sweep.name)
        return done > 0 and time_left() <= 0

    def _tell(self, name: str, done: int, due_since: datetime | None) -> None:
        now = self._clock()
        age = (now - due_since).total_seconds() if due_since else 0.0
        telemetry.SWEEP_DONE.labels(name).inc(done)
        telemetry.SWEEP_OLDEST_DUE_SECONDS.labels(name).set(max(0.0, age))
        telemetry.SWEEP_ROUNDS.labels(name).set(now.timestamp())
        if done:
            _log.info("swept", sweep=name, done=done)


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    """About so long, and no longer than until `stop` is set."""
    try:
        async with asyncio.timeout(seconds * random.uniform(1 - JITTER, 1 + JITTER)):  # noqa: S311
            await stop.wait()
    except TimeoutError:
        return


class _Troubles:
    """What keeps sweeps from their work: a line when it begins, and one when it is over, however many rounds it lasts.

    A dependency that is away is one trouble of all sweeps; anything else is a trouble of the sweep that meets it.
    """

    def __init__(self) -> None:
        self._present: dict[tuple[str, type[Exception]], set[str]] = {}

    def note(self, sweep: str, error: Exception) -> None:
        """It stays the same however it is worded each time."""
        whose = "" if isinstance(error, DependencyUnavailable) else sweep
        kind = (whose, type(error))
        self._end_others(sweep, kind)
        if kind not in self._present:
            _log_trouble(sweep, error)
        self._present.setdefault(kind, set()).add(sweep)

    def end(self, sweep: str) -> None:
        """The sweep has done a whole round."""
        if self._end_others(sweep, None):
            _log.info("due work is done again", sweep=sweep)

    def _end_others(self, sweep: str, kind: tuple[str, type[Exception]] | None) -> bool:
        """The sweep is in no trouble of another kind; returns whether one is over with that, for all sweeps."""
        over = False
        for other, sweeps in list(self._present.items()):
            if other != kind and sweep in sweeps:
                sweeps.remove(sweep)
                if not sweeps:
                    del self._present[other]
                    over = True
        return over


def _log_trouble(sweep: str, error: Exception) -> None:
    """Foreseen ones in words; of a defect the traceback too."""
    if isinstance(error, TimeoutError):
        _log.warning("due work waits: a round had to be cut off", sweep=sweep)
    elif isinstance(error, ServiceError):
        _log.warning("due work waits", sweep=sweep, error=error.message, cause=str(error.__cause__ or "").strip())
    else:
        _log.error("due work waits: the sweep fails", sweep=sweep, exc_info=error)
