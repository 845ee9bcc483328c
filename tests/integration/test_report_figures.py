"""The report over the facts in PostgreSQL is that of the slow model, whatever happened, in whatever order it came."""

import random
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import Connection, RawCursor

from server.analytics.generations import Superseded, read_generation
from server.analytics.intake import FactKeeper
from server.analytics.rebuild import rebuild
from server.analytics.reports import Interval, Metrics, Report, Statistics, Time, get_support_metrics
from server.analytics.statements import PROBE, REPORT
from server.db.consumed import ConsumedEvents, Mark
from server.db.database import Database, PoolLimits
from server.errors import InvalidFields
from tests.integration.test_query_plans import nodes
from tests.system.vocabulary import dice
from tests.ticket_lives import BEGIN, Event, Life, a_life, report_of

NOW = datetime(2026, 4, 1, tzinfo=UTC)
LIVES = 120
REPORTS = 12
EMPTY = "TRUNCATE analytics_service.consumed_events, analytics_service.ticket_events, analytics_service.ticket_facts"


def connect(dsn: str) -> Connection[Any]:
    """As the frame of the consumers connects."""
    return psycopg.connect(dsn, autocommit=True, cursor_factory=RawCursor, options="-c timezone=UTC")


def consume(dsn: str, events: Sequence[Event], batch: int = 50, generation: int | None = None) -> None:
    """What the frame does with new events."""
    memory = ConsumedEvents("analytics_service")
    with connect(dsn) as connection:
        keeper = FactKeeper(generation or read_generation(connection))
        for start in range(0, len(events), batch):
            some = sorted(events[start : start + batch], key=lambda event: (event.ticket_id, event.sequence))
            marks = [Mark(UUID(event.event_id), UUID(event.ticket_id), event.sequence) for event in some]
            with connection.transaction():
                memory.remember(connection, marks, NOW)
                keeper.apply(connection, some)


def facts_in(dsn: str) -> list[tuple[Any, ...]]:
    """Every fact, column by column."""
    with connect(dsn) as connection:
        return connection.execute("SELECT * FROM analytics_service.ticket_facts ORDER BY ticket_id").fetchall()


@pytest.fixture
def facts_dsn(shared_dsn: str) -> str:
    """A database without facts."""
    with connect(shared_dsn) as connection:
        connection.execute(EMPTY)
    return shared_dsn


@pytest.fixture
async def db(facts_dsn: str) -> AsyncIterator[Database]:
    """The pool of the Analytics Service's API."""
    db = Database(facts_dsn, PoolLimits(), PROBE)
    await db.open()
    yield db
    await db.close()


def moment(at: datetime) -> Time:
    """As protobuf carries it."""
    since = at - datetime(1970, 1, 1, tzinfo=UTC)
    return since.days * 86400 + since.seconds, since.microseconds * 1000


async def report(db: Database, start: datetime, end: datetime, interval: str = "day") -> Report:
    """GetSupportMetrics."""
    return await get_support_metrics(db, moment(start), moment(end), interval)


def nearly(metrics: Metrics) -> Metrics:
    """Equal but for the last bits of its numbers."""

    def about(seconds: float | None) -> Any:  # noqa: ANN401 - pytest's own, which equals a number
        return None if seconds is None else pytest.approx(seconds, abs=1e-5)

    def rounded(found: Statistics) -> Statistics:
        return Statistics(found.cases, about(found.median), about(found.p90), about(found.mean))

    return metrics._replace(
        first_response_time=rounded(metrics.first_response_time), resolution_time=rounded(metrics.resolution_time)
    )


def assert_same(found: Report, expected: Report) -> None:
    """The same figures in the same places and order."""
    assert found.total == nearly(expected.total)
    assert found.periods == [period._replace(metrics=nearly(period.metrics)) for period in expected.periods]
    assert list(found.priorities.items()) == [(each, nearly(m)) for each, m in expected.priorities.items()]
    assert list(found.agents.items()) == [(each, nearly(m)) for each, m in expected.agents.items()]


def some_lives(chance: random.Random, number: int = LIVES) -> list[Life]:
    return [a_life(chance) for _ in range(number)]


def mixed(chance: random.Random, lives: Sequence[Life]) -> list[Event]:
    """Their events in any order."""
    events = [event for life in lives for event in life]
    chance.shuffle(events)
    return events


async def test_every_figure_is_that_of_the_slow_model(facts_dsn: str, db: Database) -> None:
    chance = dice("report")
    lives = some_lives(chance)
    consume(facts_dsn, mixed(chance, lives))
    times = [event.occurred_at.ToDatetime(UTC) for life in lives for event in life]
    for _ in range(REPORTS):
        # Ranges that begin and end anywhere, at the very moment of an event, and at midnight.
        anywhere = [BEGIN + timedelta(days=chance.uniform(-5, 60)) for _ in range(2)]
        midnight = datetime(2026, 3, chance.randint(1, 28), tzinfo=UTC)
        start, end = sorted(chance.sample([*anywhere, midnight, *chance.sample(times, 3)], 2))
        interval = chance.choice(list(Interval))
        if start < end:
            assert_same(await report(db, start, end, interval), report_of(lives, start, end, interval))


async def test_the_figures_of_the_periods_add_up(facts_dsn: str, db: Database) -> None:
    chance = dice("sums")
    consume(facts_dsn, mixed(chance, some_lives(chance)))
    found = await report(db, BEGIN, BEGIN + timedelta(days=40))
    for figure in ("created", "resolved", "closed", "reopened"):
        of_periods = sum(getattr(period.metrics, figure) for period in found.periods)
        of_priorities = sum(getattr(metrics, figure) for metrics in found.priorities.values())
        assert getattr(found.total, figure) == of_periods == of_priorities > 0
    assert found.total.backlog == found.periods[-1].metrics.backlog > 0


async def test_a_time_range_that_ends_in_the_future_has_the_backlog_of_now(facts_dsn: str, db: Database) -> None:
    chance = dice("future")
    consume(facts_dsn, mixed(chance, some_lives(chance, 20)))
    soon, later = [await report(db, BEGIN, datetime(year, 1, 1, tzinfo=UTC), "week") for year in (2027, 2029)]
    assert soon.total == later.total
    assert later.periods[-1].metrics.backlog == soon.total.backlog > 0


async def test_no_events_are_zeros_and_empty_periods(db: Database) -> None:
    found = await report(db, BEGIN, BEGIN + timedelta(days=3))
    assert (found.total, found.agents) == (Metrics(), {})
    assert {period.metrics for period in found.periods} == set(found.priorities.values()) == {Metrics()}
    assert list(found.priorities) == ["urgent", "high", "medium", "low"]


async def test_days_go_from_midnight_to_midnight_and_the_first_and_last_are_cut(db: Database) -> None:
    end = BEGIN + timedelta(days=2, hours=4)
    found = await report(db, BEGIN, end)
    days = [datetime(2026, 2, 27, tzinfo=UTC), datetime(2026, 2, 28, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)]
    assert [period[:2] for period in found.periods] == list(pairwise([BEGIN, *days, end]))


async def test_weeks_go_from_monday_to_monday(db: Database) -> None:
    mondays = [datetime(2026, 3, 2, tzinfo=UTC), datetime(2026, 3, 9, tzinfo=UTC)]
    found = await report(db, BEGIN, mondays[-1], "week")
    assert [period[:2] for period in found.periods] == list(pairwise([BEGIN, *mondays]))


async def test_the_ends_of_time_can_be_asked_for(db: Database) -> None:
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    for interval in Interval:
        assert len((await report(db, first, first + timedelta(hours=1), interval)).periods) == 1
        assert len((await report(db, last - timedelta(hours=1), last, interval)).periods) == 1


@pytest.mark.parametrize(("interval", "days"), [("day", 400), ("week", 2800)])
async def test_four_hundred_periods_are_the_most(db: Database, interval: str, days: int) -> None:
    monday = datetime(2026, 3, 2, tzinfo=UTC)
    assert len((await report(db, monday, monday + timedelta(days=days), interval)).periods) == 400
    with pytest.raises(InvalidFields) as refusal:
        await report(db, monday, monday + timedelta(days=days, microseconds=1), interval)
    assert [each.field for each in refusal.value.violations] == ["end_time"]


@pytest.mark.parametrize(
    ("start", "end", "interval", "bad"),
    [
        (None, None, "month", ["start_time", "end_time", "interval"]),
        (None, (1, 0), "day", ["start_time"]),
        ((1, 0), (1, 0), "day", ["end_time"]),
        ((2, 0), (1, 0), "week", ["end_time"]),
        ((-(10**12), 0), (0, 10**9), None, ["start_time", "end_time", "interval"]),
    ],
)
async def test_bad_fields_are_all_named(
    db: Database, start: Time | None, end: Time | None, interval: str | None, bad: list[str]
) -> None:
    with pytest.raises(InvalidFields) as refusal:
        await get_support_metrics(db, start, end, interval)
    assert [each.field for each in refusal.value.violations] == bad


# --- Facts ------------------------------------------------------------------------------------------------------------


def test_batches_of_any_size_and_order_come_to_the_same_facts(facts_dsn: str) -> None:
    chance = dice("batches")
    lives = some_lives(chance, 40)
    consume(facts_dsn, [event for life in lives for event in life], batch=500)
    together = facts_in(facts_dsn)
    with connect(facts_dsn) as connection:
        connection.execute(EMPTY)
    consume(facts_dsn, mixed(chance, lives), batch=3)
    assert facts_in(facts_dsn) == together
    assert len(together) == 40


def test_a_rebuild_that_forgets_rests_on_the_topic_alone(own_dsn: str) -> None:
    life = a_life(dice("rebuild"))
    consume(own_dsn, life)
    before = facts_in(own_dsn)
    assert (rebuild(own_dsn, NOW, forget=True), facts_in(own_dsn)) == (2, [])
    consume(own_dsn, life)
    assert facts_in(own_dsn) == before


def test_a_rebuild_mends_every_fact_and_keeps_what_the_topic_has_lost(own_dsn: str) -> None:
    chance = dice("mended")
    lives = some_lives(chance, 700)  # more than a batch
    consume(own_dsn, mixed(chance, lives), batch=500)
    before = facts_in(own_dsn)
    with connect(own_dsn) as connection:
        connection.execute("UPDATE analytics_service.ticket_facts SET priority = 'low', resolution_stands = true")
    assert facts_in(own_dsn) != before
    assert (rebuild(own_dsn, NOW, forget=False), facts_in(own_dsn)) == (2, before)
    # The topic comes again, without its beginning.
    consume(own_dsn, [event for life in lives[300:] for event in life], batch=500)
    assert facts_in(own_dsn) == before


def test_an_event_that_comes_again_after_a_rebuild_overrules_what_was_kept(own_dsn: str) -> None:
    life = a_life(dice("overruled"))
    consume(own_dsn, life)
    before = facts_in(own_dsn)
    with connect(own_dsn) as connection:
        connection.execute("UPDATE analytics_service.ticket_events SET priority = 'low', status = 'closed'")
    rebuild(own_dsn, NOW, forget=False)
    assert facts_in(own_dsn) != before
    consume(own_dsn, life)
    assert facts_in(own_dsn) == before


def test_a_consumer_of_an_older_generation_changes_nothing(own_dsn: str) -> None:
    life = a_life(dice("superseded"))
    rebuild(own_dsn, NOW, forget=True)
    with pytest.raises(Superseded):
        consume(own_dsn, life, generation=1)
    with connect(own_dsn) as connection:
        for table in ("consumed_events", "ticket_events", "ticket_facts"):
            assert connection.execute(f"SELECT FROM analytics_service.{table}").fetchall() == []


# --- Its cost ---------------------------------------------------------------------------------------------------------

FILL = """
    INSERT INTO analytics_service.ticket_facts
    SELECT gen_random_uuid(), at, 'low', CASE WHEN n % 100 > 0 THEN at + interval '1 day' END, NULL, NULL,
        '{}', '{}', CASE WHEN n % 100 > 0 THEN ARRAY[at + interval '1 day'] ELSE '{}' END,
        CASE WHEN n % 100 > 0 THEN ARRAY[NULL::uuid] ELSE '{}' END, '{}', '{}', n % 100 > 0, NULL, NULL
    FROM (SELECT n, timestamptz '2026-01-01Z' + n * interval '1 hour' AS at FROM generate_series(1, 20000) AS n) AS made
"""


def test_a_report_reads_only_tickets_whose_life_touches_its_time_range(facts_dsn: str) -> None:
    with connect(facts_dsn) as connection:
        connection.execute(FILL)
        connection.execute("ANALYZE analytics_service.ticket_facts")
        connection.execute("SET plan_cache_mode = force_generic_plan")
        connection.execute(f"PREPARE this AS {REPORT.sql}")
        # A week in the middle: 168 tickets of these, some of the day before, and up to 120 that were never resolved.
        call = "EXECUTE this ('2027-03-01Z', '2027-03-08Z', '1 day')"
        ((plan,),) = connection.execute(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {call}")
        connection.execute("TRUNCATE analytics_service.ticket_facts")
    scans = [node for node in nodes(plan[0]["Plan"]) if node.get("Relation Name") == "ticket_facts"]
    assert {node["Node Type"] for node in scans} <= {"Bitmap Heap Scan", "Index Scan"}
    assert all(node["Actual Rows"] + node.get("Rows Removed by Filter", 0) < 400 for node in scans)
    used = {node["Index Name"] for node in nodes(plan[0]["Plan"]) if "Index Name" in node}
    assert used == {"ticket_facts_by_life"}
