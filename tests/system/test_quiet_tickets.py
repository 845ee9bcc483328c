"""A resolved ticket on which nobody says anything is closed by the sweeper; its owner and Kafka are told."""

from typing import Any

from tests.system.doors import Caller
from tests.system.stage import Stage
from tests.system.vocabulary import as_agent, as_customer, eventually, move, open_ticket

SWEPT_WITHIN = 30.0
NOBODY = {"user_id": "00000000-0000-0000-0000-000000000000", "role": "service"}
# A process takes no other clock than the machine's: it is the ticket that becomes older.
MAKE_OLDER = """
    UPDATE admin_service.support_tickets
    SET quiet_since = quiet_since - interval '72 hours', resolved_at = resolved_at - interval '72 hours'
    WHERE id = %s RETURNING id
"""


def a_resolved_ticket(stage: Stage, owner: Caller) -> dict[str, Any]:
    ticket = open_ticket(stage.rest, owner)
    return move(stage.rest, as_agent(), ticket, "resolved", resolution_notes="Refunded.")


def seen(stage: Stage, ticket: dict[str, Any]) -> dict[str, Any]:
    """The ticket as it is now."""
    return stage.rest.call("GetTicket", as_agent(), ticket_id=ticket["id"]).resource


def closed(stage: Stage, ticket: dict[str, Any]) -> dict[str, Any] | None:
    now = seen(stage, ticket)
    return now if now["status"] == "closed" else None


def told_to(stage: Stage, owner: Caller) -> list[str]:
    """The types of the owner's notifications."""
    notifications = stage.rest.call("ListNotifications", owner).resource["notifications"]
    return [notification["type"] for notification in notifications]


def test_a_ticket_that_was_quiet_for_three_days_is_closed_and_a_fresh_one_stays(stage: Stage) -> None:
    owner = as_customer()
    fresh, quiet = (a_resolved_ticket(stage, owner) for _ in range(2))
    stage.query(MAKE_OLDER, quiet["id"])

    after = eventually(lambda: closed(stage, quiet), SWEPT_WITHIN)
    changed = {"status": "closed", "version": quiet["version"] + 1}
    expected = {**quiet, **changed, **{name: after[name] for name in ("updated_at", "resolved_at")}}
    assert after == expected
    *_, changed, told = stage.topic.events_of(quiet["id"], 5)
    assert (changed["event_type"], changed["from"], changed["to"]) == ("ticket_status_changed", "resolved", "closed")
    assert told["event_type"] == "ticket_closed"
    assert [(event["actor"], event["reason"]) for event in (changed, told)] == [(NOBODY, "auto")] * 2
    assert changed["change_id"] == told["change_id"]
    eventually(lambda: "ticket_closed" in told_to(stage, owner), SWEPT_WITHIN)
    assert seen(stage, fresh)["status"] == "resolved"
