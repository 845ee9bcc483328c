"""A transaction that takes an early number and commits late: the relay must not have gone past it meanwhile."""

import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
from uuid_utils.compat import uuid7

from server.db.statements import CREATE_TICKET
from server.domain.events import EventDraft
from tests.fault.load import PAUSE_SECONDS, Ledger, all_are_published, deliveries_of
from tests.system.doors import OK
from tests.system.stage import Stage
from tests.system.vocabulary import as_customer, eventually

LATE_SECONDS = 5.0
DRAFT = [name for name in EventDraft._fields if name != "event_type"]


def a_creation() -> dict[str, Any]:
    """The parameters of CREATE_TICKET."""
    owner = UUID(as_customer().id)
    return {
        "ticket_id": uuid7(),
        "user_id": owner,
        "order_id": None,
        "subject": "Cold soup",
        "description": "It was hot.",
        "priority": "medium",
        "findings": None,
        "concealed_fields": [],
        "concealed_texts": [],
        "now": datetime.now(UTC),
        "change_id": uuid7(),
        "actor_id": owner,
        "actor_role": "customer",
        "draft_event_id": [uuid7()],
        "draft_event_type": ["ticket_created"],
        **{f"draft_{name}": [None] for name in DRAFT},
    }


def test_an_event_with_an_early_number_that_is_committed_late_is_sent_all_the_same(stage: Stage) -> None:
    ledger, late = Ledger(), a_creation()
    with psycopg.connect(stage.stack.dsn, cursor_factory=psycopg.RawCursor) as connection:
        connection.execute(CREATE_TICKET.sql, CREATE_TICKET.bind(late))
        committed_at = time.monotonic() + LATE_SECONDS
        while time.monotonic() < committed_at:
            assert ledger.create(stage.own_port, as_customer()).code == OK
            time.sleep(PAUSE_SECONDS)
        # Those that took later numbers are through.
        all_are_published(stage)
        connection.commit()
    eventually(lambda: stage.topic.events_of(str(late["ticket_id"]), 1, within=5))

    numbers = dict(stage.query("SELECT ticket_id::text, row_no FROM admin_service.ticket_events"))
    assert numbers[str(late["ticket_id"])] < min(numbers[ticket] for ticket in ledger.ticket_ids)
    all_are_published(stage)
    deliveries_of(stage, ledger)
