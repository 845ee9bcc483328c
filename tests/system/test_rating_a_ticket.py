"""The owner of a ticket says how content they are, at every door; who else may not, and who reads it."""

from datetime import datetime, timedelta
from itertools import product
from typing import Any

import pytest

from tests.system.doors import Caller, Door
from tests.system.stage import Stage
from tests.system.vocabulary import as_agent, as_customer, assign, comment, move, new_id, open_ticket, rate

NOT_FOUND, PERMISSION_DENIED, FAILED_PRECONDITION = 5, 7, 9
A_WEEK = timedelta(days=7)
DOORS = range(3)
REMARK = "a-remark-that-stays-in-the-database"

# A process takes no other clock than the machine's: it is the ticket that becomes older.
MAKE_OLDER = """
    WITH resolved AS (
        UPDATE admin_service.support_tickets SET resolved_at = resolved_at - interval '8 days' WHERE id = %s
        RETURNING id
    )
    UPDATE admin_service.ticket_feedback SET rated_at = rated_at - interval '7 days 1 second' FROM resolved
    WHERE ticket_id = id RETURNING id
"""


def a_resolved_ticket(stage: Stage, owner: Caller, agent: Caller | None = None) -> dict[str, Any]:
    """One that was the agent's when it was resolved."""
    agent = agent or as_agent()
    ticket = open_ticket(stage.rest, owner)
    assign(stage.rest, agent, ticket)
    return move(stage.rest, agent, ticket, "resolved")


def read(door: Door, caller: Caller, ticket: dict[str, Any]) -> dict[str, Any]:
    """GetTicketFeedback."""
    return door.call("GetTicketFeedback", caller, ticket_id=ticket["id"]).resource


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize("which", DOORS)
def test_a_rating_is_given_changed_and_read_at_every_door(stage: Stage, which: int) -> None:
    owner, agent, door = as_customer(), as_agent(), stage.doors[which]
    ticket = a_resolved_ticket(stage, owner, agent)
    first = rate(door, owner, ticket, rating=2, remark=f" {REMARK}\r\n")
    assert first == {
        "ticket_id": ticket["id"],
        "rating": 2,
        "remark": REMARK,
        "resolved_by": agent.id,
        "rated_at": first["rated_at"],
        "updated_at": first["rated_at"],
        "changeable_until": first["changeable_until"],
        "sensitive_findings": [],
    }
    assert moment(first["changeable_until"]) - moment(first["rated_at"]) == A_WEEK

    changed = rate(door, owner, ticket, rating=4)
    assert changed == {name: value for name, value in first.items() if name != "remark"} | {
        "rating": 4,
        "updated_at": changed["updated_at"],
    }
    assert rate(door, owner, ticket, rating=4) == changed
    for reader, caller in product(stage.doors, (owner, as_agent())):
        assert read(reader, caller, ticket) == changed
    assert door.call("GetTicket", owner, ticket_id=ticket["id"]).resource == ticket


def test_kafka_and_the_history_tell_each_rating_and_nothing_of_the_remark(stage: Stage) -> None:
    owner, agent = as_customer(), as_agent()
    ticket = a_resolved_ticket(stage, owner, agent)
    before = len(stage.rest.call("ListTicketHistory", owner, ticket_id=ticket["id"]).resource["entries"])
    for rating in (2, 4, 4):
        rate(stage.rest, owner, ticket, rating=rating, remark=REMARK)
    records = stage.topic.records_of(ticket["id"], before + 2)
    told = [record.event for record in records][before:]
    assert [(event["event_type"], event["rating"], event["assigned_to"]) for event in told] == [
        ("ticket_rated", 2, agent.id),
        ("ticket_rated", 4, agent.id),
    ]
    assert all(event["actor"] == {"user_id": owner.id, "role": "customer"} for event in told)
    assert not [record for record in records if REMARK.encode() in record.value]
    for caller in (owner, as_agent()):
        entries = stage.rest.call("ListTicketHistory", caller, ticket_id=ticket["id"]).resource["entries"][before:]
        assert [(entry["event_id"], entry["rating"]) for entry in entries] == [
            (e["event_id"], e["rating"]) for e in told
        ]


def test_after_a_week_a_rating_stays_what_it_is_until_the_ticket_is_resolved_again(stage: Stage) -> None:
    owner, agent = as_customer(), as_agent()
    ticket = a_resolved_ticket(stage, owner, agent)
    given = rate(stage.rest, owner, ticket, rating=1)
    stage.query(MAKE_OLDER, ticket["id"])
    for door in stage.doors:
        answer = door.call("RateTicket", owner, ticket_id=ticket["id"], rating=5)
        assert (answer.code, answer.reason) == (FAILED_PRECONDITION, "FEEDBACK_FINAL")
        info = answer.payload["details"][0]["metadata"]
        until = read(door, owner, ticket)["changeable_until"]
        assert (info["ticket_id"], moment(info["changeable_until"])) == (ticket["id"], moment(until))
        assert moment(rate(door, owner, ticket, rating=1)["rated_at"]) < moment(given["rated_at"])

    comment(stage.rest, owner, ticket)  # which reopens it
    answer = stage.rest.call("RateTicket", owner, ticket_id=ticket["id"], rating=5)
    assert (answer.code, answer.reason) == (FAILED_PRECONDITION, "TICKET_NOT_RATABLE")
    other = as_agent()
    assign(stage.rest, other, ticket)
    move(stage.rest, other, ticket, "resolved")
    anew = rate(stage.rest, owner, ticket, rating=5)
    assert (anew["rating"], anew["resolved_by"]) == (5, other.id)
    assert moment(anew["rated_at"]) == moment(anew["updated_at"]) > moment(given["rated_at"])


@pytest.mark.parametrize("which", DOORS)
def test_a_strangers_rating_finds_no_ticket_and_staff_and_services_rate_nothing(stage: Stage, which: int) -> None:
    owner, door = as_customer(), stage.doors[which]
    ticket = a_resolved_ticket(stage, owner)
    for role, expected in {
        "customer": (NOT_FOUND, "TICKET_NOT_FOUND"),
        "driver": (NOT_FOUND, "TICKET_NOT_FOUND"),
        "support_agent": (PERMISSION_DENIED, "ROLE_NOT_ALLOWED"),
        "support_supervisor": (PERMISSION_DENIED, "ROLE_NOT_ALLOWED"),
        "service": (PERMISSION_DENIED, "ROLE_NOT_ALLOWED"),
    }.items():
        answer = door.call("RateTicket", Caller(role, new_id()), ticket_id=ticket["id"], rating=1)
        assert (answer.code, answer.reason) == expected
    answer = door.call("GetTicketFeedback", owner, ticket_id=ticket["id"])
    assert (answer.code, answer.reason) == (NOT_FOUND, "FEEDBACK_NOT_FOUND")
