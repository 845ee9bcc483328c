"""A line of events: a topic, what consumes it, and the database where that writes down what it got."""

import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar

import psycopg
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from prometheus_client import REGISTRY

from devstack.kafka import TOPICS
from devstack.part import CHECKOUT, launcher
from devstack.service import python_path
from server.db.consumed_table import create_consumed_events
from server.workers.consumer import Consumer, ConsumerSettings, Handler
from server.workers.topics import DEAD_LETTERS
from tests.integration.recorder import SCHEMA, TABLES, Recorder
from tests.system.vocabulary import eventually
from tests.unit.ticket_events import ARecord, a_record, an_event

T = TypeVar("T")

PARTITIONS = 4
SESSION_SECONDS = 1.5
_numbers = itertools.count(1)


@dataclass
class Running:
    """A consumer in a thread of the test's."""

    stop: threading.Event
    handler: Recorder
    ended: Future[None]

    def end(self) -> None:
        """Stop it and wait; raises what it ended with."""
        self.stop.set()
        self.ended.result(15)


@dataclass
class Line:
    """The line, with names of its own on a shared broker."""

    bootstrap: str
    dsn: str
    name: str
    log: Path | None = None
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(4))

    @classmethod
    @contextmanager
    def laid(cls, bootstrap: str, dsn: str, *, with_tables: bool = True) -> Iterator[Self]:
        """A new line: empty topics, and tables."""
        line = cls(bootstrap, dsn, f"line-{os.getpid()}-{next(_numbers)}")
        line.create_topic(line.name, PARTITIONS)
        line.create_topic(line.dead_letter_topic, 1, TOPICS[DEAD_LETTERS]["configs"])
        if with_tables:
            line.create_tables()
        try:
            yield line
        finally:
            line.hang_up()
            line._threads.shutdown()

    @property
    def dead_letter_topic(self) -> str:
        return f"{self.name}.dlq"

    @cached_property
    def producer(self) -> KafkaProducer:
        return KafkaProducer(bootstrap_servers=self.bootstrap, acks="all", linger_ms=5, max_request_size=2_000_000)

    def hang_up(self) -> None:
        """Close the connection to Kafka; the next event that is sent makes a new one."""
        if "producer" in vars(self):
            self.producer.close()
            del self.producer

    def create_topic(self, name: str, partitions: int, configs: Mapping[str, str] | None = None) -> None:
        with closing(KafkaAdminClient(bootstrap_servers=self.bootstrap)) as admin:
            new = {name: {"num_partitions": partitions, "replication_factor": 1, "configs": dict(configs or {})}}
            admin.create_topics(new, wait_for_metadata=True)

    def create_tables(self) -> None:
        self.query(f"CREATE SCHEMA {SCHEMA}")
        self.query(create_consumed_events(SCHEMA))
        for statement in filter(str.strip, TABLES.split(";")):
            self.query(statement)

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of a statement; [] where it gives none."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """One as the frame's."""
        with psycopg.connect(self.dsn, autocommit=True, cursor_factory=psycopg.RawCursor) as connection:
            yield connection

    def in_background(self, work: Callable[[], T]) -> Future[T]:
        return self._threads.submit(work)

    def now(self) -> datetime:
        return datetime.now(UTC)

    # --- What is sent -------------------------------------------------------------------------------------------------

    def send(self, *records: ARecord) -> None:
        """Each after the one before, as far as they have the same key; returns when Kafka has all."""
        sent = [self.producer.send(self.name, each.value, each.key, list(each.headers)) for each in records]
        for each in sent:
            each.get(10)

    def send_events(self, events: Iterable[dict[str, Any]]) -> None:
        self.send(*map(a_record, events))

    # --- What consumes it ---------------------------------------------------------------------------------------------

    def settings(self, group: str | None = None, **values: Any) -> ConsumerSettings:  # noqa: ANN401
        """Those of a consumer of this line."""
        common = ConsumerSettings(
            self.dsn, SCHEMA, self.bootstrap, self.name, self.dead_letter_topic, group or self.name, SESSION_SECONDS
        )
        return common._replace(**values)

    @contextmanager
    def consumer(self, handler: Recorder | None = None, group: str | None = None, **values: Any) -> Iterator[Running]:  # noqa: ANN401
        """A consumer at work in a thread, which is stopped at the end."""
        handler, stop = handler or Recorder(), threading.Event()
        checked: Handler = handler
        consumer = Consumer(self.settings(group, **values), checked, self.now, stop)
        running = Running(stop, handler, self._threads.submit(consumer.run))
        try:
            yield running
        finally:
            stop.set()
        running.ended.result(15)

    def process(
        self,
        pause: float = 0,
        *,
        dies_before_commit: bool = False,
        **values: Any,  # noqa: ANN401
    ) -> subprocess.Popen[bytes]:
        """A consumer as a process; it fails on what is BROKEN."""
        settings = self.settings(**values)._asdict()
        arguments = json.dumps({"settings": settings, "pause": pause, "dies_before_commit": dies_before_commit})
        command = launcher([sys.executable, "-m", "tests.integration.recorder", arguments])
        env = {**os.environ, "PYTHONPATH": python_path(os.environ.get("PYTHONPATH"))}
        log = self.log.open("ab") if self.log else None
        try:
            return subprocess.Popen(command, cwd=CHECKOUT, env=env, stderr=log)
        finally:
            if log:
                log.close()

    # --- What has become of it ----------------------------------------------------------------------------------------

    def applied(self) -> list[str]:
        """The ids of the events that were applied, in the order in which they were."""
        return [str(event_id) for (event_id,) in self.query("SELECT event_id FROM recorded.applied ORDER BY position")]

    def until_applied(self, events: Sequence[dict[str, Any]], within: float = 20) -> None:
        """Wait until as many were applied, and see that it is these, each once, and a ticket's in their order."""
        eventually(lambda: len(self.applied()) >= len(events), within)
        rows = self.query("SELECT event_id::text, ticket_id::text, sequence FROM recorded.applied ORDER BY position")
        assert sorted(row[0] for row in rows) == sorted(event["event_id"] for event in events)
        last: dict[str, int] = {}
        for _, ticket_id, sequence in rows:
            assert sequence > last.get(ticket_id, 0), f"{ticket_id} had {sequence} after {last[ticket_id]}"
            last[ticket_id] = sequence

    def dead_letters(self) -> list[Any]:
        """Every record of the topic of the dead letters."""
        return self._records(self.dead_letter_topic, [0])

    def records(self) -> list[Any]:
        """Every record of the topic."""
        return self._records(self.name, range(PARTITIONS))

    def size(self) -> int:
        """How many records the topic has."""
        return sum(self._ends().values())

    def committed(self, group: str | None = None) -> int:
        """How many records the consumers have told Kafka to be done with."""
        config = {"bootstrap_servers": self.bootstrap, "group_id": group or self.name, "enable_auto_commit": False}
        with closing(KafkaConsumer(**config)) as consumer:
            return sum(consumer.committed(partition) or 0 for partition in self._ends())

    def until_committed(self, within: float = 15) -> None:
        """Wait until the consumers are done with the whole topic, and Kafka knows."""
        eventually(lambda: self.committed() == self.size(), within)

    def _ends(self) -> dict[TopicPartition, int]:
        partitions = [TopicPartition(self.name, number) for number in range(PARTITIONS)]
        with closing(KafkaConsumer(bootstrap_servers=self.bootstrap)) as consumer:
            ends: dict[TopicPartition, int] = consumer.end_offsets(partitions)
            return ends

    def _records(self, topic: str, numbers: Iterable[int]) -> list[Any]:
        partitions = [TopicPartition(topic, number) for number in numbers]
        with closing(KafkaConsumer(bootstrap_servers=self.bootstrap, enable_auto_commit=False)) as consumer:
            consumer.assign(partitions)
            consumer.seek_to_beginning()
            ends, records = consumer.end_offsets(partitions), []
            while any(consumer.position(partition) < end for partition, end in ends.items()):
                for batch in consumer.poll(timeout_ms=200).values():
                    records += batch
            return records


def some_events(tickets: int, each: int) -> list[dict[str, Any]]:
    """Events of that many tickets, `each` of every one, the tickets' mixed."""
    ids = [an_event()["ticket_id"] for _ in range(tickets)]
    return [an_event(ticket_id, sequence) for sequence in range(1, each + 1) for ticket_id in ids]


def consumed(outcome: str) -> float:
    """How many records the consumers of this process were done with so."""
    return REGISTRY.get_sample_value("nibble_consumer_events_total", {"outcome": outcome}) or 0.0
