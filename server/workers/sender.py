"""The way to Kafka: events go in, and what became of each comes back. It blocks, like Kafka's client."""

import queue
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from kafka import KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError

from server.workers.event_message import event_message
from server.workers.lines import Outbound

# Whole seconds, as the client counts in whole milliseconds. What Kafka has not acknowledged by then has failed for the
# client, though it may arrive still.
DELIVERY_TIMEOUT = 10
# How long the client looks for a broker, and for the topic's partitions when it sends for the first time.
PATIENCE = 3
CLOSE_TIMEOUT = 2.0


class Answer(NamedTuple):
    """What became of an event: Kafka has acknowledged it where there is no error."""

    event: Outbound
    error: Exception | None


class Sender:
    """One producer, and the answers to what was sent with it."""

    def __init__(self, producer: KafkaProducer, topic: str) -> None:
        self._producer = producer
        self._topic = topic
        # Not a SimpleQueue: a wait for one never ends where a signal comes shortly before its time is over, and is
        # handled for longer than that.
        self._answers: queue.Queue[Answer] = queue.Queue()

    def send(self, event: Outbound) -> None:
        """Hand an event to the client; the answer comes later, or at once where the client does not take it.

        Raises:
            KafkaTimeoutError: the client finds no partitions of the topic, for this event or any other.
        """
        try:
            message = event_message(event.entry, event.ticket)
            future = self._producer.send(self._topic, message.value, key=message.key, headers=message.headers)
        except KafkaTimeoutError:
            raise
        except (KafkaError, ValueError) as error:
            self._answers.put(Answer(event, error))
            return
        # They run in the client's own thread.
        future.add_callback(lambda _: self._answers.put(Answer(event, None)))
        future.add_errback(lambda error: self._answers.put(Answer(event, error)))

    def answers(self, within: float) -> list[Answer]:
        """All that are there when the next one comes, or none where none comes `within` so many seconds."""
        found = []
        try:
            found.append(self._answers.get(timeout=within) if within > 0 else self._answers.get_nowait())
            while True:
                found.append(self._answers.get_nowait())
        except queue.Empty:
            return found


@contextmanager
def sender(bootstrap_servers: str, topic: str) -> Iterator[Sender]:
    """A way to Kafka that is sure of what it says was acknowledged; closed when the block ends.

    Raises:
        KafkaError: no broker answers.
    """
    producer = KafkaProducer(
        bootstrap_servers=bootstrap_servers.split(","),
        client_id="nibble-support-relay",
        acks="all",
        enable_idempotence=True,
        linger_ms=0,
        delivery_timeout_ms=DELIVERY_TIMEOUT * 1000,
        request_timeout_ms=DELIVERY_TIMEOUT * 1000 // 2,
        max_block_ms=PATIENCE * 1000,
        bootstrap_timeout_ms=PATIENCE * 1000,
        reconnect_backoff_max_ms=1000,
        metrics_enabled=False,
    )
    try:
        yield Sender(producer, topic)
    finally:
        _close(producer)


def _close(producer: KafkaProducer) -> None:
    """End its thread and its connections, having waited a little for what is on its way.

    `KafkaProducer.close` by itself raises where that takes too long, and leaves the thread at work for ever.
    """
    try:
        producer.flush(CLOSE_TIMEOUT)
    except KafkaTimeoutError:
        producer._sender.force_close()
    with suppress(KafkaTimeoutError):
        producer.close(timeout=CLOSE_TIMEOUT)
