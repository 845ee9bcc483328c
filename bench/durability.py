"""How durable the measured system is, as it says itself."""

from collections.abc import Mapping
from contextlib import closing
from typing import Any

import psycopg
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from devstack.stack import Stack
from server.workers.topics import TICKET_EVENTS

POSTGRESQL = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "wal_sync_method")
KAFKA = ("min.insync.replicas", "unclean.leader.election.enable", "flush.messages")


def durability(stack: Stack) -> dict[str, Mapping[str, str]]:
    """The settings of PostgreSQL, and of the events' topic where the stack has Kafka."""
    with psycopg.connect(stack.dsn, autocommit=True) as connection:
        rows = connection.execute("SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", [list(POSTGRESQL)])
        found: dict[str, Mapping[str, str]] = {"PostgreSQL": dict(rows.fetchall())}
    return found | ({"Kafka": _of_topic(stack.kafka_bootstrap)} if stack.has("kafka") else {})


def _of_topic(bootstrap: str) -> dict[str, str]:
    with closing(KafkaAdminClient(bootstrap_servers=bootstrap)) as admin:
        topic = ConfigResource(ConfigResourceType.TOPIC, TICKET_EVENTS)
        answer: Any = admin.describe_configs([topic], config_filter="all")
    return {name: answer["topic"][TICKET_EVENTS][name]["value"] for name in KAFKA}
