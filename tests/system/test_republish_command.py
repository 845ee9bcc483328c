"""`server republish`: what was published comes once more, the same events in their order, and nothing else changes."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from devstack.part import CHECKOUT
from devstack.ports import LOOPBACK, free_port
from server.processes import CANNOT_START
from tests.system.stage import Stage
from tests.system.topic import first_deliveries
from tests.system.vocabulary import as_agent, as_customer, assign, eventually, move, new_id, open_ticket

EVENTS = 5
PUBLISHED = "SELECT id, published_at FROM admin_service.ticket_events ORDER BY id"
UNSENT = "SELECT count(*) FROM admin_service.ticket_events WHERE published_at IS NULL AND NOT is_internal"


def republish(stage: Stage, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The command, run to its end."""
    return subprocess.run(
        [sys.executable, "-m", "server", "republish", *arguments],
        env={**os.environ, **stage.stack.service_env(), **env},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def resolved_ticket(stage: Stage) -> dict[str, Any]:
    """A ticket with five events, all of them published."""
    agent, ticket = as_agent(), open_ticket(stage.own_port, as_customer())
    assign(stage.own_port, agent, ticket)
    move(stage.own_port, agent, ticket, "resolved")
    stage.topic.events_of(ticket["id"], EVENTS)
    eventually(lambda: stage.query(UNSENT) == [(0,)])
    return ticket


def test_a_tickets_events_come_again_in_their_order_and_the_table_stays_as_it_was(stage: Stage) -> None:
    ticket = resolved_ticket(stage)
    table = stage.query(PUBLISHED)
    done = republish(stage, "--ticket", ticket["id"])
    assert (done.returncode, done.stdout) == (0, f"ticket {ticket['id']}: sent 5 events of 1 tickets\n"), done.stderr

    records = stage.topic.records_of(ticket["id"], 2 * EVENTS)
    assert [record.event["sequence"] for record in records] == [1, 2, 3, 4, 5] * 2
    assert records[:EVENTS] == [
        again._replace(offset=first.offset) for first, again in zip(records, records[EVENTS:], strict=False)
    ]
    assert stage.query(PUBLISHED) == table


def test_a_range_of_time_is_sent_again_from_its_beginning_to_before_its_end(stage: Stage) -> None:
    since = datetime.now(UTC)
    tickets = [resolved_ticket(stage)["id"] for _ in range(3)]
    until = datetime.now(UTC)
    resolved_ticket(stage)
    size = stage.topic.size()
    done = republish(stage, "--from", since.isoformat(), "--to", until.isoformat())
    assert done.returncode == 0, done.stderr
    assert "sent 15 events of 3 tickets" in done.stdout
    assert stage.topic.size() == size + 15
    records = [record for record in stage.topic.records() if record.key.decode() in tickets]
    assert len(records) == 30
    assert {ticket: len(events) for ticket, events in first_deliveries(records).items()} == dict.fromkeys(tickets, 5)


def test_a_dry_run_says_how_many_they_are_and_sends_nothing(stage: Stage) -> None:
    ticket, size = resolved_ticket(stage), stage.topic.size()
    done = republish(stage, "--ticket", ticket["id"], "--dry-run")
    assert (done.returncode, done.stdout) == (0, f"ticket {ticket['id']}: would send 5 events of 1 tickets\n")
    assert stage.topic.size() == size


@pytest.mark.parametrize(
    "arguments", [["--ticket", new_id()], ["--from", "2020-01-01T00:00:00Z", "--to", "2020-01-02T00:00:00+01:00"]]
)
def test_where_there_is_nothing_to_send_it_says_so(stage: Stage, arguments: list[str]) -> None:
    done = republish(stage, *arguments)
    assert done.returncode == 0
    assert "no event was published, so there is nothing to send" in done.stdout


def test_without_kafka_it_says_how_far_it_came_and_fails(stage: Stage) -> None:
    ticket = resolved_ticket(stage)
    nowhere = f"{LOOPBACK}:{free_port()}"
    done = republish(stage, "--ticket", ticket["id"], KAFKA_BOOTSTRAP_SERVERS=nowhere)
    assert done.returncode == 1
    assert f"ticket {ticket['id']}: sent 0 of 5 events of 1 tickets, then stopped" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "give --ticket, or both --from and --to"),
        (["--from", "2026-03-04T05:06:07Z"], "give --ticket, or both --from and --to"),
        (["--ticket", new_id(), "--to", "2026-03-04T05:06:07Z"], "give either --ticket, or --from and --to"),
        (["--ticket", "7"], "'7' is no UUID"),
        (["--from", "2026-03-04", "--to", "2026-03-05T00:00Z"], "no RFC 3339 time with a zone, such as 2026-"),
        (["--from", "2026-03-05T00:00Z", "--to", "2026-03-04T00:00Z"], "--from must lie before --to"),
    ],
)
def test_bad_arguments_are_refused_with_what_is_allowed(stage: Stage, arguments: list[str], complaint: str) -> None:
    done = republish(stage, *arguments)
    assert done.returncode == CANNOT_START
    assert complaint in done.stderr
