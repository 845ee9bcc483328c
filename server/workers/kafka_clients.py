"""Kafka's clients, made so that they leave nothing behind when no broker answers."""

from collections.abc import Callable
from typing import Any

from kafka import KafkaConsumer, KafkaProducer
from kafka.net.compat import KafkaNetClient

from server.workers.unread_records import forgive_unread_records

BOOTSTRAP_SECONDS = 3
REQUEST_SECONDS = 10
# A dead letter is its event with more headers; both must fit.
LARGEST_RECORD = 2 * 1024 * 1024


def new_consumer(bootstrap_servers: str, **config: Any) -> KafkaConsumer:  # noqa: ANN401 - the client's own settings
    """A consumer of `bootstrap_servers` (host:port, comma-separated) that commits by hand and reads from the beginning.

    A record that can't be read has a `NotRead` as its value.

    Raises:
        KafkaError: no broker answers.
    """
    forgive_unread_records()
    settings = {
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "allow_auto_create_topics": False,
        "request_timeout_ms": REQUEST_SECONDS * 1000,
        **config,
    }
    return _made(KafkaConsumer, bootstrap_servers, settings)


def new_producer(bootstrap_servers: str, client_id: str) -> KafkaProducer:
    """A producer whose sends are acknowledged by every replica, or fail within REQUEST_SECONDS.

    Raises:
        KafkaError: no broker answers.
    """
    settings = {
        "client_id": client_id,
        "acks": "all",
        "enable_idempotence": True,
        "linger_ms": 0,
        "max_request_size": LARGEST_RECORD,
        "delivery_timeout_ms": REQUEST_SECONDS * 1000,
        "request_timeout_ms": REQUEST_SECONDS * 1000 // 2,
        "max_block_ms": REQUEST_SECONDS * 1000 // 2,
    }
    return _made(KafkaProducer, bootstrap_servers, settings)


def _made(kind: Callable[..., Any], bootstrap_servers: str, settings: dict[str, Any]) -> Any:  # noqa: ANN401
    """The client. One that meets no broker leaves its thread running when it fails, so that is ended here."""
    networks: list[KafkaNetClient] = []

    def network(**config: Any) -> KafkaNetClient:  # noqa: ANN401
        networks.append(KafkaNetClient(**config))
        return networks[-1]

    try:
        return kind(
            bootstrap_servers=bootstrap_servers.split(","),
            bootstrap_timeout_ms=BOOTSTRAP_SECONDS * 1000,
            reconnect_backoff_max_ms=1000,
            kafka_client=network,
            **settings,
        )
    except BaseException:
        for each in networks:
            each.close()
        raise
