"""The relay killed in the middle of its work: nothing lost, nothing out of order."""

import random

import psycopg

from tests.fault.load import Ledger, Shift, Work, all_are_published, at_work, deliveries_of, duplicates_in
from tests.system.doors import OK
from tests.system.stage import Stage
from tests.system.vocabulary import as_customer, dice, eventually, some_agent

CALLERS = 5
CREATES = 1000
KILLS = 4
KILLS_BEFORE_THE_MARK = 20
LOCK_UNSENT = b"""
    SELECT id FROM admin_service.ticket_events WHERE published_at IS NULL AND NOT is_internal FOR UPDATE
"""
WAITING_MARKS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'
        AND strpos(query, 'UPDATE admin_service.ticket_events') > 0
"""


def creates_and_what_follows(stage: Stage) -> Work:
    """Work: a share of the creates; every third ticket is taken over, commented by its owner and resolved."""

    def work(number: int, shift: Shift) -> None:
        door = stage.doors[1 + number % 2]
        for i in range(CREATES // CALLERS):
            # Others each time: the gateway would soon slow down one alone.
            owner, agent = as_customer(), some_agent()
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


def test_killed_between_kafkas_acknowledgement_and_the_mark_it_sends_the_same_event_again(stage: Stage) -> None:
    ledger, relay = Ledger(), stage.stack.part("relay")
    all_are_published(stage)
    for _ in range(KILLS_BEFORE_THE_MARK):
        relay.kill()
        agent = some_agent()
        ticket = ledger.create(stage.own_port, as_customer()).resource["id"]
        ledger.call(stage.own_port, "AssignTicket", agent, ticket_id=ticket, assigned_to=agent.id)
        with psycopg.connect(stage.stack.dsn) as connection:
            unsent = len(connection.execute(LOCK_UNSENT).fetchall())
            assert unsent >= 3
            before = stage.topic.size()
            relay.start()
            # It marks what Kafka has acknowledged, and nothing else: the mark that waits tells the moment.
            eventually(lambda: stage.query(WAITING_MARKS) == [(1,)])
            assert stage.topic.size() > before
            relay.kill()
            # Nor is it made up for when the lock is gone: PostgreSQL has noticed.
            eventually(lambda: stage.query(WAITING_MARKS) == [(0,)])
    relay.start()

    all_are_published(stage)
    deliveries_of(stage, ledger)
    ids = ledger.ticket_ids
    records_of_them = [record for record in stage.topic.records() if record.key.decode() in ids]
    assert duplicates_in(records_of_them) >= KILLS_BEFORE_THE_MARK
