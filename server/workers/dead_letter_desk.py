"""What an operator does with dead letters: look at those that are pending, send them to their topic again, or let go.

The topic has one partition, so dead letters have one order. How far they were dealt with is the committed offset of the
group `dead-letters`; a group gives the partition to one member at a time, so no two commands deal with the same one.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple

from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import CommitFailedError, KafkaError, KafkaTimeoutError, RebalanceInProgressError

from server.workers.dead_letters import UNREAD, header_text, original_headers
from server.workers.event_reading import Record
from server.workers.kafka_clients import REQUEST_SECONDS, new_consumer, new_producer

GROUP = "dead-letters"
# As short as brokers allow by default: who stopped a command hard waits so long before the next can work.
SESSION_SECONDS = 6.0
# Longer than the partition of a command that was killed stays with it.
ASSIGNMENT_SECONDS = 15.0
POLL_SECONDS = 0.5

Say = Callable[[str], None]
Deal = Callable[[Record], bool]
"""False where there was nothing to do."""


class DeskError(Exception):
    """A command could not do its work, or not all of it; the message says why in one line."""


class DeskSettings(NamedTuple):
    """Where the dead letters are, and the one topic that they may go back to."""

    bootstrap_servers: str
    dead_letter_topic: str
    topic: str


class Desk:
    """The commands; each says what it does, and returns how many dead letters it was about.

    Raises, from every command:
        DeskError: Kafka does not answer, or another command is at work.
    """

    def __init__(self, settings: DeskSettings, say: Say) -> None:
        self._settings = settings
        self._say = say
        self._partition = TopicPartition(settings.dead_letter_topic, 0)

    def show(self, count: int | None = None) -> int:
        """List the pending dead letters, oldest first, at most `count`."""
        with self._consumer() as kafka:
            kafka.assign([self._partition])
            committed = kafka.committed(self._partition, timeout_ms=REQUEST_SECONDS * 1000)
            (first,) = kafka.beginning_offsets([self._partition]).values()
            kafka.seek(self._partition, max(first, committed or 0))
            shown = 0
            for record in self._pending(kafka, count):
                self._say(_line(record))
                shown += 1
        self._say(_counted(shown, "pending"))
        return shown

    def redrive(self, count: int | None = None) -> int:
        """Send the oldest `count` pending dead letters, or all, to their topic again, as they first came.

        Each consumer of the topic gets them, and drops what it has applied before. One that fails again is a new dead
        letter, behind those that are pending now. Where this ends between Kafka's acknowledgement and the note of it,
        the next command sends that one once more.

        One whose record could not be read holds nothing to send: it is told, not counted, and pending no more, for it
        would keep all behind it from being redriven.
        """
        with closing(new_producer(self._settings.bootstrap_servers, GROUP)) as producer:

            def send(record: Record) -> bool:
                topic = header_text(record.headers, "dlq_topic")
                if topic != self._settings.topic:
                    raise DeskError(f"the dead letter at offset {record.offset} came from no topic that is redriven")
                if any(name == UNREAD for name, _ in record.headers):
                    return False
                headers = original_headers(record.headers)
                sent = producer.send(topic, record.value, record.key, headers)
                sent.get(timeout=REQUEST_SECONDS + 1)
                return True

            return self._deal(send, count, "redriven")

    def discard(self, count: int | None = None) -> int:
        """Let go of the oldest `count` pending dead letters, or all. Kafka keeps them as long as its retention says."""
        return self._deal(lambda _: True, count, "discarded")

    def _deal(self, deal: Deal, count: int | None, done: str) -> int:
        dealt = 0
        try:
            with self._consumer() as kafka:
                self._join(kafka)
                for record in self._pending(kafka, count):
                    is_done = deal(record)
                    kafka.commit({self._partition: OffsetAndMetadata(record.offset + 1, "", -1)})
                    dealt += is_done
                    self._say(f"{done if is_done else 'nothing to send for'} {_line(record)}")
        except (CommitFailedError, RebalanceInProgressError) as error:
            raise DeskError(f"another dead-letters command took over; {_counted(dealt, done)} here") from error
        except DeskError as error:
            raise DeskError(f"{error}; {_counted(dealt, done)} before") if dealt else error from None
        self._say(_counted(dealt, done))
        return dealt

    @contextmanager
    def _consumer(self) -> Iterator[KafkaConsumer]:
        try:
            kafka = new_consumer(
                self._settings.bootstrap_servers,
                client_id=GROUP,
                group_id=GROUP,
                session_timeout_ms=int(SESSION_SECONDS * 1000),
                heartbeat_interval_ms=int(SESSION_SECONDS * 250),
            )
            with closing(kafka):
                if not kafka.partitions_for_topic(self._settings.dead_letter_topic):
                    raise DeskError(f"there is no topic {self._settings.dead_letter_topic}")
                yield kafka
        except (CommitFailedError, RebalanceInProgressError):
            raise
        except KafkaError as error:
            raise DeskError(f"Kafka does not answer as it should: {error}") from error

    def _join(self, kafka: KafkaConsumer) -> None:
        kafka.subscribe([self._settings.dead_letter_topic])
        deadline = time.monotonic() + ASSIGNMENT_SECONDS
        while not kafka.assignment():
            if time.monotonic() > deadline:
                raise DeskError("another dead-letters command is at work: Kafka gave this one nothing to do")
            # What comes with the assignment would be passed over; from `seek` on it comes again.
            for partition, records in kafka.poll(timeout_ms=int(POLL_SECONDS * 1000)).items():
                kafka.seek(partition, records[0].offset)

    def _pending(self, kafka: KafkaConsumer, count: int | None) -> Iterator[Record]:
        """From the present position on, up to the last one that is there now, at most `count`."""
        (end,) = kafka.end_offsets([self._partition]).values()
        given = 0
        quiet_until = time.monotonic() + REQUEST_SECONDS
        while given != count and kafka.position(self._partition, timeout_ms=REQUEST_SECONDS * 1000) < end:
            batch = kafka.poll(timeout_ms=int(POLL_SECONDS * 1000), max_records=1)
            if self._partition not in kafka.assignment():
                raise CommitFailedError
            for record in batch.get(self._partition, []):
                quiet_until = time.monotonic() + REQUEST_SECONDS
                given += 1
                yield record
            if time.monotonic() > quiet_until:
                raise KafkaTimeoutError(f"no dead letter came for {REQUEST_SECONDS} seconds")


def _line(record: Record) -> str:
    def said(name: str, longest: int = 100) -> str:
        return header_text(record.headers, name, longest)

    event = f"event {said('ce_id')} {said('ce_type')} ticket {said('ce_subject')}"
    came_from = f"{said('dlq_partition')}/{said('dlq_offset')}"
    consumer = said("dlq_consumer")
    return f"{record.offset} {said('dlq_time')} {consumer} {came_from} {event}: {said('dlq_reason', 500)}"


def _counted(number: int, what: str) -> str:
    return f"{number or 'no'} dead letter{'' if number == 1 else 's'} {what}"
