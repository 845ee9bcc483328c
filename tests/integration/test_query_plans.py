"""Each list is answered through its index, and a deep page reads no more rows than the first."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql

from server.db import statements
from server.db.schema import SHARDS
from server.db.statement import Statement
from server.domain.events import EventDraft
from server.domain.paging import FIRST, LAST
from tests.integration.vocabulary import EMPTY, START

TICKETS = 20_000
PAGE = 21
# 601 users and one who has thousands of tickets, 5 agents and nobody, every status and priority in every mixture; one
# ticket has a long history.
FILL = """
    INSERT INTO admin_service.support_tickets (
        id, user_id, subject, description, status, priority, assigned_to, created_at, updated_at, version,
        event_count, history_count, unattended_since, flagged_at
    )
    SELECT lpad(to_hex(n), 32, '0')::uuid,
        lpad(to_hex(CASE WHEN n > 16000 THEN 700 ELSE mod(n, 601) END), 32, '0')::uuid, 'Cold soup',
        repeat('cold ', 40),
        (array['open', 'in_progress', 'resolved', 'closed'])[1 + mod(n, 4)],
        (array['low', 'medium', 'high', 'urgent'])[1 + mod(n / 7, 4)],
        CASE WHEN mod(n, 3) > 0 THEN lpad(to_hex(mod(n, 5)), 32, '0')::uuid END,
        %(start)s + n * interval '1 minute', %(start)s, 1, 1, 1, %(start)s + n * interval '1 minute',
        CASE WHEN mod(n, 4) < 2 AND mod(n / 4, 5) = 0 THEN %(start)s END
    FROM generate_series(1, %(count)s) n;

    INSERT INTO admin_service.agents
    SELECT lpad(to_hex(n), 32, '0')::uuid, 'Ada', 'support_agent', 1, 20, true,
        (array['available', 'away', 'busy'])[1 + mod(n, 3)], null, %(start)s, %(start)s, %(start)s
    FROM generate_series(1, 60) n;

    INSERT INTO admin_service.ticket_comments
    SELECT lpad(to_hex(n), 32, '0')::uuid, lpad(to_hex(1 + mod(n, 3) * mod(n, 600)), 32, '0')::uuid, gen_random_uuid(),
        'Still waiting.', mod(n, 2) = 0, %(start)s + n * interval '1 minute', 'customer'
    FROM generate_series(1, %(count)s) n;

    INSERT INTO admin_service.ticket_events (
        id, ticket_id, position, sequence, change_id, event_type, occurred_at, actor_id, actor_role, is_internal,
        ticket, published_at
    )
    SELECT gen_random_uuid(), lpad(to_hex(CASE WHEN mod(n, 3) = 0 THEN 1 ELSE n END), 32, '0')::uuid, n, n,
        gen_random_uuid(), 'ticket_commented', %(start)s + n * interval '1 minute', gen_random_uuid(), 'customer',
        false, '{}', CASE WHEN n < %(count)s - 30 THEN %(start)s END
    FROM generate_series(1, %(count)s) n;

    INSERT INTO admin_service.concealed_texts SELECT id, 'description', id, 'my PIN is 4711'
    FROM admin_service.support_tickets;
"""
MIDDLE = START + timedelta(minutes=TICKETS // 2)
END = START + timedelta(minutes=TICKETS)
FIRST_VALUES = {
    "after_rank": FIRST.number,
    "after_number": 0,
    "after_created_at": FIRST.created_at,
    "after_id": FIRST.id,
}
LAST_VALUES = {"after_rank": LAST.number, "after_created_at": LAST.created_at, "after_id": LAST.id}
DEEP = {"after_rank": 2, "after_number": TICKETS // 2, "after_created_at": MIDDLE, "after_id": UUID(int=TICKETS // 2)}
EVERYTHING: dict[str, object] = {
    "statuses": ["open", "in_progress", "resolved", "closed"],
    "ranks": [0, 1, 2, 3],
    "created_after": FIRST.created_at,
    "created_before": LAST.created_at,
    "unassigned": False,
    "assigned_to": None,
    "owner": None,
    "with_internal": True,
    "limit": PAGE,
}
AGENT, USER, TICKET = {"assigned_to": UUID(int=2)}, {"user_id": UUID(int=5)}, {"ticket_id": UUID(int=1)}
QUEUE = {"shards": list(range(SHARDS)), "except": [UUID(int=n) for n in range(10)], "most": PAGE}
URGENT_LEFT_ALONE = {"rank": 0, "last_due": END, "after_since": FIRST.created_at, "after_id": FIRST.id}
TICKET_OF_FEW = {"ticket_id": UUID(int=2)}
AN_HOUR = {"since": START, "until": START + timedelta(hours=1)}
# Statement, its values beside EVERYTHING, where it starts, the index that answers it, and how many ranges it merges.
LISTS: dict[str, tuple[dict[str, Any], dict[str, Any], str, int]] = {
    "LIST_TICKETS": ({}, FIRST_VALUES, "support_tickets_by_status", 8),
    "LIST_UNASSIGNED_TICKETS": ({}, FIRST_VALUES, "support_tickets_unassigned", 8),
    "LIST_TICKETS_OF_ASSIGNEE": (AGENT, FIRST_VALUES, "support_tickets_by_assignee", 8),
    "LIST_MY_TICKETS": (USER, LAST_VALUES, "support_tickets_by_user", 4),
    "LIST_TICKETS_OF_USER": (USER, FIRST_VALUES, "support_tickets_by_user_in_triage", 8),
    "LIST_FLAGGED_TICKETS": ({}, FIRST_VALUES, "support_tickets_flagged", 2),
    "LIST_UNATTENDED": (URGENT_LEFT_ALONE, {}, "support_tickets_unattended", 1),
    "LIST_COMMENTS": (TICKET, LAST_VALUES, "ticket_comments_by_ticket", 1),
    "LIST_HISTORY": (TICKET, FIRST_VALUES, "ticket_events_ticket_id_position_key", 1),
    "LIST_PUBLIC_HISTORY": (TICKET, FIRST_VALUES, "ticket_events_ticket_id_position_key", 1),
    "MEASURE_BACKLOG": (QUEUE, {}, "ticket_events_unpublished", 3),
    "LIST_PUBLISHED_OF_TICKET": (TICKET_OF_FEW, {}, "ticket_events_ticket_id_position_key", 1),
    # Such an index tells blocks of some thousand rows apart, no less; the table has 20.
    "LIST_PUBLISHED_BETWEEN": (AN_HOUR, {}, "ticket_events_by_time", 400),
    "COUNT_PUBLISHED_BETWEEN": (AN_HOUR, {}, "ticket_events_by_time", 400),
    "GET_TICKET": (TICKET, {}, "support_tickets_pkey", 1),
}
triage_lists = pytest.mark.parametrize("name", ["LIST_TICKETS", "LIST_UNASSIGNED_TICKETS", "LIST_TICKETS_OF_ASSIGNEE"])
every_list = pytest.mark.parametrize("name", LISTS)
Node = dict[str, Any]


@pytest.fixture(scope="module")
def connection(shared_dsn: str) -> Iterator[psycopg.Connection]:
    """A connection to a database with some thousands of rows in each table, and up-to-date statistics."""
    with psycopg.connect(shared_dsn, autocommit=True) as connection:
        connection.execute(EMPTY)
        # Else VACUUM comes too early to see that the rows are committed, and no index suffices without its table.
        connection.execute(b"SET synchronous_commit = on")
        psycopg.ClientCursor(connection).execute(FILL, {"start": START, "count": TICKETS})
        connection.execute(b"VACUUM ANALYZE")
        connection.execute(b"SET plan_cache_mode = force_generic_plan")
        yield connection


def plan_of(connection: psycopg.Connection, statement: Statement, values: dict[str, Any]) -> Node:
    """The generic plan of the prepared statement, as it went for these values."""
    connection.execute(f"PREPARE this AS {statement.sql}".encode())
    parameters = sql.SQL(", ").join(map(sql.Literal, statement.bind(values)))
    call = sql.SQL("({})").format(parameters) if statement.names else sql.SQL("")
    try:
        row = connection.execute(
            sql.SQL("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) EXECUTE this {}").format(call)
        ).fetchone()
    finally:
        connection.execute(b"DEALLOCATE this")
    assert row is not None
    plan: Node = row[0][0]["Plan"]
    return plan


def nodes(plan: Node) -> Iterator[Node]:
    """The node and all below it."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def rows_read(plan: Node) -> float:
    """How many rows the scans of the plan looked at."""
    scans = (node for node in nodes(plan) if "Scan" in node["Node Type"] and "Relation Name" in node)
    filtered = ("Rows Removed by Filter", "Rows Removed by Index Recheck")
    return float(sum((n["Actual Rows"] + sum(n.get(f, 0) for f in filtered)) * n["Actual Loops"] for n in scans))


@every_list
def test_a_list_is_answered_through_its_index(connection: psycopg.Connection, name: str) -> None:
    values, start, index, _ = LISTS[name]
    statement: Statement = getattr(statements, name)
    plan = plan_of(connection, statement, EVERYTHING | values | start)
    used = {node["Index Name"] for node in nodes(plan) if "Index Name" in node}
    kinds = {node["Node Type"] for node in nodes(plan)}
    # Whose ticket it is, is looked up by its id.
    ticket_itself = {"support_tickets_pkey"} if "owner" in statement.names else set[str]()
    assert used == {index} | ticket_itself, json.dumps(plan, indent=1)
    assert "Seq Scan" not in kinds, json.dumps(plan, indent=1)


@every_list
@pytest.mark.parametrize("where", ["first", "deep"])
def test_a_page_reads_about_a_page_of_rows_wherever_it_lies(
    connection: psycopg.Connection, name: str, where: str
) -> None:
    values, start, _, ranges = LISTS[name]
    plan = plan_of(connection, getattr(statements, name), EVERYTHING | values | (DEEP if where == "deep" else start))
    assert rows_read(plan) <= ranges * PAGE, json.dumps(plan, indent=1)


def test_the_queue_is_read_through_its_index_and_what_is_marked_meanwhile_by_its_id(
    connection: psycopg.Connection,
) -> None:
    marked = [row[0] for row in connection.execute(b"SELECT id FROM admin_service.ticket_events LIMIT 40").fetchall()]
    values = EVERYTHING | QUEUE | {"event_ids": marked, "now": START}
    plan = plan_of(connection, statements.MARK_AND_LIST_UNPUBLISHED, values)
    used = {node["Index Name"] for node in nodes(plan) if "Index Name" in node}
    assert used == {"ticket_events_unpublished", "ticket_events_pkey"}, json.dumps(plan, indent=1)
    assert "Seq Scan" not in {node["Node Type"] for node in nodes(plan)}
    assert rows_read(plan) <= 2 * (30 + len(marked))


COUNTS: dict[str, dict[str, Any]] = {
    "GET_AGENT": {"agent_id": UUID(int=2)},
    "LIST_AGENTS": {"with_inactive": False, "availabilities": ["available", "away", "busy"]} | FIRST_VALUES,
    "LIST_WILLING_AGENTS": {},
    "LIST_TICKETS_OF_AWAY": {"away_since": END} | FIRST_VALUES,
    "LONGEST_AWAY": {"away_since": END},
    "LIST_FLAGGED_TICKETS_OF_ASSIGNEE": AGENT | FIRST_VALUES,
}


@pytest.mark.parametrize("name", COUNTS)
def test_the_tickets_of_the_roster_are_found_without_reading_all_tickets(
    connection: psycopg.Connection, name: str
) -> None:
    plan = plan_of(connection, getattr(statements, name), EVERYTHING | {"now": END} | COUNTS[name])
    scans = {node["Node Type"] for node in nodes(plan) if node.get("Relation Name") == "support_tickets"}
    assert "Seq Scan" not in scans, json.dumps(plan, indent=1)
    used = {node["Index Name"] for node in nodes(plan) if "Index Name" in node}
    # The flagged ones are few as well, of whomever they are.
    assert used - {"agents_pkey", "support_tickets_flagged"} == {"support_tickets_by_assignee"}


def test_the_flagged_tickets_of_somebody_are_looked_for_among_those_that_they_still_have(
    connection: psycopg.Connection,
) -> None:
    done_with = EVERYTHING | AGENT | FIRST_VALUES | {"statuses": ["resolved", "closed"]}
    plan = plan_of(connection, statements.LIST_FLAGGED_TICKETS_OF_ASSIGNEE, done_with)
    assert rows_read(plan) == 0, json.dumps(plan, indent=1)


def blocks_read(plan: Node) -> int:
    """How many blocks of the table and its index were looked at, in the cache or not."""
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


@pytest.mark.parametrize("rank", range(4))
@triage_lists
def test_a_deep_page_begins_in_the_index_where_the_page_before_ended(
    connection: psycopg.Connection, name: str, rank: int
) -> None:
    # Rows alone would not tell: those that an index leaves out are read in the index all the same.
    values, start, _, _ = LISTS[name]
    deep = DEEP | {"after_rank": rank, "after_created_at": MIDDLE + (END - MIDDLE) / 2}
    first, later = (plan_of(connection, getattr(statements, name), EVERYTHING | values | at) for at in (start, deep))
    assert blocks_read(later) <= 4 * blocks_read(first), json.dumps(later, indent=1)


@triage_lists
def test_a_list_within_two_moments_reads_no_index_beside_them(connection: psycopg.Connection, name: str) -> None:
    values, start, _, _ = LISTS[name]
    an_hour = {"created_after": MIDDLE, "created_before": MIDDLE + timedelta(hours=1)}
    first, within = (
        plan_of(connection, getattr(statements, name), EVERYTHING | values | start | bounds) for bounds in ({}, an_hour)
    )
    assert blocks_read(within) <= 4 * blocks_read(first), json.dumps(within, indent=1)


@triage_lists
def test_a_status_that_was_not_asked_for_costs_nothing(connection: psycopg.Connection, name: str) -> None:
    values, start, _, _ = LISTS[name]
    plan = plan_of(connection, getattr(statements, name), EVERYTHING | values | start | {"statuses": ["open"]})
    assert rows_read(plan) <= PAGE, json.dumps(plan, indent=1)


def test_a_deep_page_is_not_empty(connection: psycopg.Connection) -> None:
    for name in ("LIST_TICKETS", "LIST_UNASSIGNED_TICKETS", "LIST_TICKETS_OF_ASSIGNEE", "LIST_HISTORY"):
        plan = plan_of(connection, getattr(statements, name), EVERYTHING | LISTS[name][0] | DEEP)
        assert plan["Actual Rows"] == PAGE


# The user has some thirty tickets, of which the first has thousands of comments and entries.
OWNER = {"user_id": UUID(int=1)}
EXPORTS: dict[str, dict[str, dict[str, Any]]] = {
    "EXPORT_TICKETS": {"first": {"after_id": FIRST.id}, "deep": {"after_id": UUID(int=TICKETS // 2)}},
    "EXPORT_COMMENTS": {
        "first": {"after_ticket": FIRST.id, **FIRST_VALUES},
        "deep": {**DEEP, "after_ticket": TICKET["ticket_id"]},
        "last": {"after_ticket": UUID(int=602), **FIRST_VALUES},
    },
    "EXPORT_HISTORY": {
        "first": {"after_ticket": FIRST.id, "after_number": -1},
        "deep": {"after_ticket": TICKET["ticket_id"], "after_number": TICKETS // 2},
        "last": {"after_ticket": UUID(int=602), "after_number": -1},
    },
}


@pytest.mark.parametrize(("name", "where"), [(name, where) for name, of in EXPORTS.items() for where in of])
def test_a_page_of_an_export_reads_the_users_tickets_and_about_a_page_of_what_is_on_each(
    connection: psycopg.Connection, name: str, where: str
) -> None:
    plan = plan_of(connection, getattr(statements, name), OWNER | {"limit": PAGE} | EXPORTS[name][where])
    assert rows_read(plan) <= 34 + 34 + 3 * PAGE, json.dumps(plan, indent=1)
    # Both begin with the user.
    by_user = {"support_tickets_by_user", "support_tickets_by_user_in_triage"}
    assert by_user & {node.get("Index Name") for node in nodes(plan)}


# A list is read from where it begins. An export looks up which tickets there are, in the index alone, and then reads
# those that fill a page.
OF_BUSY_USER: dict[str, tuple[dict[str, Any], int]] = {
    "LIST_TICKETS_OF_USER": (EVERYTHING | FIRST_VALUES, 8 * PAGE),
    "LIST_MY_TICKETS": (EVERYTHING | LAST_VALUES, 4 * PAGE),
    "EXPORT_TICKETS": (EXPORTS["EXPORT_TICKETS"]["first"], 20 * PAGE),
    "EXPORT_HISTORY": (EXPORTS["EXPORT_HISTORY"]["first"], 20 * PAGE),
}


@pytest.mark.parametrize("name", OF_BUSY_USER)
def test_a_page_of_somebody_with_thousands_of_tickets_reads_few_blocks(
    connection: psycopg.Connection, name: str
) -> None:
    values, blocks = OF_BUSY_USER[name]
    plan = plan_of(connection, getattr(statements, name), values | {"user_id": UUID(int=700), "limit": PAGE})
    assert plan["Actual Rows"] == PAGE
    assert blocks_read(plan) <= blocks, json.dumps(plan, indent=1)


# One statement each; what a write adds to the history has values of its own.
ENTRY: dict[str, object] = {f"draft_{name}": [None] for name in EventDraft._fields} | {
    "draft_event_id": [UUID(int=1)],
    "draft_event_type": ["ticket_revealed"],
    "change_id": UUID(int=1),
    "actor_id": UUID(int=1),
    "actor_role": "support_supervisor",
    "now": START,
    "version": 1,
    "comment_id": UUID(int=3),
    "ticket_id": UUID(int=1),
}
NEW_NOTES: dict[str, object] = {
    "new_status": "resolved",
    "new_assigned_to": None,
    "new_resolved_at": START,
    "new_resolution_notes": "my PIN is ****",
    "new_updated_at": START,
    "new_version": 2,
    "attended": True,
    "findings": "[]",
    "concealed_fields": ["resolution_notes"],
    "concealed_texts": ["my PIN is 4711"],
}


@pytest.mark.parametrize("name", ["REVEAL_TICKET", "REVEAL_COMMENT", "RESOLVE_TICKET"])
def test_originals_are_looked_for_by_their_key(connection: psycopg.Connection, name: str) -> None:
    statement = getattr(statements, name)
    with connection.transaction(force_rollback=True):
        plan = plan_of(connection, statement, ENTRY | NEW_NOTES)
    assert "concealed_texts_pkey" in {node.get("Index Name") for node in nodes(plan)}
    assert "Seq Scan" not in {node["Node Type"] for node in nodes(plan)}, json.dumps(plan, indent=1)
