"""Whoever erases a person's data is killed amid it: others go on, and each ticket is erased once, with its event."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from tests.fault.sweeper_process import sweeper
from tests.integration.traces import traces
from tests.system.doors import Caller
from tests.system.stage import Stage
from tests.system.topic import first_deliveries
from tests.system.vocabulary import as_customer, as_service, as_supervisor, eventually, new_id, open_ticket

TICKETS, KILLS = 300, 3
ERASED = """
    SELECT count(*) FROM admin_service.support_tickets AS ticket
    JOIN admin_service.ticket_events AS event ON event.ticket_id = ticket.id AND event.event_type = 'ticket_erased'
    WHERE ticket.user_id = %s
"""


@pytest.fixture
def alone(stage: Stage) -> Stage:
    """The stage without a sweeper; its own one is started again afterwards (see `stage`)."""
    stage.stack.part("sweeper").kill()
    return stage


def some_tickets(stage: Stage, owner: Caller, secret: str) -> list[dict[str, Any]]:
    """Opened for the owner by another service, which may call more often."""
    app = as_service()
    with ThreadPoolExecutor(4) as pool:
        opened = (
            pool.submit(open_ticket, stage.rest, app, user_id=owner.id, subject=secret, description=secret)
            for _ in range(TICKETS)
        )
        return [it.result() for it in list(opened)]


def test_sweepers_that_are_killed_amid_an_erasure_leave_whole_tickets_and_the_rest_to_others(alone: Stage) -> None:
    owner, boss, pseudonym, secret = as_customer(), as_supervisor(), str(uuid4()), f"Marzipan-{new_id()}"
    tickets = some_tickets(alone, owner, secret)
    alone.query(
        "INSERT INTO admin_service.erasures (id, user_id, requested_by, requested_role, requested_at, erased_tickets)"
        " VALUES (%s, %s, %s, %s, now(), 0) RETURNING id",
        *(pseudonym, owner.id, boss.id, boss.role),
    )

    def erased() -> int:
        ((count,),) = alone.query(ERASED, pseudonym)
        return int(count)

    def has_more_than(count: int) -> bool:
        return erased() > count

    done = 0
    for _ in range(KILLS):
        with sweeper(alone) as process:
            eventually(partial(has_more_than, done))
            process.kill()
        done = erased()
        ((texts,),) = alone.query(
            "SELECT count(*) FROM admin_service.support_tickets WHERE user_id = %s AND subject <> '[erased]'", pseudonym
        )
        assert texts == 0
    assert done < TICKETS, "none was killed amid its work"
    with sweeper(alone):
        eventually(lambda: traces(alone.stack.dsn, owner.id, secret) == {}, within=30)
    assert erased() == TICKETS

    def delivered() -> list[list[dict[str, Any]]] | None:
        arrived = first_deliveries(alone.topic.records())
        events = [arrived[ticket["id"]] for ticket in tickets]
        return events if all(len(each) > 1 for each in events) else None

    for events in eventually(delivered):
        assert [event["event_type"] for event in events] == ["ticket_created", "ticket_erased"]
        assert events[-1]["actor"]["user_id"] == boss.id
    ((finished, count),) = alone.query(
        "SELECT finished_at IS NOT NULL AND user_id IS NULL, erased_tickets FROM admin_service.erasures WHERE id = %s",
        pseudonym,
    )
    assert (finished, count) == (True, TICKETS)
