"""The floor that the service is measured against does the same work: same answers, same rows."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from bench.company import floor
from bench.kinds import KINDS
from tests.system.doors import Door, Grpc
from tests.system.stage import Stage
from tests.system.vocabulary import as_agent, as_customer, comment, eventually, move, open_ticket

Row = dict[str, Any]
OWN = {
    "support_tickets": {"id", "user_id"},
    "ticket_comments": {"id", "ticket_id", "user_id"},
    "ticket_events": {"id", "row_no", "ticket_id", "change_id", "actor_id", "comment_id", "published_at"},
}
"""What two rows for the same act differ in, beside times; the relay marks events when it comes to it."""


@pytest.fixture(scope="module")
def bare(stage: Stage) -> Iterator[Door]:
    """The floor, on the service's database."""
    with floor(stage.stack) as running:
        door = Grpc("the floor", running.target, stage.mint)
        yield door
        door.close()


def rows_of(stage: Stage, ticket: dict[str, Any]) -> list[Row]:
    """Everything that the tables have of a ticket, without what no other ticket can have."""
    found: list[Row] = []
    with psycopg.connect(stage.stack.dsn, autocommit=True, row_factory=dict_row) as connection:
        for table, own in OWN.items():
            column = "id" if table == "support_tickets" else "ticket_id"
            statement = f"SELECT * FROM admin_service.{table} WHERE {column} = %s ORDER BY created_at"  # noqa: S608
            statement = statement.replace("created_at", "position") if table == "ticket_events" else statement
            rows = connection.execute(statement.encode(), [ticket["id"]]).fetchall()
            found += [{"table": table, **_comparable(row, own)} for row in rows]
    return found


def _comparable(row: Row, own: set[str]) -> Row:
    """Of a snapshot its names, of a time whether there is one."""
    plain = {name: value for name, value in row.items() if name not in own}
    return {name: _plain(value) for name, value in plain.items()}


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {name: each for name, each in value.items() if name in ("subject", "status", "priority", "version")} | {
            "names": set(value)
        }
    return "a time" if hasattr(value, "tzinfo") else value


def alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two messages are the same but for ids and times."""
    ids = {"id", "ticket_id", "user_id", "created_at", "updated_at"}
    return one.keys() == other.keys() and all(one[name] == other[name] for name in one.keys() - ids)


def test_a_ticket_of_the_floors_is_one_of_the_services(stage: Stage, bare: Door) -> None:
    owner, text = as_customer(), {"subject": "Cold soup", "description": "It was hot.", "priority": "high"}
    theirs, ours = (open_ticket(door, owner, **text) for door in (bare, stage.own_port))
    assert alike(theirs, ours)
    assert rows_of(stage, theirs) == rows_of(stage, ours)


def test_a_comment_by_the_floor_is_one_of_the_services(stage: Stage, bare: Door) -> None:
    owner = as_customer()
    theirs, ours = (open_ticket(stage.own_port, owner) for _ in range(2))
    said = [comment(door, owner, ticket) for door, ticket in ((bare, theirs), (stage.own_port, ours))]
    assert alike(*said)
    assert rows_of(stage, theirs) == rows_of(stage, ours)


def test_the_floor_moves_a_ticket_as_staff_do(stage: Stage, bare: Door) -> None:
    owner, agent = as_customer(), as_agent()
    theirs, ours = (open_ticket(stage.own_port, owner) for _ in range(2))
    for status in ("in_progress", "open"):
        moved = [move(door, agent, ticket, status) for door, ticket in ((bare, theirs), (stage.own_port, ours))]
        assert alike(*moved)
    assert rows_of(stage, theirs) == rows_of(stage, ours)


def test_the_floor_reads_what_the_service_reads(stage: Stage, bare: Door) -> None:
    owner = as_customer()
    ticket = open_ticket(stage.own_port, owner, description="My card is 4111 1111 1111 1111.")
    for number in range(3):
        comment(stage.own_port, owner, ticket, comment=f"Remark {number}")
    for call in ("GetTicket", "ListComments"):
        theirs, ours = (door.call(call, owner, ticket_id=ticket["id"]) for door in (bare, stage.own_port))
        assert theirs.resource == ours.resource
    assert ours.resource["comments"]


@pytest.mark.parametrize("filters", [{}, {"status": ["open", "in_progress"], "priority": ["urgent"]}])
def test_the_floor_lists_what_the_service_lists(stage: Stage, bare: Door, filters: dict[str, Any]) -> None:
    agent = as_agent()
    for _ in range(3):
        open_ticket(stage.own_port, as_customer(), priority="urgent")

    def listed(door: Door) -> list[dict[str, Any]]:
        tickets: list[dict[str, Any]] = door.call("ListTickets", agent, page_size=20, **filters).resource["tickets"]
        return tickets

    # Others may change a ticket between the two looks.
    eventually(lambda: listed(bare) == listed(stage.own_port))


def test_the_floor_answers_every_kind_of_call_that_is_measured() -> None:
    called = {"CreateTicket", "GetTicket", "ListTickets", "AddComment", "ListComments", "UpdateTicketStatus"}
    assert {kind.method.name for kind in KINDS.values()} == called
