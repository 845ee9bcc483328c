"""A circuit breaker: a service that keeps failing is left alone for a while, and then asked by one caller alone."""

import threading
from collections.abc import Callable

FAILURES = 5
PAUSE = 10.0


class CircuitBreaker:
    """Closed at first; `failures` in a row open it for `pause` seconds, and whoever asks then may try.

    While the trial is out nobody else may, for another `pause` seconds: one that never reports blocks nobody for ever.
    A success, of whichever call, closes the breaker. Any thread may use it, and none waits for another.

    Not pybreaker (1.4.1): it holds its lock while the service is called, so that threads would stand in line behind one
    slow call, and it reads the wall clock by itself, so that a clock set back keeps it open.
    """

    def __init__(self, clock: Callable[[], float], failures: int = FAILURES, pause: float = PAUSE) -> None:
        """Args: clock: monotonic seconds."""
        self._clock = clock
        self._most = failures
        self._pause = pause
        self._failures = 0
        self._next_trial = float("-inf")
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether the service is taken to be down."""
        return self._failures >= self._most

    @property
    def rests(self) -> bool:
        """Whether nobody may call just now."""
        return self.is_open and self._clock() < self._next_trial

    def admits(self) -> bool:
        """Whether the caller may call now; one that may reports `succeeded` or `failed`."""
        with self._lock:
            if self.is_open:
                now = self._clock()
                if now < self._next_trial:
                    return False
                self._next_trial = now + self._pause
            return True

    def succeeded(self) -> None:
        """The service has answered as it should."""
        with self._lock:
            self._failures = 0

    def failed(self) -> None:
        """The service has not answered, or not as it should."""
        with self._lock:
            self._failures += 1
            self._next_trial = self._clock() + self._pause
