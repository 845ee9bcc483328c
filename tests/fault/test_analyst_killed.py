"""The analyst killed in the middle of its work, and facts built anew: they stay what the tickets' history says."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import psycopg
import pytest

from devstack.part import CHECKOUT, launcher
from server.analytics.intake import fact_values
from server.analytics.rules import Snapshot, fold
from server.analytics.tables import ticket_facts
from tests.fault.load import Shift, Work, all_are_published, at_work
from tests.system.doors import OK
from tests.system.stage import Stage
from tests.system.vocabulary import as_customer, dice, eventually, some_agent

CALLERS = 2
PAUSE_SECONDS = 0.05
LIVES = 20
KILLS = 5
CATCH_UP_SECONDS = 30.0
# As short as the stack's broker takes it: a killed analyst's partitions stay with it for so long.
SESSION_SECONDS = 1.0
COLUMNS = [column.name for column in ticket_facts.c if column.computed is None]
Facts = dict[Any, dict[str, Any]]


def lives(stage: Stage) -> Work:
    """Work: tickets that are taken, answered, resolved, reopened by their owners, and closed, as far as each comes."""

    def work(number: int, shift: Shift) -> None:
        door = stage.doors[1 + number % 2]
        rounds = 0
        while rounds < LIVES or not shift.enough.is_set():
            owner, agent = as_customer(), some_agent()
            ticket = shift.ledger.create(door, owner).resource["id"]
            acts: list[tuple[str, Any, dict[str, str]]] = [
                ("AssignTicket", agent, {"assigned_to": agent.id}),
                ("AddComment", agent, {"comment": "We look."}),
                ("UpdateTicketStatus", agent, {"status": "resolved"}),
                ("AddComment", owner, {"comment": "Not at all."}),
                ("UpdateTicketStatus", agent, {"status": "resolved"}),
                ("UpdateTicketStatus", owner, {"status": "closed"}),
            ]
            for call, caller, fields in acts[: rounds % (len(acts) + 1)]:
                shift.ledger.call(door, call, caller, ticket_id=ticket, **fields)
            rounds += 1
            shift.enough.wait(PAUSE_SECONDS)  # the analyst shares the machine

    return work


class OwnAnalyst:
    """An analyst of the test's own; the stack has none."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, without waiting until it is at work."""
        own = {"METRICS_PORT": "0", "CONSUMER_SESSION_TIMEOUT_SECONDS": str(SESSION_SECONDS)}
        with (self._stage.stack.logs / "own-analyst.log").open("ab") as log:
            self.process = subprocess.Popen(
                launcher([sys.executable, "-m", "server", "analyst"]),
                env={**os.environ, **self._stage.stack.service_env(), **own},
                cwd=CHECKOUT,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """As the kernel would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)


@pytest.fixture
def analyst(stage: Stage) -> Iterator[OwnAnalyst]:
    """At work."""
    own = OwnAnalyst(stage)
    own.start()
    yield own
    own.kill()


def count(stage: Stage, table: str, where: str = "true") -> int:
    """The rows of a table."""
    ((number,),) = stage.query(f"SELECT count(*) FROM {table} WHERE {where}")  # noqa: S608
    return int(number)


def consumed(stage: Stage) -> int:
    """How many events have been applied."""
    return count(stage, "analytics_service.consumed_events")


def caught_up(stage: Stage) -> None:
    """Waits until every event that there is has been applied."""
    all_are_published(stage)
    events = count(stage, "admin_service.ticket_events", "NOT is_internal")
    eventually(lambda: consumed(stage) == events, CATCH_UP_SECONDS)


def facts_in(stage: Stage) -> Facts:
    """Every fact, as it is stored."""
    with psycopg.connect(stage.stack.dsn, options="-c timezone=UTC") as connection:
        rows = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM analytics_service.ticket_facts".encode())  # noqa: S608
        return {row[0]: dict(zip(COLUMNS, row, strict=True)) for row in rows}


def facts_of_the_history(stage: Stage) -> Facts:
    """Every fact as it follows from the support service's own rows, by way of neither Kafka nor a consumer."""
    with psycopg.connect(stage.stack.dsn, options="-c timezone=UTC") as connection:
        rows = connection.execute(
            """
            SELECT ticket_id, sequence, occurred_at, (ticket->>'created_at')::timestamptz, ticket->>'priority',
                ticket->>'status', (ticket->>'assigned_to')::uuid, (ticket->>'resolved_at')::timestamptz,
                CASE WHEN event_type = 'ticket_commented' AND author_role IN ('support_agent', 'support_supervisor')
                    AND actor_id::text <> ticket->>'user_id' THEN actor_id END,
                rating
            FROM admin_service.ticket_events
            WHERE NOT is_internal AND event_type <> 'ticket_erased' ORDER BY ticket_id
            """
        ).fetchall()
    tickets = groupby(map(Snapshot._make, rows), key=lambda row: row.ticket_id)
    return {ticket_id: fact_values(fold(life)) for ticket_id, life in tickets}


def test_an_analyst_killed_again_and_again_keeps_exactly_the_facts(stage: Stage, analyst: OwnAnalyst) -> None:
    chance = dice("analyst")
    with at_work(CALLERS, lives(stage)) as shift:
        for _ in range(KILLS):
            let_it_work(stage, chance)
            analyst.kill()
            analyst.start()
        shift.enough.set()
        ledger = shift.finish()
    assert ledger.codes.keys() == {OK}
    caught_up(stage)
    assert facts_in(stage) == facts_of_the_history(stage)
    assert ledger.ticket_ids <= {str(ticket_id) for ticket_id in facts_in(stage)}


def let_it_work(stage: Stage, chance: random.Random) -> None:
    """Waits until some events more have been applied: any moment in the analyst's work."""
    enough = consumed(stage) + chance.randint(1, 60)
    eventually(lambda: consumed(stage) >= enough, CATCH_UP_SECONDS)


def rebuild(stage: Stage, *arguments: str) -> None:
    """The operator's command."""
    command = launcher([sys.executable, "-m", "server", "rebuild-analytics", *arguments])
    subprocess.run(command, env={**os.environ, **stage.stack.service_env()}, cwd=CHECKOUT, check=True, timeout=30)


def test_facts_that_are_built_anew_are_the_same_to_the_last_bit(stage: Stage, analyst: OwnAnalyst) -> None:
    caught_up(stage)
    before = facts_in(stage)
    rebuild(stage, "--forget")
    caught_up(stage)
    assert facts_in(stage) == before
    assert before


def test_facts_can_be_built_anew_while_tickets_are_worked_on(stage: Stage, analyst: OwnAnalyst) -> None:
    with at_work(CALLERS, lives(stage)) as shift:
        for how in ((), ("--forget",)):
            shift.wait_for(OK, 30)
            rebuild(stage, *how)
        shift.wait_for(OK, 30)
        shift.enough.set()
        shift.finish()
    caught_up(stage)
    assert facts_in(stage) == facts_of_the_history(stage)
