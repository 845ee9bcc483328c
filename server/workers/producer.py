"""The client that hands events to Kafka. It blocks, so that it lives only in processes that do nothing else."""

from contextlib import suppress

from kafka import KafkaProducer
from kafka.errors import KafkaTimeoutError

# Whole seconds, as the client counts in whole milliseconds. What Kafka has not acknowledged by then has failed for the
# client, though it may arrive still.
DELIVERY_TIMEOUT = 10
# How long it looks for a broker, and for the topic's partitions when it sends for the first time.
PATIENCE = 3
CLOSE_TIMEOUT = 2.0


def event_producer(bootstrap_servers: str) -> KafkaProducer:
    """A producer that is sure of what it says was acknowledged.

    Raises:
        KafkaError: no broker answers.
    """
    return KafkaProducer(
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
    )


def close(producer: KafkaProducer) -> None:
    """End its thread and its connections, having waited a little for what is on its way.

    `KafkaProducer.close` raises where that takes too long, and leaves the thread at work for ever.
    """
    try:
        producer.flush(CLOSE_TIMEOUT)
    except KafkaTimeoutError:
        producer._sender.force_close()
    with suppress(KafkaTimeoutError):
        producer.close(timeout=CLOSE_TIMEOUT)
