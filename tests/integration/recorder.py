"""A handler that writes down what it is given, and the process of a consumer with it, which tests kill.

The process takes its settings from its arguments and ends by SIGTERM; poison beyond the limit ends it with code 1.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from kafka import KafkaConsumer
from nibble.support.v1 import ticket_event_pb2
from psycopg import Connection

from server import telemetry
from server.workers.consumer import Consumer, ConsumerSettings
from server.workers.dead_letters import TooManyDeadLetters

SCHEMA = "recorded"
# No constraint keeps an event from standing here twice.
TABLES = """
    CREATE TABLE recorded.applied (
        position bigint GENERATED ALWAYS AS IDENTITY, event_id uuid, ticket_id uuid, sequence int
    );
    CREATE TABLE recorded.mended (at timestamptz);
"""
BROKEN = "breaks the recorder"
"""The subject of events that the recorder fails on until there is a row in `mended`."""

Act = Callable[[Connection[Any], ticket_event_pb2.TicketEvent], None]


class Recorder:
    """Writes down each event, after `act`; `pause` seconds lie between that and the end of the transaction."""

    def __init__(self, act: Act = lambda _connection, _event: None, pause: float = 0) -> None:
        self.batches: list[int] = []
        self.committed: list[int] = []
        """As `batches`, without those that were rolled back."""
        self._act = act
        self._pause = pause

    def apply(self, connection: Connection[Any], events: Sequence[ticket_event_pb2.TicketEvent]) -> Callable[[], None]:
        self.batches.append(len(events))
        for event in events:
            self._act(connection, event)
            connection.execute(
                "INSERT INTO recorded.applied (event_id, ticket_id, sequence) VALUES ($1, $2, $3)",
                [event.event_id, event.ticket_id, event.sequence],
            )
        if self._pause:
            connection.execute("SELECT pg_sleep($1)", [self._pause])
        return lambda: self.committed.append(len(events))


def breaks(connection: Connection[Any], event: ticket_event_pb2.TicketEvent) -> None:
    """Fails as a defect would, until it is mended."""
    if event.ticket.subject == BROKEN and not connection.execute("SELECT at FROM recorded.mended").fetchall():
        raise ValueError(f"can't get over {event.ticket.subject}")


def kill_this_process(*_arguments: object, **_options: object) -> None:
    """As if somebody had chosen that very moment."""
    os.kill(os.getpid(), signal.SIGKILL)


def main(settings: dict[str, Any], pause: float, *, dies_before_commit: bool) -> int:
    """The consumer as its own process; `dies_before_commit`: when it is about to tell Kafka its offsets."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    telemetry.configure_logging("debug", "json")
    if dies_before_commit:
        KafkaConsumer.commit = kill_this_process
    try:
        Consumer(ConsumerSettings(**settings), Recorder(breaks, pause), lambda: datetime.now(UTC), stop).run()
    except TooManyDeadLetters:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(**json.loads(sys.argv[1])))
