"""Kafka down: calls neither fail nor wait, and the events arrive when it is back."""

from statistics import median

import httpx

from tests.fault.load import Ledger, all_are_published, deliveries_of
from tests.system.doors import OK
from tests.system.stage import Stage
from tests.system.vocabulary import as_agent, as_customer, assign, eventually, move

CREATES = 150


def backlog(stage: Stage) -> float:
    """How many unsent events the relay's metrics tell of."""
    text = httpx.get(stage.stack.metrics_url("relay"), trust_env=False).text
    (line,) = (line for line in text.splitlines() if line.startswith("nibble_relay_backlog_events "))
    return float(line.split()[1])


def creates(stage: Stage) -> Ledger:
    """Tickets one after the other; each tenth goes on to be resolved."""
    ledger, agent = Ledger(), as_agent()
    for i in range(CREATES):
        ticket = ledger.create(stage.grpc, as_customer()).resource
        if i % 10 == 0:
            assign(stage.grpc, agent, ticket)
            move(stage.grpc, agent, ticket, "resolved")
    return ledger


def test_calls_go_on_without_kafka_and_their_events_arrive_in_order_when_it_is_back(stage: Stage) -> None:
    with_kafka = creates(stage)
    kafka, relay = stage.stack.part("kafka"), stage.stack.part("relay")
    # Its client leaks sockets when the broker that it is connected to goes away.
    stage.topic.close()
    kafka.kill()
    without = creates(stage)
    # A relay that starts meanwhile waits for Kafka, rather than give up.
    relay.kill()
    relay.start()
    eventually(lambda: backlog(stage) >= CREATES)
    kafka.start()

    print(f"medians: {median(with_kafka.seconds):.4f} s and {median(without.seconds):.4f} s")  # noqa: T201
    assert without.codes.keys() == {OK}
    assert median(without.seconds) < 5 * median(with_kafka.seconds)
    all_are_published(stage)
    deliveries_of(stage, without)
