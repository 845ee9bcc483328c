"""The relay killed in the middle of its work, and two relays at once: nothing lost, nothing out of order."""

import os
import random
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from devstack.part import CHECKOUT, launcher
from devstack.ports import LOOPBACK, free_port
from devstack.service import http_status
from server.workers.relay import LOCK
from tests.fault.load import Shift, Work, all_are_published, at_work, deliveries_of, until_enough
from tests.system.doors import OK
from tests.system.stage import Stage
from tests.system.vocabulary import as_agent, as_customer, dice, eventually, open_ticket

CALLERS = 5
CREATES = 1000
KILLS = 4
TAKEOVER_SECONDS = 5.0


def creates_and_what_follows(stage: Stage) -> Work:
    """Work: a share of the creates; every third ticket is taken over, commented by its owner and resolved."""

    def work(number: int, shift: Shift) -> None:
        door = stage.doors[1 + number % 2]
        for i in range(CREATES // CALLERS):
            # Others each time: the gateway would soon slow down one alone.
            owner, agent = as_customer(), as_agent()
            ticket = shift.ledger.create(door, owner).resource["id"]
            if i % 3 == 0:
                shift.ledger.call(door, "AssignTicket", agent, ticket_id=ticket, assigned_to=agent.id)
                shift.ledger.call(door, "AddComment", owner, ticket_id=ticket, comment="Any news?")
                shift.ledger.call(door, "UpdateTicketStatus", agent, ticket_id=ticket, status="resolved")

    return work


def let_it_send(stage: Stage, chance: random.Random) -> None:
    """Waits until Kafka has a few more records: any moment in the relay's work."""
    enough = stage.topic.size() + chance.randint(1, 200)
    eventually(lambda: stage.topic.size() >= enough)


def test_a_relay_killed_again_and_again_loses_no_event_and_keeps_each_ticket_in_order(stage: Stage) -> None:
    chance, relay = dice("relay"), stage.stack.part("relay")
    with at_work(CALLERS, creates_and_what_follows(stage)) as shift:
        for _ in range(KILLS):
            let_it_send(stage, chance)
            relay.kill()
            relay.start()
        ledger = shift.finish()

    assert ledger.codes.keys() == {OK}
    assert len(ledger.ticket_ids) == CREATES
    all_are_published(stage)
    deliveries_of(stage, ledger)


# --- Two at once ------------------------------------------------------------------------------------------------------


class SecondRelay:
    """One more relay process of the same stack."""

    def __init__(self, stage: Stage) -> None:
        self.metrics_port = free_port()
        env = {**os.environ, **stage.stack.service_env(), "METRICS_PORT": str(self.metrics_port)}
        with (stage.stack.logs / "second-relay.log").open("ab") as log:
            command = launcher([sys.executable, "-m", "server", "relay"])
            self.process = subprocess.Popen(command, env=env, cwd=CHECKOUT, stdout=log, stderr=log)

    def is_up(self) -> bool:
        return http_status(self.metrics_port, "/metrics") == 200

    def published(self) -> float:
        """How many events it has published."""
        return published_by(self.metrics_port)

    def backlog(self) -> float:
        """How many events Kafka has not acknowledged yet, as it tells."""
        return metric(self.metrics_port, "nibble_relay_backlog_events")


def published_by(metrics_port: int) -> float:
    """How many events the relay behind this port has published since it started."""
    return metric(metrics_port, "nibble_relay_events_published_total")


def metric(metrics_port: int, name: str) -> float:
    """The value of a metric without labels."""
    with urllib.request.urlopen(f"http://{LOOPBACK}:{metrics_port}/metrics", timeout=5) as answer:
        lines: list[str] = answer.read().decode().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name} "))
    return float(line.split()[1])


@contextmanager
def second_relay(stage: Stage) -> Iterator[SecondRelay]:
    relay = SecondRelay(stage)
    try:
        eventually(relay.is_up)
        yield relay
    finally:
        relay.process.terminate()
        relay.process.wait(20)


def test_of_two_relays_one_works_and_the_other_takes_over_when_it_is_killed(stage: Stage) -> None:
    first = stage.stack.part("relay")
    with second_relay(stage) as second, at_work(2, until_enough(stage.doors)) as shift:
        shift.wait_for(OK, 200)
        assert second.published() == 0
        first.kill()
        ticket = open_ticket(stage.grpc, as_customer())
        stage.topic.events_of(ticket["id"], 1, within=TAKEOVER_SECONDS)
        eventually(lambda: second.published() > 0)

        first.start()
        shift.wait_for(OK, 200)
        second.process.kill()
        ticket = open_ticket(stage.grpc, as_customer())
        stage.topic.events_of(ticket["id"], 1, within=TAKEOVER_SECONDS)
        shift.enough.set()
        ledger = shift.finish()

    all_are_published(stage)
    deliveries_of(stage, ledger)


def test_a_relay_that_stands_by_goes_on_telling_the_backlog(stage: Stage) -> None:
    all_are_published(stage)
    first, log = stage.stack.part("relay"), stage.stack.logs / "second-relay.log"
    first.kill()
    try:
        with psycopg.connect(stage.stack.dsn, autocommit=True) as other:
            other.execute("SELECT pg_advisory_lock(%s)", [LOCK])
            waits = log.read_text().count("standing by") if log.exists() else 0
            with second_relay(stage) as second:
                # It has measured once by then.
                eventually(lambda: log.read_text().count("standing by") > waits)
                assert second.backlog() == 0
                open_ticket(stage.grpc, as_customer())
                eventually(lambda: second.backlog() == 1, 15)
    finally:
        first.start()
    all_are_published(stage)
