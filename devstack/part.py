"""One program under supervision."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

from devstack import orphans
from devstack.errors import StackError, StackStopped

CHECKOUT = Path(__file__).resolve().parent.parent
LAUNCH = Path(__file__).with_name("launch.py")
LOG_KEPT = 1 << 20
POLL_SECONDS = 0.05

Say = Callable[[str], None]
"""Takes one line for the console."""


def _nothing(say: Say) -> None:
    """A program that needs no preparation."""


@dataclass(frozen=True)
class Program:
    """What a part runs, and how to tell that it works.

    `prepare` runs before every start, when no process of an earlier one is left, and must do nothing when its work is
    done already. `is_ready` answers within a few seconds, and answers False, rather than raise, while the program is
    not there yet; it is not asked about a program that runs once (`one_shot`), which is ready when it has ended with
    status 0. `needs` names the parts that must be ready before this one starts. A part that `drains` is stopped before
    all others, so that it can finish what it is at. `user` is the system user to become; only root can name one.

    `stop_signal` asks for a shutdown in good order. `death_signal` is what the program gets when the supervisor is
    killed: nobody is left to insist then, so it must be one that cannot be put off.
    """

    name: str
    command: Sequence[str]
    is_ready: Callable[[], bool] = lambda: True
    prepare: Callable[[Say], None] = _nothing
    needs: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL
    start_within: float = 60.0
    drains: bool = False
    one_shot: bool = False


def launcher(command: Sequence[str], user: str = "", death_signal: signal.Signals = signal.SIGKILL) -> list[str]:
    """The command line that runs `command` as `user` and lets it end with this process."""
    # Without the user's site and environment: this is the first thing to run, as root perhaps.
    return [sys.executable, "-I", "-S", str(LAUNCH), str(os.getpid()), str(death_signal.value), user, *command]


class Part:
    """A program of the stack that is started, watched, signalled and restarted. Any thread may call it."""

    def __init__(self, program: Program, run_dir: Path, forks: Executor, stopping: threading.Event) -> None:
        """`forks` has one thread, which starts every process: the kernel ties a child to the thread that forked it."""
        self.program = program
        self.name = program.name
        self.log_path = run_dir / "logs" / f"{program.name}.log"
        self._run_dir = run_dir
        self._forks = forks
        self._stopping = stopping
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int | None:
        """The process id of the newest start, None before the first."""
        return self._process.pid if self._process else None

    @property
    def exit_code(self) -> int | None:
        """How the newest start ended (negative: by that signal); None while it runs and before the first."""
        return self._process.poll() if self._process else None

    def is_alive(self) -> bool:
        """Whether the process runs; it may not be ready."""
        return self._process is not None and self._process.poll() is None

    def start(self, say: Say = lambda line: None) -> None:
        """Starts the program and returns when it is ready.

        StackError when it ends before that or takes too long; StackStopped when the stack is told to stop meanwhile.
        """
        self._end_orphans()
        self.program.prepare(say)
        self._spawn()
        self._wait_until_ready()

    def restart(self) -> None:
        """Ends the program if it still runs, starts it again, and returns when it is ready; fails as `start` does."""
        self.ask_to_stop()
        self.stop(time.monotonic() + 10, threading.Event())
        self.start()

    def kill(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """Sends a signal to the process, not to its children; after SIGKILL it is dead when this returns."""
        if self._process is not None:
            self._process.send_signal(sig)
            if sig == signal.SIGKILL:
                self._process.wait()

    def ask_to_stop(self) -> None:
        """Sends the signal at which the program shuts down in good order."""
        if self._process is not None:
            self._process.send_signal(self.program.stop_signal)

    def stop(self, deadline: float, hurry: threading.Event) -> bool:
        """Waits until the program has ended, but not beyond `deadline` (monotonic seconds) or `hurry`.

        Then kills what is left of it. Returns whether it ended by itself.
        """
        while self.is_alive() and time.monotonic() < deadline and not hurry.wait(POLL_SECONDS):
            pass
        in_good_order = not self.is_alive()
        self.kill()
        self._end_orphans()
        return in_good_order

    def obituary(self) -> str:
        """One line on how the program ended, then the last lines that it logged."""
        code = self.exit_code or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return "\n    ".join([f"{self.name} {how}; its log is {self.log_path}", *self.last_lines()])

    def last_lines(self, count: int = 8) -> list[str]:
        """The end of what the newest start logged."""
        with self.log_path.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace").splitlines()[-count:]

    def _end_orphans(self) -> None:
        """Ends children that outlived the process: they would hold its ports and files."""
        orphans.end(orphans.processes_of(self._run_dir, self.name), grace=0)

    def _spawn(self) -> None:
        _keep_the_end(self.log_path)
        command = launcher(self.program.command, self.program.user, self.program.death_signal)
        env = {**os.environ, **self.program.env, **orphans.mark(self._run_dir, self.name)}
        with self.log_path.open("ab") as log:
            self._log_start = log.tell()
            # A session of its own: Ctrl-C on the terminal is for the supervisor alone.
            self._process = self._forks.submit(
                subprocess.Popen[bytes],
                command,
                env=env,
                cwd=CHECKOUT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            ).result()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.program.start_within
        while not self._is_ready():
            if self._stopping.wait(POLL_SECONDS):
                raise StackStopped(f"stopped while {self.name} was starting")
            if time.monotonic() > deadline:
                raise StackError(self._lateness())

    def _is_ready(self) -> bool:
        code = self.exit_code
        if self.program.one_shot and code == 0:
            return True
        if code is not None:
            raise StackError(self.obituary())
        return not self.program.one_shot and self.program.is_ready()

    def _lateness(self) -> str:
        first = f"{self.name} was not ready within {self.program.start_within:.0f} s; its log is {self.log_path}"
        return "\n    ".join([first, *self.last_lines()])


def _keep_the_end(log: Path) -> None:
    """Cuts a log to its last mebibyte, so that logs do not grow from start to start."""
    if log.exists() and log.stat().st_size > LOG_KEPT:
        with log.open("rb") as old:
            old.seek(-LOG_KEPT, os.SEEK_END)
            end = old.read()
        log.write_bytes(end)
