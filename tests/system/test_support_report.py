"""Tickets as they are worked on, and the report that supervisors get of them, at every door."""

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any, NamedTuple

import pytest

from tests.system.doors import REPORT_CALLS, Answer, Caller, Door
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
    rate,
)

FOREVER = {"start_time": "2020-01-01T00:00:00Z", "end_time": "2026-01-01T00:00:00Z", "interval": "week"}
INVALID_ARGUMENT, PERMISSION_DENIED = 3, 7
OTHERS = ("customer", "restaurant", "driver", "support_agent", "service")


def since(ticket: dict[str, Any]) -> dict[str, str]:
    """From the moment of a ticket's creation up to tomorrow."""
    return {
        "start_time": ticket["created_at"],
        "end_time": f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}",
    }


def report(door: Door, **fields: str) -> dict[str, Any]:
    """What a supervisor is told."""
    return door.call("GetSupportMetrics", as_supervisor(), **fields).resource


def figures_of(agent: Caller, found: dict[str, Any]) -> dict[str, Any]:
    """The figures of one staff member; none where the report does not have them."""
    return next((each["metrics"] for each in found["agents"] if each["agent_id"] == agent.id), {})


def counted(*counts: int) -> list[dict[str, int]]:
    """How often each rating was given, from 1 on."""
    return [{"rating": rating, "count": count} for rating, count in enumerate(counts, 1)]


class Worked(NamedTuple):
    """An agent who has worked, and the first of their tickets."""

    agent: Caller
    ticket: dict[str, Any]


@pytest.fixture(scope="module")
def worked(stage: Stage) -> Worked:
    """Three tickets: one is answered, resolved, reopened, resolved and closed, one is resolved, one is at work.

    The first two are rated.
    """
    agent, owners = as_agent(), [as_customer() for _ in range(3)]
    tickets = [open_ticket(stage.rest, owner, priority="urgent") for owner in owners]
    for ticket in tickets:
        assign(stage.rest, agent, ticket)
    first, second, _ = tickets
    comment(stage.rest, agent, first)
    move(stage.rest, agent, first, "resolved")
    comment(stage.rest, owners[0], first)  # which reopens it
    move(stage.rest, agent, first, "resolved")
    move(stage.rest, owners[0], first, "closed")
    move(stage.rest, agent, second, "resolved")
    for rating in (1, 4):  # the owner has a second thought
        rate(stage.rest, owners[0], first, rating=rating)
    rate(stage.rest, owners[1], second, rating=5)
    return Worked(agent, first)


def test_a_ticket_that_is_worked_on_shows_in_the_report_at_every_door(stage: Stage, worked: Worked) -> None:
    for door in stage.doors:
        found = complete_report(door, worked)
        figures = figures_of(worked.agent, found)
        assert {name: figures[name] for name in ("created", "resolved", "closed", "reopened", "backlog")} == {
            "created": 3,
            "resolved": 3,
            "closed": 1,
            "reopened": 1,
            "backlog": 1,
        }
        assert figures["first_response_time"]["count"] == 1
        assert figures["resolution_time"]["count"] == 2
        assert 0 < figures["resolution_time"]["median_seconds"] < 600
        assert figures["satisfaction"] == {"count": 2, "average": 4.5, "ratings": counted(0, 0, 0, 1, 1)}
        assert found["total"]["satisfaction"]["count"] >= 2
        urgent = found["priorities"][0]
        assert (urgent["priority"], urgent["metrics"]["created"] >= 3) == ("urgent", True)
        assert found["total"]["resolved"] >= 3


def average_of(figures: dict[str, Any]) -> float | None:
    average: float | None = figures["satisfaction"].get("average")
    return average


def complete_report(door: Door, worked: Worked) -> dict[str, Any]:
    """The report, as soon as it has all that the agent's tickets went through."""

    def look() -> dict[str, Any] | None:
        found = report(door, **since(worked.ticket))
        figures = figures_of(worked.agent, found)
        # Each ticket's events come in their order, but those of one may come before another's.
        return (
            found if figures and (figures["created"], figures["closed"], average_of(figures)) == (3, 1, 4.5) else None
        )

    return eventually(look, 15)


@pytest.mark.parametrize("role", OTHERS)
def test_only_supervisors_get_a_report(stage: Stage, role: str) -> None:
    for door in stage.doors:
        answer = door.call("GetSupportMetrics", Caller(role, new_id()), **FOREVER)
        assert (answer.code, answer.reason) == (PERMISSION_DENIED, "ROLE_NOT_ALLOWED"), door.name


@pytest.mark.parametrize("call", REPORT_CALLS)
def test_nobody_gets_a_report_without_a_token(stage: Stage, call: str) -> None:
    assert [door.call_with(call, {}, **FOREVER).reason for door in stage.doors] == ["INVALID_TOKEN"] * len(stage.doors)


def test_the_past_is_full_of_empty_weeks(stage: Stage) -> None:
    for door in stage.doors:
        found = report(door, **FOREVER)
        assert len(found["periods"]) == 314
        assert found["periods"][0] == {
            "start_time": "2020-01-01T00:00:00Z",
            "end_time": "2020-01-06T00:00:00Z",
            "metrics": found["total"],
        }
        assert found["total"] == {
            **dict.fromkeys(("created", "resolved", "closed", "reopened", "backlog"), 0),
            "first_response_time": {"count": 0},
            "resolution_time": {"count": 0},
            "satisfaction": {"count": 0, "ratings": counted(0, 0, 0, 0, 0)},
        }
        assert [each["priority"] for each in found["priorities"]] == ["urgent", "high", "medium", "low"]
        assert found["agents"] == []


BAD: dict[str, tuple[dict[str, str], list[str]]] = {
    "nothing": ({}, ["start_time", "end_time"]),
    "no end": ({"start_time": "2026-01-01T00:00:00Z"}, ["end_time"]),
    "the end first": ({"start_time": "2026-01-02T00:00:00Z", "end_time": "2026-01-01T00:00:00Z"}, ["end_time"]),
    "too many days": ({"start_time": "2024-01-01T00:00:00Z", "end_time": "2026-01-01T00:00:00Z"}, ["end_time"]),
}


@pytest.mark.parametrize(("name", "which"), list(product(BAD, range(3))))
def test_a_time_range_that_is_none_is_refused_by_the_name_of_the_field(stage: Stage, name: str, which: int) -> None:
    fields, bad = BAD[name]
    answer: Answer = stage.doors[which].call("GetSupportMetrics", as_supervisor(), **fields)
    assert (answer.code, answer.reason, answer.bad_fields) == (INVALID_ARGUMENT, "INVALID_FIELDS", bad)


def test_the_gateway_names_parameters_that_the_report_does_not_take(stage: Stage) -> None:
    headers = {"authorization": f"Bearer {stage.mint(as_supervisor())}"}
    for query, field in (("interval=month", "interval"), ("start_time=yesterday", "start_time"), ("by=agent", "by")):
        answer = stage.rest.http.get(f"/api/v1/reports/support?{query}", headers=headers)
        assert (answer.status_code, field in answer.json()["message"]) == (400, True), answer.text


def test_a_report_is_got_and_nothing_else(stage: Stage) -> None:
    headers = {"authorization": f"Bearer {stage.mint(as_supervisor())}", "content-type": "application/json"}
    for method in ("POST", "PUT", "DELETE"):
        answer = stage.rest.http.request(method, "/api/v1/reports/support", headers=headers, content=b"{}")
        assert (answer.status_code, answer.headers.get("allow")) == (405, "GET")
