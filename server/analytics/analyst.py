"""The consumer of the Analytics Service: it goes over to the next generation whenever a rebuild begins one."""

import threading
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

import psycopg
import structlog

from server.analytics.generations import group_of, newest_generation
from server.analytics.intake import FactKeeper
from server.analytics.schema import SCHEMA
from server.workers.consumer import Consumer, ConsumerSettings
from server.workers.topics import DEAD_LETTERS, TICKET_EVENTS

_log = structlog.stdlib.get_logger("nibble.analyst")

# How soon a rebuild is noticed where no events arrive. Where some do, the first of them notices.
LOOK_SECONDS = 2.0


class AnalystSettings(NamedTuple):
    """Where the facts are kept and the events come from, and what the frame of consumers is told."""

    dsn: str
    bootstrap_servers: str
    session_timeout: float
    dead_letter_limit: int

    def of_consumer(self, generation: int) -> ConsumerSettings:
        """What the consumer of one generation needs."""
        return ConsumerSettings(
            dsn=self.dsn,
            schema=SCHEMA,
            bootstrap_servers=self.bootstrap_servers,
            topic=TICKET_EVENTS,
            dead_letter_topic=DEAD_LETTERS,
            group=group_of(generation),
            session_timeout=self.session_timeout,
            dead_letter_limit=self.dead_letter_limit,
        )


class Analyst:
    """Keeps facts until `stop` is set."""

    def __init__(self, settings: AnalystSettings, clock: Callable[[], datetime], stop: threading.Event) -> None:
        self._settings = settings
        self._clock = clock
        self._stop = stop

    def run(self) -> None:
        """Work until stopped, one generation after the other.

        Raises:
            TooManyDeadLetters: the process should end, with an exit code that says that this was not asked for.
        """
        while (generation := self._find_generation()) is not None:
            over = threading.Event()
            watch = threading.Thread(target=self._watch, args=(generation, over), daemon=True)
            watch.start()
            Consumer(self._settings.of_consumer(generation), FactKeeper(generation), self._clock, over).run()
            watch.join()

    def _find_generation(self) -> int | None:
        """The generation to work for, as soon as the database tells; None where the analyst was stopped meanwhile."""
        last = None
        while not self._stop.is_set():
            try:
                return newest_generation(self._settings.dsn)
            except psycopg.Error as error:
                if type(error) is not last:
                    _log.warning("the generation of the facts can't be read", error=str(error).strip())
                last = type(error)
            self._stop.wait(LOOK_SECONDS)
        return None

    def _watch(self, generation: int, over: threading.Event) -> None:
        """Set `over` when there is a newer generation, or the analyst is stopped."""
        while not self._stop.wait(LOOK_SECONDS) and not self._is_over(generation):
            pass
        over.set()

    def _is_over(self, generation: int) -> bool:
        try:
            newest = newest_generation(self._settings.dsn)
        except psycopg.Error:
            return False  # the consumer says what is wrong with the database
        if newest != generation:
            _log.info("the facts are built anew", generation=newest)
        return newest != generation
