"""What Kafka holds: the topic of the events, read from its beginning."""

import json
from collections.abc import Iterable
from functools import cached_property
from typing import Any, NamedTuple

from kafka import KafkaConsumer, TopicPartition

from tests.system.vocabulary import eventually

TOPIC = "support.ticket-events.v1"
PARTITIONS = 12


class Record(NamedTuple):
    """One record of the topic."""

    partition: int
    offset: int
    key: bytes
    value: bytes
    headers: dict[str, str]

    @property
    def event(self) -> dict[str, Any]:
        """The value, which is JSON."""
        event: dict[str, Any] = json.loads(self.value)
        return event


class Topic:
    """The topic as it grows. One thread at a time may use it."""

    def __init__(self, bootstrap: str) -> None:
        """Args: bootstrap: HOST:PORT of the broker."""
        self._bootstrap = bootstrap
        self._partitions = [TopicPartition(TOPIC, number) for number in range(PARTITIONS)]
        self._records: list[Record] = []

    @cached_property
    def _consumer(self) -> KafkaConsumer:
        consumer = KafkaConsumer(bootstrap_servers=self._bootstrap, group_id=None, enable_auto_commit=False)
        consumer.assign(self._partitions)
        consumer.seek_to_beginning()
        return consumer

    def close(self) -> None:
        """Closes the connections and forgets what was read; the next question reads all of it again."""
        if "_consumer" in vars(self):
            self._consumer.close()
            del self._consumer
        self._records.clear()

    def size(self) -> int:
        """How many records the topic has had so far."""
        return sum(self._consumer.end_offsets(self._partitions).values())

    def records(self) -> list[Record]:
        """Every record up to now, each partition's in their order."""
        ends = self._consumer.end_offsets(self._partitions)
        while any(self._consumer.position(partition) < end for partition, end in ends.items()):
            for batch in self._consumer.poll(timeout_ms=200).values():
                self._records += map(_record, batch)
        return self._records

    def records_of(self, ticket_id: str, count: int, within: float = 15.0) -> list[Record]:
        """The ticket's records, as soon as there are `count` of them or more."""
        return eventually(lambda: _at_least(count, self._now_of(ticket_id)), within)

    def events_of(self, ticket_id: str, count: int, within: float = 15.0) -> list[dict[str, Any]]:
        """The ticket's events, as soon as there are `count` of them or more."""
        return [record.event for record in self.records_of(ticket_id, count, within)]

    def _now_of(self, ticket_id: str) -> list[Record]:
        return [record for record in self.records() if record.key.decode() == ticket_id]


def _at_least(count: int, records: list[Record]) -> list[Record] | None:
    return records if len(records) >= count else None


def _record(raw: Any) -> Record:  # noqa: ANN401 - kafka-python has no types
    headers = {name: value.decode() for name, value in raw.headers}
    return Record(raw.partition, raw.offset, raw.key, raw.value, headers)


def first_deliveries(records: Iterable[Record]) -> dict[str, list[dict[str, Any]]]:
    """The events of each ticket in the order in which they first arrived.

    AssertionError when one is out of its sequence, or comes again with another event id.
    """
    arrived: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        event = record.event
        earlier = arrived.setdefault(event["ticket_id"], [])
        if event["sequence"] <= len(earlier):
            assert event == earlier[event["sequence"] - 1], "a duplicate is not what it repeats"
        else:
            assert event["sequence"] == len(earlier) + 1, f"{event} came after {len(earlier)} events"
            earlier.append(event)
    return arrived
