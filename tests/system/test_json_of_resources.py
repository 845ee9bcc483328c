"""The JSON of REST: the proto's names; absent what is absent, zero and false present; UTC; numbers as numbers."""

import re
from typing import Any

import pytest

from tests.system.doors import HTTP_STATUS, Door
from tests.system.stage import Stage
from tests.system.vocabulary import as_agent, as_customer, assign, comment, move, new_id, open_ticket

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{3}|\.\d{6}|\.\d{9})?Z")
UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

PLAIN = {
    "id", "user_id", "subject", "description", "status", "priority", "created_at", "updated_at", "version",
    "sensitive_findings",
}  # fmt: skip
OPTIONAL = {"order_id", "assigned_to", "resolved_at", "resolution_notes"}


def test_a_new_ticket_has_every_plain_field_and_no_optional_one(rest: Door) -> None:
    owner = as_customer()
    ticket = open_ticket(rest, owner, subject="  Cold soup\t", description="one\r\ntwo\rthree")

    assert ticket.keys() == PLAIN
    assert UUID7.fullmatch(ticket["id"])
    assert TIME.fullmatch(ticket["created_at"])
    assert ticket["updated_at"] == ticket["created_at"]
    shown = {name: ticket[name] for name in ("user_id", "subject", "description", "status", "priority", "version")}
    assert shown == {
        "user_id": owner.id,
        "subject": "Cold soup",
        "description": "one\ntwo\nthree",
        "status": "open",
        "priority": "medium",
        "version": 1,
    }


def test_a_resolved_ticket_has_the_optional_fields_too(rest: Door) -> None:
    agent = as_agent()
    ticket = open_ticket(rest, as_customer(), order_id=new_id().upper())
    assign(rest, agent, ticket)
    resolved = move(rest, agent, ticket, "resolved", resolution_notes="Refunded.")

    assert resolved.keys() == PLAIN | OPTIONAL
    assert TIME.fullmatch(resolved["resolved_at"])
    assert resolved["order_id"] == resolved["order_id"].lower()
    assert resolved["version"] == 3


def test_a_comment_has_every_field_false_ones_too(rest: Door) -> None:
    owner = as_customer()
    ticket = open_ticket(rest, owner)
    written = comment(rest, owner, ticket, comment="🍲 where?")

    assert TIME.fullmatch(written.pop("created_at"))
    assert UUID7.fullmatch(written.pop("id"))
    assert written == {
        "ticket_id": ticket["id"],
        "user_id": owner.id,
        "comment": "🍲 where?",
        "is_internal": False,
        "author_role": "customer",
        "sensitive_findings": [],
    }


def test_an_empty_list_still_has_its_fields(rest: Door) -> None:
    assert rest.call("ListMyTickets", as_customer()).resource == {"tickets": [], "next_page_token": ""}


def test_a_history_entry_says_only_what_its_type_adds(rest: Door) -> None:
    owner = as_customer()
    ticket = open_ticket(rest, owner)
    (entry,) = rest.call("ListTicketHistory", owner, ticket_id=ticket["id"]).resource["entries"]

    assert entry.keys() == {
        *("event_id", "event_type", "ticket_id", "sequence", "change_id", "occurred_at", "actor", "is_internal"),
    }
    assert (entry["sequence"], entry["is_internal"]) == (1, False)
    assert entry["actor"] == {"user_id": owner.id, "role": "customer"}


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/api/v1/tickets?status=opened", "status"),
        ("/api/v1/tickets?priority=URGENT", "priority"),
        ("/api/v1/tickets?priority=99", "priority"),
        ("/api/v1/tickets?page_size=many", "page_size"),
        ("/api/v1/tickets?created_after=yesterday", "created_after"),
        ("/api/v1/tickets?colour=red", "colour"),
        ("/api/v1/tickets/my?priority=low", "priority"),
        ("/api/v1/tickets/assigned?user_id=x", "user_id"),
    ],
)
def test_what_the_gateway_cannot_read_is_refused_by_name(stage: Stage, path: str, field: str) -> None:
    response = stage.rest.http.get(path, headers={"authorization": f"Bearer {stage.mint(as_agent())}"})
    body: dict[str, Any] = response.json()

    assert (response.status_code, body["code"]) == (HTTP_STATUS[3], 3)
    assert field in body["message"]
