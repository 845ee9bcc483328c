"""How far a benchmark is: a bar on a terminal, a line a step elsewhere; on standard error, apart from the figures."""

import sys
from types import TracebackType
from typing import Any, Self

import progressbar


class Progress:
    """So many steps, each named when it begins. A context manager."""

    def __init__(self, what: str, steps: int) -> None:
        self._what = what
        self._steps = steps
        self._begun = 0
        self._bar = self._new_bar() if sys.stderr.isatty() else None

    def _new_bar(self) -> progressbar.ProgressBar:
        widget: Any = progressbar.widgets  # whose classes say nothing of their types
        at = widget.Variable("at", "{value}")
        return progressbar.ProgressBar(
            max_value=self._steps,
            widgets=[f"{self._what} ", widget.Bar(), " ", widget.ETA(), " ", at],
            fd=sys.stderr,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.finish(dirty=error is not None)

    def begin(self, step: str, done: int | None = None) -> None:
        """The next step begins; `done` are over, and unless that is said as many as have begun before it."""
        done = self._begun if done is None else done
        if self._bar is None:
            print(f"{self._what}: {done} of {self._steps}: {step}", file=sys.stderr, flush=True)
        else:
            self._bar.update(min(done, self._steps), at=f"{step:<36}")
        self._begun += 1
