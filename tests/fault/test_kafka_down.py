"""Kafka down or standing still: calls neither fail nor wait, and the events arrive when it is back."""

import signal
import time
from statistics import median

import psutil

from server.workers.sender import DELIVERY_TIMEOUT
from tests.fault.load import Ledger, all_are_published, at_work, deliveries_of, until_enough
from tests.fault.relay_process import relay_of, second_relay
from tests.frozen import frozen, whole
from tests.system.doors import OK
from tests.system.stage import Stage
from tests.system.vocabulary import as_agent, as_customer, assign, eventually, move

CREATES = 150
# Of a call while Kafka is away, compared with one while it is there; the machines that run this are noisy.
MOST_TIMES_SLOWER = 3
FROZEN_SECONDS = 30.0
RECOVERY_SECONDS = 15.0
ENDS_WITHIN_SECONDS = 10.0


def creates(stage: Stage) -> Ledger:
    """Tickets one after the other; each tenth goes on to be resolved."""
    ledger, agent = Ledger(), as_agent()
    for i in range(CREATES):
        ticket = ledger.create(stage.grpc, as_customer()).resource
        if i % 10 == 0:
            assign(stage.grpc, agent, ticket)
            move(stage.grpc, agent, ticket, "resolved")
    return ledger


def is_as_fast(ledger: Ledger, usual: Ledger) -> bool:
    """Whether calls go well and take no longer than usual."""
    print(f"medians: {median(usual.seconds):.4f} s and {median(ledger.seconds):.4f} s")  # noqa: T201
    return ledger.codes.keys() == {OK} and median(ledger.seconds) < MOST_TIMES_SLOWER * median(usual.seconds)


def relay_process(stage: Stage) -> psutil.Process:
    return psutil.Process(stage.stack.part("relay").pid)


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
    eventually(lambda: relay_of(stage).metric("backlog_events") >= CREATES)
    kafka.start()

    assert is_as_fast(without, with_kafka)
    all_are_published(stage)
    deliveries_of(stage, without)


def test_events_whose_delivery_timed_out_while_kafka_was_dead_are_sent_when_it_is_back(stage: Stage) -> None:
    all_are_published(stage)
    kafka, relay, process = stage.stack.part("kafka"), relay_of(stage), relay_process(stage)
    threads, failed = process.num_threads(), relay.metric("events_failed_total")
    stage.topic.close()
    kafka.kill()
    without = creates(stage)
    eventually(lambda: relay.metric("events_failed_total") >= failed + CREATES, DELIVERY_TIMEOUT + 5)
    # Longer still: until the relay looks for Kafka anew, and lets others have its shards meanwhile.
    eventually(lambda: relay.shards() == 0, 2 * DELIVERY_TIMEOUT)
    kafka.start()

    all_are_published(stage, RECOVERY_SECONDS)
    deliveries_of(stage, without)
    # What each producer that was given up had at work would be left over.
    eventually(lambda: process.num_threads() <= threads, 5)


def test_kafka_standing_still_slows_down_no_call_and_no_exit_and_its_events_arrive_when_it_moves(stage: Stage) -> None:
    usual, kafka = creates(stage), whole(psutil.Process(stage.stack.part("kafka").pid))
    all_are_published(stage)
    with second_relay(stage) as second:
        eventually(lambda: second.shards() > 0)
        with frozen(kafka), at_work(1, until_enough([stage.grpc])) as shift:
            moves_at = time.monotonic() + FROZEN_SECONDS
            meanwhile = creates(stage)
            began = time.monotonic()
            second.process.send_signal(signal.SIGTERM)
            assert second.process.wait(ENDS_WITHIN_SECONDS) == 0
            print(f"the relay ended {time.monotonic() - began:.1f} s after SIGTERM")  # noqa: T201
            eventually(lambda: time.monotonic() > moves_at, FROZEN_SECONDS)
            shift.enough.set()
            beside = shift.finish()

    assert is_as_fast(meanwhile, usual)
    assert beside.codes.keys() == {OK}
    all_are_published(stage, RECOVERY_SECONDS)
    for ledger in (meanwhile, beside):
        deliveries_of(stage, ledger)
