"""The report: a time range in, figures out; what each figure means stands in the proto `support_metrics.proto`."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from itertools import accumulate, islice, pairwise, takewhile
from typing import Any, NamedTuple
from uuid import UUID

from server.analytics import statements
from server.analytics.rules import Priority
from server.db.database import Database
from server.domain.validation import Fields

MOST_PERIODS = 400
_END = datetime.max.replace(tzinfo=UTC)

Time = tuple[int, int]
"""(seconds, nanoseconds) since 1970, as protobuf carries it."""


class Interval(StrEnum):
    """How long the periods of a report are."""

    DAY = "day"
    WEEK = "week"

    @property
    def length(self) -> timedelta:
        """As the name says."""
        return timedelta(days=7 if self is Interval.WEEK else 1)

    def begin(self, moment: datetime) -> datetime:
        """The begin of the period that the moment lies in: midnight, of a Monday where it is a week (UTC)."""
        midnight = datetime.combine(moment.date(), time(tzinfo=UTC))
        return midnight - timedelta(days=midnight.weekday() % self.length.days)


class Statistics(NamedTuple):
    """How long something took, in seconds; None where there was no case."""

    cases: int = 0
    median: float | None = None
    p90: float | None = None
    mean: float | None = None


class Satisfaction(NamedTuple):
    """How many ratings there are of each, from 1 to 5."""

    ratings: tuple[int, ...] = (0, 0, 0, 0, 0)

    @property
    def cases(self) -> int:
        """Of all of them."""
        return sum(self.ratings)

    @property
    def average(self) -> float | None:
        """The arithmetic mean; None where there is no rating."""
        return sum(n * count for n, count in enumerate(self.ratings, 1)) / self.cases if self.cases else None


class Metrics(NamedTuple):
    """The figures of one stretch of time."""

    created: int = 0
    resolved: int = 0
    closed: int = 0
    reopened: int = 0
    backlog: int = 0
    first_response_time: Statistics = Statistics()
    resolution_time: Statistics = Statistics()
    satisfaction: Satisfaction = Satisfaction()


class Period(NamedTuple):
    """The figures of one day or week, from `start` up to and without `end`."""

    start: datetime
    end: datetime
    metrics: Metrics


class Report(NamedTuple):
    """All figures of a time range: priorities with the most urgent first, agents by their ids."""

    total: Metrics
    periods: list[Period]
    priorities: dict[Priority, Metrics]
    agents: dict[UUID, Metrics]


class Count(NamedTuple):
    """One row of the statement: a figure over the whole range, or of one period, priority or agent."""

    figure: str
    period: datetime | None
    """Its begin, before the time range where that starts in the middle of a period."""
    priority: str | None
    agent: UUID | None
    statistics: Statistics


_Key = datetime | str | UUID | None
_Figures = Mapping[_Key, Mapping[str, Statistics]]
"""By period, priority or agent, None for the whole range; then by figure."""

_COUNTED = ("created", "resolved", "closed", "reopened", "backlog")
_NO_FIGURES: Mapping[str, Statistics] = {}


async def get_support_metrics(db: Database, start: Time | None, end: Time | None, interval: str | None) -> Report:
    """The figures from `start` up to and without `end`.

    Raises:
        InvalidFields: a time is missing or bad, the end is not after the start, or there are too many periods.
    """
    fields = Fields()
    since, until = _time(fields, "start_time", start), _time(fields, "end_time", end)
    length = fields.choice("interval", interval, Interval)
    fields.check()
    bounds = _bounds(fields, since, until, length)
    fields.check()
    values = {"start": since, "end": until, "period_length": length.length}
    return report(bounds, length, await db.fetch_all(statements.REPORT, values, _count_of))


def _count_of(row: tuple[Any, ...]) -> Count:
    figure, period, priority, agent, *statistics = row
    return Count(figure, period, priority, agent, Statistics(*statistics))


def _time(fields: Fields, name: str, value: Time | None) -> datetime:
    if value is None:
        fields.refuse(name, "must be given")
        return _END
    return fields.time(name, *value) or _END


def _bounds(fields: Fields, start: datetime, end: datetime, interval: Interval) -> list[datetime]:
    """The start, every begin of a period in between, and the end."""
    if start >= end:
        fields.refuse("end_time", "must be after start_time")
        return []
    begins = list(islice(takewhile(lambda begin: begin < end, _begins(start, interval)), MOST_PERIODS))
    if len(begins) == MOST_PERIODS:
        fields.refuse("end_time", f"must leave at most {MOST_PERIODS} {interval}s after start_time")
    return [start, *begins, end]


def _begins(start: datetime, interval: Interval) -> Iterator[datetime]:
    """The begins of the periods after the one that `start` lies in, until the end of time."""
    begin = interval.begin(start)
    while _END - begin >= interval.length:
        begin += interval.length
        yield begin


def report(bounds: list[datetime], interval: Interval, counts: list[Count]) -> Report:
    """The counts in their places, with zeros where there are none."""
    figures = _by_key(counts)
    total = figures.get(None, _NO_FIGURES)
    stretches = list(pairwise(bounds))
    of_periods = [figures.get(interval.begin(start), _NO_FIGURES) for start, _ in stretches]
    backlogs = islice(accumulate(map(_growth, of_periods), initial=_count(total, "opening")), 1, None)
    agents = {agent: _metrics(figures[agent]) for agent in sorted(_agents(counts))}
    return Report(
        total=_metrics(total),
        periods=[
            Period(start, end, _metrics(found)._replace(backlog=backlog))
            for (start, end), found, backlog in zip(stretches, of_periods, backlogs, strict=True)
        ],
        priorities={priority: _metrics(figures.get(priority, _NO_FIGURES)) for priority in Priority},
        agents={agent: metrics for agent, metrics in agents.items() if metrics != Metrics()},
    )


def _by_key(counts: list[Count]) -> _Figures:
    figures: dict[_Key, dict[str, Statistics]] = {}
    for count in counts:
        key = count.period or count.priority or count.agent
        figures.setdefault(key, {})[count.figure] = count.statistics
    return figures


def _agents(counts: list[Count]) -> set[UUID]:
    return {count.agent for count in counts if count.agent is not None}


def _growth(figures: Mapping[str, Statistics]) -> int:
    """By how many tickets a period leaves the backlog larger than it found it."""
    came, went = ("created", "reopened"), ("resolved", "abandoned")
    return sum(_count(figures, name) for name in came) - sum(_count(figures, name) for name in went)


def _count(figures: Mapping[str, Statistics], name: str) -> int:
    return figures[name].cases if name in figures else 0


def _metrics(figures: Mapping[str, Statistics]) -> Metrics:
    return Metrics(
        **{name: _count(figures, name) for name in _COUNTED},
        first_response_time=figures.get("first_response_time", Statistics()),
        resolution_time=figures.get("resolution_time", Statistics()),
        satisfaction=Satisfaction(tuple(_count(figures, f"rated_{rating}") for rating in range(1, 6))),
    )
