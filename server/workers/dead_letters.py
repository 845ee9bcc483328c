"""Dead letters: records that a consumer could not use, put aside in a topic of their own with the reason.

A dead letter keeps its record's key, value and headers, and has six headers more, which say what happened. Where
Kafka's client could not read the record there is nothing to keep, and `dlq_unread` is a seventh. It is redriven or
discarded by `python -m server dead-letters` (`dead_letter_desk`).
"""

from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import structlog
from kafka import KafkaProducer
from kafka.errors import KafkaError

from server import telemetry
from server.domain.validation import is_uuid
from server.workers.event_reading import Record
from server.workers.kafka_clients import REQUEST_SECONDS, new_producer
from server.workers.unread_records import NotRead

WINDOW = timedelta(seconds=60)
LONGEST_REASON = 500
OWN_HEADERS = "dlq_"
UNREAD = "dlq_unread"
"""The offsets of what could not be read: a dead letter with this header holds nothing of it."""
CLOSE_SECONDS = 2.0

_log = structlog.stdlib.get_logger("nibble.dead_letters")


class TooManyDeadLetters(Exception):
    """More records than the limit allows were poison within a minute: the consumer itself is at fault, or its source.

    The consumer ends with it, and its process should end with an exit code that is not zero. Records that were not put
    aside are not committed, and come again.
    """


class Poison(NamedTuple):
    """A record that can't be used, and why: `reason` may quote the event, `for_log` never does."""

    record: Record
    reason: str
    for_log: str


class DeadLetterSettings(NamedTuple):
    """Where dead letters go, under which name of a consumer, and how many a minute are put up with."""

    bootstrap_servers: str
    topic: str
    consumer: str
    limit: int


class Limit:
    """How many dead letters there may be within WINDOW, at any time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._recent: deque[datetime] = deque()

    def check(self, now: datetime) -> None:
        """Raises TooManyDeadLetters where there is no room for one more."""
        while self._recent and self._recent[0] <= now - WINDOW:
            self._recent.popleft()
        if len(self._recent) >= self._most:
            text = f"more than {self._most} dead letters (DEAD_LETTER_LIMIT) within {WINDOW.seconds} seconds"
            raise TooManyDeadLetters(text)

    def note(self, now: datetime) -> None:
        """One dead letter was written."""
        self._recent.append(now)


class DeadLetters:
    """Puts poison aside. The connection is made when the first poison turns up."""

    def __init__(self, settings: DeadLetterSettings, clock: Callable[[], datetime]) -> None:
        self._settings = settings
        self._clock = clock
        self._limit = Limit(settings.limit)
        self._producer: KafkaProducer | None = None

    def put_aside(self, poison: Poison) -> None:
        """Send one dead letter and wait until Kafka has acknowledged it.

        Raises:
            TooManyDeadLetters: the limit is reached, and this one was not sent.
            KafkaError: it was not acknowledged. It may have arrived all the same, and will then be there twice.
        """
        self._limit.check(self._clock())
        try:
            self._send(poison)
        except KafkaError:
            # A producer that failed once may refuse everything from then on.
            self.close()
            raise
        self._limit.note(self._clock())
        telemetry.EVENTS_CONSUMED.labels("dead").inc()
        record = poison.record
        place = {"partition": record.partition, "offset": _offset(record)}
        _log.error("dead letter", reason=poison.for_log, **place, **_ids(record.headers))

    def close(self) -> None:
        """Close the connection; the next dead letter makes a new one."""
        if self._producer is not None:
            self._producer.close(timeout=CLOSE_SECONDS)
            self._producer = None

    def _send(self, poison: Poison) -> None:
        if self._producer is None:
            client_id = f"{self._settings.consumer}-dead-letters"
            self._producer = new_producer(self._settings.bootstrap_servers, client_id)
        key, value, headers = self._letter(poison)
        self._producer.send(self._settings.topic, value, key, headers).get(timeout=REQUEST_SECONDS + 1)

    def _letter(self, poison: Poison) -> tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]:
        record = poison.record
        said = {
            "dlq_reason": printable(poison.reason, LONGEST_REASON),
            "dlq_topic": record.topic,
            "dlq_partition": str(record.partition),
            "dlq_offset": str(_offset(record)),
            "dlq_consumer": self._settings.consumer,
            "dlq_time": self._clock().isoformat(),
        }
        if isinstance(record.value, NotRead):
            said[UNREAD] = record.value.offsets
        headers = [*original_headers(record.headers), *((name, text.encode()) for name, text in said.items())]
        # The client sends no record that has neither, and no value that isn't bytes itself.
        is_empty = record.key is record.value is None or isinstance(record.value, NotRead)
        return record.key, b"" if is_empty else record.value, headers


def original_headers(headers: Sequence[tuple[str, bytes | None]]) -> list[tuple[str, bytes]]:
    """Those that the record had before it became a dead letter; one without a value has an empty one from then on."""
    return [(name, value or b"") for name, value in headers if not name.startswith(OWN_HEADERS)]


def printable(text: str, longest: int) -> str:
    """The text in one line, without anything that a terminal would obey, and not longer than that."""
    visible = "".join(char if char.isprintable() else " " for char in text)
    return visible if len(visible) <= longest else f"{visible[: longest - 1]}…"


def header_text(headers: Sequence[tuple[str, bytes | None]], name: str, longest: int = 100) -> str:
    """A header as text that may be shown; a hyphen where there is none."""
    found = [value for header, value in headers if header == name and value]
    return printable(found[-1].decode(errors="replace"), longest) if found else "-"


def _offset(record: Record) -> int:
    """Of the first, where it stands for several that could not be read."""
    return record.value.first if isinstance(record.value, NotRead) else record.offset


def _ids(headers: Sequence[tuple[str, bytes | None]]) -> dict[str, str]:
    """For the log: nothing that is no id, whatever a sender wrote into these headers."""
    ids = {"event_id": header_text(headers, "ce_id"), "ticket_id": header_text(headers, "ce_subject")}
    return {name: text for name, text in ids.items() if is_uuid(text)}
