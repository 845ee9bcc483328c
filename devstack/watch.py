"""Restarts a part that dies."""

import time
from collections import deque
from concurrent.futures import Executor, Future
from threading import Event

from devstack.errors import StackError, StackStopped
from devstack.part import Part, Say

DEATHS = 5
WITHIN_SECONDS = 60.0
"""A part that dies so often within that time is given up."""

FIRST_PAUSE_SECONDS = 0.2


class Watch:
    """Looks after one part: names its deaths, and starts it again after a pause that doubles from death to death."""

    def __init__(self, part: Part, pool: Executor, stopping: Event, say: Say) -> None:
        self._part = part
        self._pool = pool
        self._stopping = stopping
        self._say = say
        self._deaths: deque[float] = deque(maxlen=DEATHS)
        self._revival: Future[None] | None = None

    def look(self) -> None:
        """Begins a restart when the part is dead; StackError when it has died too often. Never blocks."""
        if self._part.program.one_shot or self._part.is_alive() or self._is_reviving():
            return
        self._say(self._part.obituary())
        self._count_death()
        self._revival = self._pool.submit(self._revive, FIRST_PAUSE_SECONDS * 2 ** (len(self._deaths) - 1))

    def _is_reviving(self) -> bool:
        return self._revival is not None and not self._revival.done()

    def _count_death(self) -> None:
        now = time.monotonic()
        while self._deaths and now - self._deaths[0] > WITHIN_SECONDS:
            self._deaths.popleft()
        self._deaths.append(now)
        if len(self._deaths) == DEATHS:
            raise StackError(
                f"{self._part.name} died {DEATHS} times within {WITHIN_SECONDS:.0f} s, so the stack stops; "
                f"its log is {self._part.log_path}"
            )

    def _revive(self, pause: float) -> None:
        if self._stopping.wait(pause):
            return
        try:
            self._part.start(self._say)
            self._say(f"{self._part.name} is ready again")
        except StackStopped:
            return
        except StackError as error:
            if self._part.is_alive():
                # Alive, but not ready in time: to be counted and started again like a dead one.
                self._say(str(error))
                self._part.kill()
