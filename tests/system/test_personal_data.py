"""Erasing and handing out a person's data, through every door and through all services."""

import re
from itertools import product
from typing import Any

import pytest

from tests.integration.traces import traces
from tests.system.doors import PRIVACY_CALLS, Answer, Caller, Door, Json
from tests.system.stage import Stage
from tests.system.vocabulary import (
    as_agent,
    as_customer,
    as_service,
    as_supervisor,
    assign,
    comment,
    eventually,
    move,
    new_id,
    open_ticket,
)

ALL_SERVICES = 20.0
"""Within which an event has passed through Kafka, and whatever follows from it is done."""

INVALID_ARGUMENT, PERMISSION_DENIED = 3, 7
MAY = {"support_supervisor", "service"}
ROLES = ["customer", "restaurant", "driver", "support_agent", *MAY]


def a_life(stage: Stage, owner: Caller, agent: Caller, secret: str) -> dict[str, Any]:
    """A ticket in which the secret stands wherever a text may stand."""
    rest = stage.rest
    ticket = open_ticket(rest, owner, subject=f"{secret} 1", description=f"{secret} 2", order_id=new_id(), key=new_id())
    assign(rest, agent, ticket)
    comment(rest, owner, ticket, comment=f"{secret} 3", key=new_id())
    comment(rest, agent, ticket, comment=f"{secret} 4")
    comment(rest, agent, ticket, comment=f"{secret} 5", is_internal=True)
    return move(rest, agent, ticket, "resolved", resolution_notes=f"{secret} 6")


def inbox_of(door: Door, caller: Caller) -> list[dict[str, Any]]:
    """What the caller was told."""
    listed: list[dict[str, Any]] = door.call("ListNotifications", caller).resource["notifications"]
    return listed


def figures_of(stage: Stage, agent: Caller) -> list[Json]:
    """What the report has about one staff member."""
    span = {"start_time": "2026-01-01T00:00:00Z", "end_time": "2027-01-01T00:00:00Z", "interval": "week"}
    report = stage.rest.call("GetSupportMetrics", as_supervisor(), **span).resource
    return [it["metrics"] for it in report["agents"] if it["agent_id"] == agent.id]


def test_an_erased_user_is_found_nowhere_and_the_figures_stay(stage: Stage) -> None:
    owner, agent, boss, secret = as_customer(), as_agent(), as_supervisor(), f"Marzipan-{new_id()}"
    stage.rest.call("UpdateNotificationPreferences", owner, muted_types=["ticket_closed"])
    inbox_of(stage.rest, agent)  # which makes the agent known as staff
    tickets = [a_life(stage, owner, agent, secret) for _ in range(2)]
    told = {"ticket_assigned", "ticket_commented", "ticket_resolved"}
    eventually(lambda: len(inbox_of(stage.rest, owner)) == 2 * len(told), ALL_SERVICES)
    eventually(lambda: len([it for it in inbox_of(stage.rest, agent) if secret in it["subject"]]) == 4, ALL_SERVICES)
    eventually(lambda: (figures_of(stage, agent) or [{}])[0].get("resolved") == 2, ALL_SERVICES)
    figures = figures_of(stage, agent)
    before = traces(stage.stack.dsn, owner.id, secret)
    assert {place.partition(".")[0] for places in before.values() for place in places} == {
        "admin_service",
        "notification_service",
    }

    answer = stage.rest.call("ErasePersonalData", boss, user_id=owner.id).resource
    assert answer == {"finished": True, "erased_tickets": 2}
    eventually(lambda: traces(stage.stack.dsn, owner.id, secret) == {}, ALL_SERVICES)
    assert figures_of(stage, agent) == figures
    assert [it["subject"] for it in inbox_of(stage.rest, agent)].count("[erased]") == 4
    assert inbox_of(stage.rest, owner) == []
    assert stage.rest.call("ListMyTickets", owner).resource["tickets"] == []
    for ticket in tickets:
        left = stage.rest.call("GetTicket", agent, ticket_id=ticket["id"]).resource
        kept = {"id", "status", "priority", "assigned_to", "resolved_at", "created_at"}
        assert {name: left[name] for name in kept} == {name: ticket[name] for name in kept}
        *_, erased = stage.topic.events_of(ticket["id"], 8)
        assert (erased["event_type"], erased["erased_user_id"]) == ("ticket_erased", owner.id)
        assert erased["actor"] == {"user_id": boss.id, "role": boss.role}
        assert (erased["ticket"]["subject"], erased["ticket"]["user_id"]) == ("[erased]", left["user_id"])
    # Nothing that comes later brings the user back, nor is anybody told of it who is not staff.
    comment(stage.rest, agent, tickets[0], comment="Whoever it was.")
    stage.topic.events_of(tickets[0]["id"], 9)
    assert traces(stage.stack.dsn, owner.id, secret) == {}


def exported(door: Door, caller: Caller, user: Caller, size: int) -> list[list[dict[str, Any]]]:
    """Every page of an export."""
    pages: list[list[dict[str, Any]]] = []
    token = ""
    while not pages or token:
        page = door.call("ExportPersonalData", caller, user_id=user.id, page_size=size, page_token=token).resource
        pages.append(page["records"])
        token = page["next_page_token"]
    return pages


def test_an_export_is_complete_and_the_same_through_every_door(stage: Stage) -> None:
    owner, agent, secret = as_customer(), as_agent(), new_id()
    tickets = [a_life(stage, owner, agent, secret) for _ in range(2)]
    history, comments = (
        [
            entry
            for ticket in tickets
            for entry in stage.rest.call(call, owner, ticket_id=ticket["id"]).resource[name][::step]
        ]
        for call, name, step in (("ListTicketHistory", "entries", 1), ("ListComments", "comments", -1))
    )
    for door, caller, size in zip(
        stage.doors, (as_supervisor(), as_service(), as_supervisor()), (3, 1, 100), strict=True
    ):
        pages = exported(door, caller, owner, size)
        assert [len(page) <= size for page in pages] == [True] * len(pages)
        records = [record for page in pages for record in page]
        assert [record["ticket"] for record in records if "ticket" in record] == tickets
        assert [record["comment"] for record in records if "comment" in record] == comments
        assert [record["history_entry"] for record in records if "history_entry" in record] == history
        assert len(records) == len(tickets) + len(comments) + len(history)
        orders = [record["order"]["order_id"] for record in records if "order" in record]
        assert orders == [ticket["order_id"] for ticket in tickets]
        assert f"{secret} 5" not in str(records), "internal notes are nobody's but the staff's"
    notes = stage.rest.call("ListTicketHistory", agent, ticket_id=tickets[0]["id"]).resource["entries"]
    assert [entry["event_type"] for entry in notes].count("ticket_exported") == len(stage.doors)


@pytest.mark.parametrize(("call", "role"), list(product(PRIVACY_CALLS, sorted(ROLES))))
def test_supervisors_and_services_may_and_nobody_else_not_even_about_themselves(
    stage: Stage, call: str, role: str
) -> None:
    for door in stage.doors:
        caller, owner = Caller(role, new_id()), as_customer()
        ticket = open_ticket(stage.rest, owner)
        for user in (caller, owner):
            answer = door.call(call, caller, user_id=user.id)
            expected = (0, "") if role in MAY else (PERMISSION_DENIED, "ROLE_NOT_ALLOWED")
            assert (answer.code, answer.reason) == expected, answer
        left = stage.rest.call("GetTicket", owner, ticket_id=ticket["id"])
        assert (left.code == 0) is not (role in MAY and call == "ErasePersonalData")


REFUSALS: list[tuple[str, dict[str, Json], set[str]]] = [
    ("ErasePersonalData", {"user_id": "somebody"}, {"user_id"}),
    (
        "ExportPersonalData",
        {"user_id": "1", "page_size": -1, "page_token": "x"},
        {"user_id", "page_size", "page_token"},
    ),
    ("ExportPersonalData", {"user_id": new_id(), "page_token": "bm9uc2Vuc2U"}, {"page_token"}),
]


@pytest.mark.parametrize(("call", "fields", "bad"), REFUSALS)
def test_bad_fields_are_named_all_at_once_and_alike_at_every_door(
    stage: Stage, call: str, fields: dict[str, Json], bad: set[str]
) -> None:
    first, *others = (door.call(call, as_supervisor(), **fields) for door in stage.doors)
    assert (first.code, first.reason, set(first.bad_fields)) == (INVALID_ARGUMENT, "INVALID_FIELDS", bad)
    assert others == [first, first]


def test_a_token_of_another_callers_export_is_refused_at_every_door(stage: Stage) -> None:
    owner, boss = as_customer(), as_supervisor()
    open_ticket(stage.rest, owner)
    for door in stage.doors:
        token = door.call("ExportPersonalData", boss, user_id=owner.id, page_size=1).resource["next_page_token"]
        assert re.fullmatch(r"[\w-]+", token)
        others: list[Answer] = [
            door.call("ExportPersonalData", as_supervisor(), user_id=owner.id, page_token=token),
            door.call("ExportPersonalData", boss, user_id=new_id(), page_token=token),
        ]
        assert [answer.bad_fields for answer in others] == [["page_token"]] * 2
