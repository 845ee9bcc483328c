"""The frame of every consumer of the ticket events. What a service does with an event is its handler's business.

An event is applied once, whatever is killed, replayed or moved to another consumer: its row in `consumed_events` and
what its handler writes are one transaction. Kafka's offsets are committed after it, so a consumer that dies between the
two gets its last events again, finds them in the table and drops them.

- Trouble, a database or Kafka that does not answer as it should, is waited out, for ever: nothing is skipped.
- Poison, a record that can't be read, is no event or that the handler fails on, becomes a dead letter, and the others
  go on: those that follow it in the same ticket too. A handler must put up with a gap in a ticket's sequence, and with
  the missing event's arrival after later ones, when the dead letter is redriven.
- More poison than the limit allows ends the consumer.
"""

import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import psycopg
import structlog
from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import (
    CommitFailedError,
    CorruptRecordError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    NodeNotReadyError,
    RebalanceInProgressError,
    UnknownTopicOrPartitionError,
)
from nibble.support.v1 import ticket_event_pb2
from psycopg import Connection, RawCursor, errors
from psycopg.pq import TransactionStatus

from server import telemetry
from server.db.consumed import ConsumedEvents, Mark
from server.db.database import StatementFailed, with_liveliness, worker_session
from server.domain.validation import parse_uuid
from server.errors import DependencyUnavailable
from server.workers.dead_letters import DeadLetters, DeadLetterSettings, Poison, TooManyDeadLetters
from server.workers.event_reading import Record, Unreadable, read_event
from server.workers.kafka_clients import new_consumer

_log = structlog.stdlib.get_logger("nibble.consumer")

BATCH_BYTES = 8 * 1024 * 1024
POLL_SECONDS = 0.5
SHORTEST_PAUSE = 0.2
LONGEST_PAUSE = 5.0
COMMIT_SECONDS = 3.0
CLOSE_SECONDS = 2.0
LAG_SECONDS = 1.0
# Longer than a group waits for a member that died: its others send no heartbeats meanwhile.
SILENCE_SECONDS = 15.0
OUTCOMES = ("applied", "duplicate", "passed_over", "dead")

CONTRADICTION = "another event had the same event_id, or the same sequence of the ticket"

NO_KAFKA = "Kafka does not answer"
NO_RECORDS = "records of a partition are damaged where Kafka keeps them, and can't be read"
NO_DATABASE = "the events can't be applied now"
NO_DEAD_LETTERS = "Kafka takes no dead letters"
NO_OFFSETS = "Kafka takes no offsets"

# What waiting can mend: the database is away, too busy, read-only, or stopped this transaction for another's sake.
_TROUBLE = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    errors.ReadOnlySqlTransaction,
    errors.IdleInTransactionSessionTimeout,
    DependencyUnavailable,
)
# Classes of SQLSTATE that say that the database is not as the handler expects it, such as before its migrations. No
# event can cause these.
_NOT_AS_EXPECTED = ("42", "3F")


class Handler(Protocol):
    """What a service does with events."""

    def apply(
        self, connection: Connection[Any], events: Sequence[ticket_event_pb2.TicketEvent]
    ) -> Callable[[], None] | None:
        """Write what follows from events that were never applied before, in the open transaction of `connection`.

        Events of one ticket stand together, in order of their sequence. They are well-formed: the ids of event, ticket,
        change, actor and owner are UUIDs, the sequence is positive, `ticket` is the one that `ticket_id` names; enums
        may hold a value that this version does not know, as 0. How many come at once must make no difference, and
        nothing but the transaction may have effects: it is rolled back and run anew where anything fails.

        Placeholders are PostgreSQL's own ($1, $2, …).

        Returns:
            What is to be done when the transaction is committed, such as to count what was written. It must not fail,
            and it is not done where the process ends between the two.

        Raises:
            DependencyUnavailable: these events can't be applied now; they come again after a while.
            Exception: any other makes the events come one by one, and then makes the event that it was raised for a
                dead letter.
        """


class ConsumerSettings(NamedTuple):
    """Where events come from and where their traces go. `group` is the consumer's name among all that read the topic.

    session_timeout: seconds until the partitions of a consumer that died go to another; its restarted self is another.
    dead_letter_limit: how many dead letters within a minute are put up with.
    batch: the most records that are taken at once.
    """

    dsn: str
    schema: str
    bootstrap_servers: str
    topic: str
    dead_letter_topic: str
    group: str
    session_timeout: float = 10.0
    dead_letter_limit: int = 10
    batch: int = 500


class Reading(NamedTuple):
    """A record and the event in it."""

    record: Record
    event: ticket_event_pb2.TicketEvent
    mark: Mark


class FailedStatementPassedOver(Exception):
    """The handler went on after a statement that failed, so that PostgreSQL would have undone what it did."""


class _Troubles:
    """What keeps a consumer from its work, each kind logged when it begins, changes and ends."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._present: dict[str, str] = {}
        self._pauses: dict[str, float] = {}

    def note(self, what: str, error: Exception) -> float:
        """How many seconds to wait. Trouble that stays the same is the same however its message is worded each time."""
        telemetry.CONSUMER_TROUBLE.set(self._clock().timestamp())
        kind = _kind(error)
        if self._present.get(what) != kind:
            _log.warning(what, error=in_words(error))
            self._present[what], self._pauses[what] = kind, SHORTEST_PAUSE
        else:
            self._pauses[what] = min(self._pauses[what] * 2, LONGEST_PAUSE)
        return self._pauses[what]

    def has(self, what: str) -> bool:
        return what in self._present

    def end(self, what: str) -> None:
        if self._present.pop(what, None) is not None:
            _log.info("the trouble is over", trouble=what)


class Consumer:
    """Applies the events of the topic through a handler until `stop` is set.

    Several may work in one group: each event then comes to one of them.
    """

    def __init__(
        self,
        settings: ConsumerSettings,
        handler: Handler,
        clock: Callable[[], datetime],
        stop: threading.Event,
    ) -> None:
        self._settings = settings
        self._handler = handler
        self._clock = clock
        self._stop = stop
        self._consumed = ConsumedEvents(settings.schema)
        to = DeadLetterSettings(
            settings.bootstrap_servers, settings.dead_letter_topic, settings.group, settings.dead_letter_limit
        )
        self._dead_letters = DeadLetters(to, clock)
        self._connection: Connection[Any] | None = None
        self._troubles = _Troubles(clock)
        self._assigned: set[TopicPartition] = set()
        self._uncommitted: dict[TopicPartition, int] = {}
        self._lag_measured = self._heard = float("-inf")
        self._oldest: float | None = None
        """When the oldest record not yet worked through was sent, or one not much older; None where there is none."""
        for outcome in OUTCOMES:
            telemetry.EVENTS_CONSUMED.labels(outcome)
        telemetry.CONSUMER_LAG_EVENTS.set(0)
        telemetry.CONSUMER_LAG_SECONDS.set_function(self._lag_seconds)

    def run(self) -> None:
        """Work until stopped.

        Raises:
            TooManyDeadLetters: the process should end, with an exit code that says that this was not asked for.
        """
        _log.info("consuming", topic=self._settings.topic, group=self._settings.group)
        try:
            while not self._stop.is_set():
                try:
                    with self._subscription() as kafka:
                        self._consume(kafka)
                except CorruptRecordError as error:
                    self._wait_out(NO_RECORDS, error)
                except KafkaError as error:
                    self._wait_out(NO_KAFKA, error)
        except TooManyDeadLetters as error:
            _log.error("stopped by poison", error=str(error), group=self._settings.group)
            raise
        finally:
            self._dead_letters.close()
            self._disconnect()

    @contextmanager
    def _subscription(self) -> Iterator[KafkaConsumer]:
        timeout_ms = int(self._settings.session_timeout * 1000)
        kafka = new_consumer(
            self._settings.bootstrap_servers,
            client_id=self._settings.group,
            group_id=self._settings.group,
            session_timeout_ms=timeout_ms,
            heartbeat_interval_ms=timeout_ms // 4,
            max_poll_records=self._settings.batch,
            fetch_max_bytes=BATCH_BYTES,
        )
        self._assigned, self._heard = set(), time.monotonic()
        try:
            if not kafka.partitions_for_topic(self._settings.topic):
                raise UnknownTopicOrPartitionError(self._settings.topic)
            kafka.subscribe([self._settings.topic])
            yield kafka
        finally:
            kafka.close(timeout_ms=CLOSE_SECONDS * 1000)

    def _consume(self, kafka: KafkaConsumer) -> None:
        while not self._stop.is_set():
            batch = kafka.poll(timeout_ms=int(POLL_SECONDS * 1000))
            self._note_assignment(kafka)
            self._note_silence(kafka, is_silent=not batch)
            if batch:
                self._work_through(kafka, batch)
            self._commit(kafka)
            self._measure_lag(kafka)

    def _work_through(self, kafka: KafkaConsumer, batch: Mapping[TopicPartition, list[Record]]) -> None:
        records = [record for of_partition in batch.values() for record in of_partition]
        self._oldest = min(record.timestamp for record in records) / 1000
        try:
            unsettled = self._apply(records)
        except Exception as error:
            if not _is_trouble(error):
                raise
            self._disconnect()
            self._go_back(kafka, batch, records)
            self._wait_out(NO_DATABASE, error)
            return
        self._troubles.end(NO_DATABASE)
        try:
            self._put_aside(unsettled)
        except KafkaError as error:
            self._wait_out(NO_DEAD_LETTERS, error)
        finally:
            left = [poison.record for poison in unsettled]
            self._uncommitted |= settled_offsets(batch, left)
            self._go_back(kafka, batch, left)
            if left:
                # What is left may end this process, or the next attempt at it.
                self._commit(kafka)
        _log.debug("worked through", records=len(records), left=len(left))

    def _put_aside(self, unsettled: list[Poison]) -> None:
        """Make dead letters of the list, and take each from it when Kafka has it."""
        while unsettled:
            self._dead_letters.put_aside(unsettled[0])
            self._troubles.end(NO_DEAD_LETTERS)
            del unsettled[0]

    # --- The database -------------------------------------------------------------------------------------------------

    def _apply(self, records: Sequence[Record]) -> list[Poison]:
        """Apply the events in these records, and return the records that are poison."""
        readings, poison, passed_over = _read(records)
        if readings:
            poison += self._apply_together(self._connected(), readings)
        telemetry.EVENTS_CONSUMED.labels("passed_over").inc(passed_over)
        return poison

    def _apply_together(self, connection: Connection[Any], readings: Sequence[Reading]) -> list[Poison]:
        try:
            return self._in_one_transaction(connection, readings)
        except Exception as error:
            # What takes too long for all of them would do so each time that they come again.
            if _is_trouble(error) and not isinstance(error, errors.QueryCanceled):
                raise
            _log.debug("the events of a batch are applied one by one", error=type(error).__name__)
        poison: list[Poison] = []
        for reading in readings:
            try:
                poison += self._in_one_transaction(connection, [reading])
            except Exception as error:
                if _is_trouble(error):
                    raise
                poison.append(Poison(reading.record, in_words(error), without_texts(error)))
        return poison

    def _in_one_transaction(self, connection: Connection[Any], readings: Sequence[Reading]) -> list[Poison]:
        """Apply those that are new; those that contradict what was applied before are poison."""
        afterwards: Callable[[], None] | None = None
        with connection.transaction():
            marks = [reading.mark for reading in readings]
            new, contradicting = self._consumed.remember(connection, marks, self._clock())
            if new:
                afterwards = self._handler.apply(connection, _in_order(readings, new))
            if connection.info.transaction_status is TransactionStatus.INERROR:
                raise FailedStatementPassedOver("the handler went on after a statement that had failed")
        if afterwards is not None:
            afterwards()
        poison = [
            Poison(reading.record, CONTRADICTION, CONTRADICTION)
            for reading in readings
            if reading.mark in contradicting
        ]
        telemetry.EVENTS_CONSUMED.labels("applied").inc(len(new))
        telemetry.EVENTS_CONSUMED.labels("duplicate").inc(len(readings) - len(new) - len(poison))
        return poison

    def _connected(self) -> Connection[Any]:
        if self._connection is None:
            self._connection = psycopg.connect(
                with_liveliness(self._settings.dsn),
                # Outside of `transaction()` alone: within it a handler can't commit.
                autocommit=True,
                cursor_factory=RawCursor,
                options=worker_session(),
                application_name=self._settings.group,
            )
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # --- Kafka --------------------------------------------------------------------------------------------------------

    def _commit(self, kafka: KafkaConsumer) -> None:
        """Tell Kafka how far this consumer is. Where that fails, what it tells again later is dropped as duplicates."""
        if not self._uncommitted:
            return
        try:
            offsets = {each: OffsetAndMetadata(offset, "", -1) for each, offset in self._uncommitted.items()}
            kafka.commit(offsets, timeout_ms=COMMIT_SECONDS * 1000)
            self._uncommitted.clear()
            self._troubles.end(NO_OFFSETS)
        except (CommitFailedError, RebalanceInProgressError):
            # Whoever gets the partitions now begins at the offsets that were committed before.
            self._uncommitted.clear()
            _log.debug("the partitions move; their offsets stay uncommitted")
        except KafkaError as error:
            self._troubles.note(NO_OFFSETS, error)

    def _go_back(
        self, kafka: KafkaConsumer, batch: Mapping[TopicPartition, list[Record]], left: Collection[Record]
    ) -> None:
        """Have the records that are left come again, and with them those behind them."""
        for partition, offset in settled_offsets(batch, left).items():
            if offset <= batch[partition][-1].offset and partition in kafka.assignment():
                kafka.seek(partition, offset)

    def _wait_out(self, what: str, error: Exception) -> None:
        self._stop.wait(self._troubles.note(what, error))

    def _note_assignment(self, kafka: KafkaConsumer) -> None:
        assigned = kafka.assignment()
        if assigned != self._assigned:
            self._assigned = set(assigned)
            self._uncommitted.clear()
            _log.info("assigned", partitions=sorted(partition.partition for partition in assigned))

    def _note_silence(self, kafka: KafkaConsumer, *, is_silent: bool) -> None:
        """The client keeps it to itself when no broker answers any more; that shows in its heartbeats alone."""
        now = time.monotonic()
        if not is_silent or _heartbeat_age(kafka) < self._settings.session_timeout:
            self._heard = now
            self._troubles.end(NO_KAFKA)
        elif now - self._heard > SILENCE_SECONDS:
            self._troubles.note(NO_KAFKA, KafkaTimeoutError("no heartbeat gets through"))

    def _measure_lag(self, kafka: KafkaConsumer) -> None:
        now = time.monotonic()
        if now - self._lag_measured < LAG_SECONDS:
            return
        self._lag_measured = now
        ends = {partition: kafka.highwater(partition) for partition in self._assigned}
        if self._troubles.has(NO_RECORDS) and (not ends or None in ends.values()):
            # The damaged partition is not known yet, and may have all the lag.
            return
        # Where the end is known something was fetched, so that the position is known too, without asking Kafka.
        lag = sum(end - (kafka.position(each, timeout_ms=0) or 0) for each, end in ends.items() if end is not None)
        telemetry.CONSUMER_LAG_EVENTS.set(lag)
        if not lag:
            self._oldest = None
            self._troubles.end(NO_RECORDS)

    def _lag_seconds(self) -> float:
        oldest = self._oldest
        return 0.0 if oldest is None else max(0.0, self._clock().timestamp() - oldest)


def _read(records: Iterable[Record]) -> tuple[list[Reading], list[Poison], int]:
    """The events, the records that are none, and how many are of a type that this version does not know."""
    readings, poison, passed_over = [], [], 0
    for record in records:
        try:
            event = read_event(record)
        except Unreadable as error:
            poison.append(Poison(record, str(error), str(error)))
            continue
        if event is None:
            passed_over += 1
        else:
            readings.append(Reading(record, event, _mark(event)))
    return readings, poison, passed_over


def _mark(event: ticket_event_pb2.TicketEvent) -> Mark:
    event_id, ticket_id = parse_uuid(event.event_id), parse_uuid(event.ticket_id)
    if event_id is None or ticket_id is None:
        raise ValueError("the event was not checked")
    return Mark(event_id, ticket_id, event.sequence)


def _in_order(readings: Iterable[Reading], new: Collection[Mark]) -> list[ticket_event_pb2.TicketEvent]:
    """The new events, each once, a ticket's together and in their order."""
    events = {reading.mark: reading.event for reading in readings if reading.mark in new}
    return [events[mark] for mark in sorted(events, key=lambda mark: (mark.ticket_id, mark.sequence))]


def settled_offsets(
    batch: Mapping[TopicPartition, Sequence[Record]], left: Collection[Record]
) -> dict[TopicPartition, int]:
    """For each partition of the batch the offset from which on records are still to be worked through.

    Args:
        left: records of the batch that are not done with.
    """
    settled = {partition: records[-1].offset + 1 for partition, records in batch.items()}
    for record in left:
        partition = TopicPartition(record.topic, record.partition)
        settled[partition] = min(settled[partition], record.offset)
    return settled


def _is_trouble(error: Exception) -> bool:
    sqlstate = error.sqlstate if isinstance(error, psycopg.Error) else None
    return isinstance(error, _TROUBLE) or (sqlstate or "").startswith(_NOT_AS_EXPECTED)


def _kind(error: Exception) -> str:
    if isinstance(error, KafkaConnectionError | KafkaTimeoutError | NodeNotReadyError):
        return "no answer"
    return f"{type(error).__name__} {getattr(error, 'sqlstate', None)}"


def _heartbeat_age(kafka: KafkaConsumer) -> float:
    """Seconds since this member of the group last sent a heartbeat, which it does when the one before was answered."""
    name = "last-heartbeat-seconds-ago"
    return min(float(group[name]) for group in kafka.metrics().values() if name in group)


def in_words(error: Exception) -> str:
    """The error's type and message; of PostgreSQL's errors, which quote rows in their details, without those."""
    if isinstance(error, psycopg.Error) and error.sqlstate:
        return str(StatementFailed(error))
    name, text = type(error).__name__, str(error).strip()
    # Kafka's errors begin with their name by themselves.
    return text if text.startswith(name) else f"{name}: {text}".removesuffix(": ")


def without_texts(error: Exception) -> str:
    """The error's type and where it was raised, for the log: a message may quote what callers wrote."""
    frames = traceback.extract_tb(error.__traceback__)
    where = [
        f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames if "server" in Path(frame.filename).parts
    ]
    code = getattr(error, "sqlstate", None)
    return " ".join(filter(None, [type(error).__name__, code, f"at {where[-1]}" if where else None]))
