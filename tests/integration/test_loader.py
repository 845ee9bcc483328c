"""What the loader of the benchmark fills a database with is as if the service had written it."""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from bench.batches import batches
from bench.lives import CHATTY, CHATTY_EVERY, QUIET
from bench.loader import load
from bench.rows import TABLES
from server.domain.events import HistoryEntry
from server.domain.orders import from_json
from server.domain.tickets import Ticket
from server.usecases.attention import oldest_unflagged
from server.usecases.closing import quiet_longest_due
from server.workers.event_message import event_message
from tests.integration.staffing import PATIENCE
from tests.integration.test_concurrent_changes import check_history
from tests.integration.vocabulary import (
    CLOSES_AFTER,
    Desk,
    Row,
    all_tickets,
    as_agent,
    by_triage,
    comments_on,
    events_of,
    history_of,
    look_at,
    move,
    my_tickets,
    newest_first,
    owner_of,
    query,
    say,
    whole,
)

TICKETS, SEED = 1_500, 7
UNTIL = datetime(2026, 3, 4, 5, 6, 7, 891_011, tzinfo=UTC)

CATALOGUE = {
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated, conenforced
        FROM pg_constraint WHERE connamespace = 'admin_service'::regnamespace ORDER BY 1, 2
    """,
    "indexes": """
        SELECT indexdef FROM pg_indexes WHERE schemaname = 'admin_service' ORDER BY indexname
    """,
    "valid": """
        SELECT indexrelid::regclass::text, indisvalid, indisunique, indisprimary
        FROM pg_index JOIN pg_class ON pg_class.oid = indrelid
        WHERE relnamespace = 'admin_service'::regnamespace ORDER BY 1
    """,
    "triggers": "SELECT tgname, pg_get_triggerdef(oid), tgenabled FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1",
}
# Every ticket whose row says something else than its history.
CONTRADICTIONS = """
    WITH entries AS (
        SELECT ticket_id, count(*) AS entries, max(position) AS last_position, count(sequence) AS events,
            max(sequence) AS last_sequence, count(DISTINCT row_no) FILTER (WHERE published_at IS NULL) AS unsent,
            min(occurred_at) AS begun, max(occurred_at) AS ended
        FROM admin_service.ticket_events GROUP BY ticket_id
    ), last AS (
        SELECT DISTINCT ON (ticket_id) * FROM admin_service.ticket_events
        WHERE sequence IS NOT NULL ORDER BY ticket_id, sequence DESC
    )
    SELECT t.id FROM admin_service.support_tickets t
    LEFT JOIN entries ON entries.ticket_id = t.id LEFT JOIN last ON last.ticket_id = t.id
    WHERE (entries, last_position, events, last_sequence) IS DISTINCT FROM
            (history_count, history_count, event_count, event_count)
        OR begun <> t.created_at OR ended < t.updated_at
        OR (ticket ->> 'status', (ticket ->> 'version')::int, (ticket ->> 'updated_at')::timestamptz) IS DISTINCT FROM
            (status, version, t.updated_at)
        OR ((ticket ->> 'assigned_to')::uuid, (ticket ->> 'resolved_at')::timestamptz, ticket ->> 'priority')
            IS DISTINCT FROM (t.assigned_to, resolved_at, priority)
        OR ((ticket ->> 'flagged_at')::timestamptz, (ticket ->> 'user_id')::uuid, (ticket ->> 'order_id')::uuid)
            IS DISTINCT FROM (flagged_at, user_id, order_id)
        OR ticket ->> 'subject' <> subject
        OR (status = 'resolved') <> (quiet_since IS NOT NULL)
        OR flagged_at IS NOT NULL AND status NOT IN ('open', 'in_progress')
"""
# Entries that are later, or were written later, than those after them in the same history.
DISORDER = """
    SELECT ticket_id FROM (
        SELECT ticket_id, occurred_at, row_no, lead(occurred_at) OVER history AS next_at,
            lead(row_no) OVER history AS next_no
        FROM admin_service.ticket_events WINDOW history AS (PARTITION BY ticket_id ORDER BY position)
    ) AS entries WHERE next_at < occurred_at OR next_no < row_no
"""
# Comments without their entry, and the other way round.
UNTOLD = """
    SELECT c.id, e.id FROM admin_service.ticket_comments c
    FULL JOIN (SELECT * FROM admin_service.ticket_events WHERE event_type = 'ticket_commented') e
        ON (e.comment_id, e.ticket_id, e.actor_id, e.author_role, e.is_internal, e.occurred_at)
            = (c.id, c.ticket_id, c.user_id, c.author_role, c.is_internal, c.created_at)
    WHERE c.id IS NULL OR e.id IS NULL
"""


LONGEST = """
    SELECT ticket_id, count(*) AS comments FROM admin_service.ticket_comments GROUP BY 1 ORDER BY 2 DESC LIMIT 1
"""
# Whether rows were counted, whether a column was looked at, and whether every page is known to be visible to all.
STATISTICS = """
    SELECT relname, reltuples >= 0, EXISTS (SELECT FROM pg_stats WHERE tablename = relname) OR reltuples = 0,
        relallvisible = relpages AND relallfrozen = relpages
    FROM pg_class WHERE relnamespace = 'admin_service'::regnamespace AND relname = ANY (%s)
"""


@pytest.fixture(scope="module")
def loaded(module_dsn: str) -> str:
    """A database that the loader has filled."""
    load(module_dsn, TICKETS, SEED, UNTIL)
    return module_dsn


@pytest.fixture
async def desk(loaded: str) -> AsyncIterator[Desk]:
    """A desk on that database, at the moment up to which its tickets' lives are told."""
    async with Desk.at(loaded) as desk:
        desk.clock.now = UNTIL
        yield desk


async def tickets_of(desk: Desk) -> list[Ticket]:
    """All of them, as a supervisor lists them."""
    return await whole(all_tickets(desk, as_agent()), [100])


def catalogue(dsn: str) -> dict[str, list[tuple[Any, ...]]]:
    with psycopg.connect(dsn) as connection:
        return {name: connection.execute(question.encode()).fetchall() for name, question in CATALOGUE.items()}


def test_indexes_constraints_and_triggers_are_again_what_they_were(loaded: str, own_dsn: str) -> None:
    assert catalogue(loaded) == catalogue(own_dsn)


def test_statistics_are_there_and_no_page_has_anything_left_to_be_seen_to(loaded: str) -> None:
    with psycopg.connect(loaded) as connection:
        rows = connection.execute(STATISTICS.encode(), [list(TABLES)]).fetchall()
    assert len(rows) == len(TABLES)
    assert [table for table, *seen_to in rows if not all(seen_to)] == []


async def test_every_ticket_says_what_its_history_says(desk: Desk) -> None:
    assert await query(desk, CONTRADICTIONS) == []
    assert await query(desk, DISORDER) == []
    assert await query(desk, UNTOLD) == []


async def test_every_history_keeps_the_rules_of_histories(desk: Desk) -> None:
    events: dict[UUID, list[Row]] = defaultdict(list)
    for row in await query(desk, "SELECT * FROM admin_service.ticket_events ORDER BY ticket_id, position"):
        events[row["ticket_id"]].append(row)
    tickets = await tickets_of(desk)
    assert len(tickets) == TICKETS
    for ticket in tickets:
        check_history(events[ticket.id], ticket)


async def test_every_event_makes_a_message_and_every_order_can_be_read(desk: Desk) -> None:
    for row in await query(desk, "SELECT * FROM admin_service.ticket_events WHERE NOT is_internal"):
        entry = HistoryEntry(**{name: row[name] for name in HistoryEntry._fields})
        assert event_message(entry, row["ticket"]).key == str(entry.ticket_id).encode()
    known = await query(desk, "SELECT * FROM admin_service.ticket_orders WHERE state = 'known'")
    assert {from_json(row["snapshot"]).id for row in known} == {row["order_id"] for row in known}


async def test_the_sweeper_would_find_nothing_to_do(desk: Desk) -> None:
    assert await oldest_unflagged(desk.on, PATIENCE, UNTIL) is None
    assert await quiet_longest_due(desk.on, UNTIL) is None
    assert timedelta(microseconds=QUIET) == CLOSES_AFTER


async def test_tickets_are_as_skewed_as_real_ones(desk: Desk) -> None:
    tickets = await tickets_of(desk)
    of_user = Counter(Counter(ticket.user_id for ticket in tickets).values())
    assert of_user[1] > sum(of_user.values()) / 2
    assert max(of_user) > TICKETS / 100
    status = Counter(ticket.status for ticket in tickets)
    assert TICKETS * 0.01 < status["open"] < TICKETS * 0.04
    assert status["closed"] > TICKETS * 0.9
    comments = await query(desk, "SELECT count(*) FROM admin_service.ticket_comments GROUP BY ticket_id")
    assert len(comments) < TICKETS / 2
    assert sum(row["count"] >= CHATTY[0] for row in comments) == -(-(TICKETS - CHATTY_EVERY // 2) // CHATTY_EVERY)


async def test_lists_answer(desk: Desk) -> None:
    tickets = await tickets_of(desk)
    assert tickets == by_triage(tickets)
    busiest = Counter(ticket.user_id for ticket in tickets).most_common(1)[0][0]
    theirs = [ticket for ticket in tickets if ticket.user_id == busiest]
    assert await whole(my_tickets(desk, owner_of(theirs[0])), [100]) == newest_first(theirs)
    (longest,) = await query(desk, LONGEST)
    ticket = next(ticket for ticket in tickets if ticket.id == longest["ticket_id"])
    assert len(await whole(comments_on(desk, ticket), [100])) == longest["comments"]
    assert len(await whole(history_of(desk, ticket), [100])) == len(await events_of(desk, ticket))


async def test_work_goes_on_with_a_loaded_ticket(desk: Desk) -> None:
    ticket = next(ticket for ticket in await tickets_of(desk) if ticket.status == "open")
    await say(desk, ticket)
    await say(desk, ticket, as_agent())
    await move(desk, ticket, "resolved")
    await move(desk, ticket, "closed", owner_of(ticket))
    check_history(await events_of(desk, ticket), await look_at(desk, ticket))
    assert await query(desk, CONTRADICTIONS) == []


def test_the_same_seed_makes_the_same_rows() -> None:
    one, same, other = ([batch.rows for batch in batches(200, seed, UNTIL)] for seed in (1, 1, 2))
    assert one == same
    assert one != other
