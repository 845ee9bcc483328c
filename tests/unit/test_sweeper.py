"""The sweeper's loop: when each sweep is called, how long it may work, and what its failures do to the others."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from server.errors import DependencyUnavailable, Overloaded
from server.usecases.sweeping import TimeLeft, in_batches
from server.workers.sweeper import JITTER, LAST_PIECE_SECONDS, OVERTIME_SECONDS, Pace, Sweep, Sweeper
from tests.unit.hand_time import played, seconds

START = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
PACE = Pace(interval=5.0, round=20.0)
SHORTEST, LONGEST = PACE.interval * (1 - JITTER), PACE.interval * (1 + JITTER)
Lines = Sequence[Mapping[str, Any]]


def clock() -> datetime:
    return START + timedelta(seconds=seconds())


class Work:
    """A sweep that remembers when it was called; what a call comes to is up to the test."""

    def __init__(self, name: str, does: Callable[[TimeLeft], Awaitable[int]] | None = None) -> None:
        self.name = name
        self.calls: list[float] = []
        self.ends: list[float] = []
        self.due_since: datetime | None = None
        self._does = does

    def sweep(self) -> Sweep:
        return Sweep(self.name, self._run, self._oldest_due)

    async def _run(self, now: datetime, time_left: TimeLeft) -> int:
        assert now == clock()
        self.calls.append(seconds())
        try:
            return await self._does(time_left) if self._does else 0
        finally:
            self.ends.append(seconds())

    async def _oldest_due(self, _now: datetime) -> datetime | None:
        return self.due_since

    @property
    def pauses(self) -> list[float]:
        """How long it was left alone between its rounds."""
        return [later - end for end, later in zip(self.ends, self.calls[1:], strict=False)]

    def metric(self, name: str) -> float | None:
        return REGISTRY.get_sample_value(f"nibble_sweep_{name}", {"sweep": self.name})


def pieces(count: float, seconds_each: float) -> Callable[[TimeLeft], Awaitable[int]]:
    """Does so many pieces in all, over all rounds."""
    left = count

    async def does(time_left: TimeLeft) -> int:
        done = 0
        nonlocal left
        while left > 0 and time_left() > 0:
            await asyncio.sleep(seconds_each)
            left -= 1
            done += 1
        return done

    return does


def failing(error: Exception, until: float = math.inf) -> Callable[[TimeLeft], Awaitable[int]]:
    """Fails until then."""

    async def does(_: TimeLeft) -> int:
        if seconds() < until:
            raise error
        return 0

    return does


async def hanging(_: TimeLeft) -> int:
    await asyncio.sleep(math.inf)
    return 0


def swept(*works: Work, until: float) -> float:
    """A sweeper does these works and is told to stop at that second; returns when it has ended."""

    async def scene() -> float:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(until, stop.set)
        await Sweeper([work.sweep() for work in works], PACE, clock).run(stop)
        return seconds()

    return played(scene())


def heard(*works: Work, until: float) -> Lines:
    """What the sweeper logs meanwhile, after its first line."""
    with capture_logs() as lines:
        swept(*works, until=until)
    assert lines[0]["event"] == "sweeping"
    return lines[1:]


def test_a_sweep_is_called_at_once_and_then_about_an_interval_after_each_round() -> None:
    async def takes_three_seconds(_: TimeLeft) -> int:
        await asyncio.sleep(3)
        return 1

    work = Work("short", takes_three_seconds)
    swept(work, until=500)
    assert work.calls[0] == 0
    assert len(work.calls) >= 500 / (3 + LONGEST)
    assert all(SHORTEST <= pause <= LONGEST for pause in work.pauses)


def test_sweepers_that_start_together_do_not_march_in_step() -> None:
    first, second = Work("first"), Work("second")
    swept(first, second, until=100)
    assert first.calls[0] == second.calls[0]
    assert not set(first.calls[1:]) & set(second.calls[1:])


def test_a_round_begins_no_piece_when_its_time_is_over_and_the_next_one_goes_on_at_once() -> None:
    work = Work("long", pieces(50, seconds_each=0.8))
    swept(work, until=60)
    rounds = [end - begin for begin, end in zip(work.calls, work.ends, strict=True)]
    assert rounds[0] == pytest.approx(PACE.round)
    assert rounds[1] == pytest.approx(50 * 0.8 - PACE.round)
    assert work.pauses[0] == 0
    assert all(pause >= SHORTEST for pause in work.pauses[1:])


def test_a_round_that_takes_its_whole_time_for_nothing_is_not_repeated_at_once() -> None:
    async def looks_in_vain(_: TimeLeft) -> int:
        await asyncio.sleep(PACE.round + 1)
        return 0

    work = Work("in vain", looks_in_vain)
    swept(work, until=100)
    assert all(pause >= SHORTEST for pause in work.pauses)


@pytest.mark.parametrize(
    "does",
    [hanging, pieces(math.inf, 9.0), failing(DependencyUnavailable()), failing(KeyError("a defect"))],
    ids=["hangs", "is slow", "has no database", "has a defect"],
)
def test_a_sweep_in_trouble_keeps_no_other_from_its_work(does: Callable[[TimeLeft], Awaitable[int]]) -> None:
    bad, good = Work("bad", does), Work("good", pieces(math.inf, 20.0))
    other = Work("other")
    swept(bad, good, other, until=100)
    assert len(bad.calls) >= 3
    assert len(good.calls) == 5
    assert all(pause <= LONGEST for pause in other.pauses)


def test_a_round_that_does_not_end_is_cut_off_and_tried_again_after_a_pause() -> None:
    work = Work("hanging", hanging)
    lines = heard(work, until=70)
    assert work.ends[0] == PACE.round + OVERTIME_SECONDS
    assert SHORTEST <= work.pauses[0] <= LONGEST
    assert lines[0] == {
        "event": "due work waits: a round had to be cut off",
        "sweep": "hanging",
        "log_level": "warning",
    }
    assert work.metric("rounds_timestamp_seconds") is None


def test_it_stops_between_two_pieces() -> None:
    work = Work("stopped", pieces(math.inf, seconds_each=2.0))
    assert swept(work, until=10.5) == 12
    assert work.metric("done_total") == 6


def test_it_stops_amid_a_pause() -> None:
    assert swept(Work("idle"), until=2) == 2


def test_a_piece_that_does_not_end_is_cut_off_when_it_is_stopped() -> None:
    work = Work("stuck", hanging)
    with capture_logs() as lines:
        assert swept(work, Work("idle"), until=10) == 10 + LAST_PIECE_SECONDS
    assert lines[-1]["event"] == "the last pieces were cut off"
    assert work.ends == [10 + LAST_PIECE_SECONDS]


def test_no_round_is_begun_where_it_is_stopped_before_it_starts() -> None:
    work = Work("late")

    async def scene() -> None:
        stop = asyncio.Event()
        stop.set()
        await Sweeper([work.sweep()], PACE, clock).run(stop)

    played(scene())
    assert work.calls == []


def test_counts_are_logged_where_there_is_something_to_count_and_nothing_else() -> None:
    assert heard(Work("counted", pieces(3, seconds_each=0.1)), Work("idle"), until=60) == [
        {"event": "swept", "sweep": "counted", "done": 3, "log_level": "info"}
    ]


def test_a_database_that_is_away_is_told_once_for_all_sweeps_and_once_when_it_is_back() -> None:
    works = [Work(name, failing(DependencyUnavailable(), until=60)) for name in ("one", "two", "three")]
    lines = heard(*works, until=100)
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("due work waits", "warning"),
        ("due work is done again", "info"),
    ]
    assert lines[0]["error"] == DependencyUnavailable().message


def test_what_is_behind_a_trouble_is_told_with_it() -> None:
    error = DependencyUnavailable()
    error.__cause__ = ConnectionRefusedError("connection refused\n")
    assert heard(Work("refused", failing(error)), until=1)[0]["cause"] == "connection refused"


def test_a_trouble_that_becomes_another_is_told_anew() -> None:
    async def one_after_the_other(_: TimeLeft) -> int:
        if seconds() < 90:
            raise Overloaded if 30 <= seconds() < 60 else DependencyUnavailable
        return 0

    lines = heard(Work("changing", one_after_the_other), until=120)
    away, busy = DependencyUnavailable().message, Overloaded().message
    assert [line.get("error") for line in lines] == [away, busy, away, None]
    assert lines[-1]["event"] == "due work is done again"


def test_a_defect_is_told_with_its_traceback_once() -> None:
    defect = KeyError("a defect")
    (line,) = heard(Work("defective", failing(defect)), until=100)
    assert (line["log_level"], line["exc_info"], line["sweep"]) == ("error", defect, "defective")


def test_the_numbers_tell_what_was_done_how_old_the_oldest_is_and_when_the_last_round_ended() -> None:
    work = Work("measured", pieces(7, seconds_each=0.0))
    work.due_since = START - timedelta(seconds=30)
    swept(work, until=1)
    assert work.metric("done_total") == 7
    assert work.metric("oldest_due_seconds") == 30
    assert work.metric("rounds_timestamp_seconds") == START.timestamp()
    work.due_since = None
    swept(work, until=1)
    assert work.metric("done_total") == 7
    assert work.metric("oldest_due_seconds") == 0


def test_a_round_that_fails_leaves_the_numbers_as_they_were() -> None:
    work = Work("stale", failing(DependencyUnavailable(), until=math.inf))
    swept(work, until=100)
    assert work.metric("done_total") == 0
    assert work.metric("oldest_due_seconds") is None


@pytest.mark.parametrize(("batches", "took"), [([0], 0), ([10, 10, 3, 10], 23), ([10, 10, 0, 10], 20)])
def test_batches_are_done_until_one_is_not_full(batches: list[int], took: int) -> None:
    async def scene() -> int:
        return await in_batches(of(batches), 10, lambda: 1.0)

    assert played(scene()) == took


@pytest.mark.parametrize(("left", "took"), [(0.0, 10), (0.5, 10), (2.5, 30)])
def test_batches_are_done_until_no_time_is_left_but_always_one(left: float, took: int) -> None:
    async def scene() -> int:
        return await in_batches(of([10] * 9), 10, lambda: left - seconds())

    assert played(scene()) == took


def of(batches: Sequence[int]) -> Callable[[], Awaitable[int]]:
    """Batches of these sizes, one after the other, each a second long."""
    sizes = iter(batches)

    async def batch() -> int:
        await asyncio.sleep(1)
        return next(sizes)

    return batch
