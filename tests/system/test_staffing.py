"""The life of a team over REST: a roster, somebody with too much, tickets left alone, and a change of hands."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.system.doors import OK, Door
from tests.system.staffing import empty_roster, hire, set_off
from tests.system.stage import Stage
from tests.system.vocabulary import (
    as_agent,
    as_customer,
    as_supervisor,
    assign,
    comment,
    eventually,
    move,
    new_id,
    open_ticket,
)

FAILED_PRECONDITION, NOT_FOUND = 9, 5


@pytest.fixture
def door(stage: Stage) -> Door:
    """REST, with nobody on the roster."""
    empty_roster(stage)
    return stage.rest


def left_alone(stage: Stage, ticket: dict[str, Any], minutes: int = 16) -> None:
    """As if nobody of the staff had come to it for so long."""
    since = datetime.now(UTC) - timedelta(minutes=minutes)
    aged = "UPDATE admin_service.support_tickets SET unattended_since = %s WHERE id = %s RETURNING id"
    assert stage.query(aged, since, ticket["id"])


def now(door: Door, ticket: dict[str, Any]) -> dict[str, Any]:
    return door.call("GetTicket", as_supervisor(), ticket_id=ticket["id"]).resource


def unattended(door: Door, **filters: str) -> list[str]:
    """The ids of the flagged tickets."""
    page = door.call("ListUnattendedTickets", as_supervisor(), page_size=100, **filters).resource
    return [ticket["id"] for ticket in page["tickets"]]


def test_whoever_has_all_that_they_can_bear_is_assigned_no_more(door: Door) -> None:
    agent, boss = as_agent(), as_supervisor()
    hire(door, agent, capacity=1)
    first, second = (open_ticket(door, as_customer()) for _ in range(2))
    assign(door, agent, first)
    for caller in (agent, boss):
        answer = door.call("AssignTicket", caller, ticket_id=second["id"], assigned_to=agent.id)
        assert (answer.code, answer.reason) == (FAILED_PRECONDITION, "AGENT_AT_CAPACITY")
        (info,) = (detail for detail in answer.payload["details"] if "reason" in detail)
        assert info["metadata"] == {"assigned_to": agent.id}
    assert door.call("GetAgent", agent, agent_id=agent.id).resource["open_tickets"] == 1
    hire(door, agent, capacity=2)
    assert assign(door, agent, second)["assigned_to"] == agent.id
    hire(door, agent, capacity=2, active=False)
    third = door.call("AssignTicket", boss, ticket_id=open_ticket(door, as_customer())["id"], assigned_to=agent.id)
    assert (third.code, third.reason) == (FAILED_PRECONDITION, "AGENT_NOT_ACTIVE")


def test_the_sweeper_flags_what_is_left_alone_until_staff_come_to_it(stage: Stage, door: Door) -> None:
    owner, agent = as_customer(), as_agent()
    urgent, medium = open_ticket(door, owner, priority="urgent"), open_ticket(door, owner)
    for ticket in (urgent, medium):
        assign(door, agent, ticket)
        left_alone(stage, ticket)
    flagged = eventually(lambda: now(door, urgent) if "flagged_at" in now(door, urgent) else None, 30)
    assert flagged == now(door, urgent) | {"version": 2, "status": "in_progress"}
    assert unattended(door, assigned_to=agent.id) == unattended(door, assigned_to=agent.id, priority="urgent")
    assert unattended(door, assigned_to=agent.id) == [urgent["id"]]
    told = stage.topic.events_of(urgent["id"], 4)[3]
    assert (told["event_type"], told["reason"]) == ("ticket_flagged", "unattended")
    assert told["actor"] == {"user_id": "00000000-0000-0000-0000-000000000000", "role": "service"}
    assert told["ticket"]["flagged_at"] == flagged["flagged_at"]
    entries = door.call("ListTicketHistory", owner, ticket_id=urgent["id"]).resource["entries"]
    assert entries[-1]["event_type"] == "ticket_flagged"

    comment(door, owner, urgent)
    assert unattended(door, assigned_to=agent.id) == [urgent["id"]]
    comment(door, agent, urgent, is_internal=True)
    assert unattended(door, assigned_to=agent.id) == []
    assert "flagged_at" not in now(door, urgent)


def test_a_supervisor_gives_somebodys_tickets_to_whoever_can_bear_most(door: Door) -> None:
    boss, leaver, heir, busy = as_supervisor(), as_agent(), as_agent(), as_agent()
    for agent in (leaver, heir, busy):
        hire(door, agent, capacity=5)
    set_off(door, busy, "busy")
    tickets = [open_ticket(door, as_customer()) for _ in range(3)]
    for ticket in tickets:
        assign(door, leaver, ticket)
    done = move(door, leaver, tickets[0], "resolved")
    answer = door.call("ReassignTickets", boss, from_agent=leaver.id).resource
    moved = [{"ticket_id": ticket["id"], "assigned_to": heir.id, "reassigned": True} for ticket in tickets[1:]]
    assert answer == {"results": moved, "more": False}
    entry = door.call("ListTicketHistory", boss, ticket_id=tickets[1]["id"]).resource["entries"][-1]
    assert (entry["reason"], entry["previous_assignee"]) == ("by_supervisor", leaver.id)

    named = [done["id"], new_id(), tickets[1]["id"]]
    answer = door.call("ReassignTickets", boss, ticket_ids=named, assigned_to=heir.id).resource
    assert [row.get("reason") for row in answer["results"]] == ["TICKET_NOT_ASSIGNABLE", "TICKET_NOT_FOUND", None]
    assert [row["reassigned"] for row in answer["results"]] == [False, False, False]
    assert all("message" in row for row in answer["results"][:2])


def test_the_roster_is_listed_with_who_is_what_at_the_moment(door: Door) -> None:
    here, gone = as_agent(), as_agent()
    until = (datetime.now(UTC) + timedelta(seconds=1)).isoformat().replace("+00:00", "Z")
    for agent in (here, gone):
        hire(door, agent)
    assert set_off(door, gone, away_until=until)["availability"] == "away"

    def listed(*availability: str) -> set[str]:
        page = door.call("ListAgents", here, availability=list(availability)).resource
        return {agent["id"] for agent in page["agents"]}

    assert listed("available", "busy", "away") == listed() == {here.id, gone.id}
    eventually(lambda: listed("available") == {here.id, gone.id})
    assert listed("away") == set()
    back = door.call("GetAgent", here, agent_id=gone.id).resource
    assert "away_until" not in back
    first = door.call("ListAgents", here, page_size=1).resource
    second = door.call("ListAgents", here, page_size=1, page_token=first["next_page_token"]).resource
    assert [first["agents"][0]["id"], second["agents"][0]["id"]] == sorted([here.id, gone.id])
    assert door.call("GetAgent", here, agent_id=new_id()).code == NOT_FOUND
    assert door.call("GetAgent", here, agent_id=here.id).code == OK
