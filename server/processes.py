"""Several API processes on consecutive ports: started fresh, watched, and stopped together.

Each worker is a new interpreter, never a fork: gRPC does not survive one. Each has its own port, since workers that
share one starve behind a gateway that holds few connections.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping

import structlog

_log = structlog.stdlib.get_logger("nibble.processes")

POLL_SECONDS = 0.2
SHORTEST_BACKOFF = 0.2
LONGEST_BACKOFF = 10.0
# A worker that lived this long had started well; its next start is not delayed.
HEALTHY_SECONDS = 30.0
# The exit code of a process that can't start, whatever is tried again.
CANNOT_START = 2


class Worker:
    """One API process, started again when it dies."""

    def __init__(self, number: int, environ: Mapping[str, str]) -> None:
        self.number = number
        self._environ = environ
        self._backoff = 0.0
        self._start_at = 0.0
        self._started = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    def start(self) -> None:
        """Start the process. It ends by itself when this one is gone: the pipe to its standard input closes."""
        command = [sys.executable, "-m", "server", "api", "--until-stdin-closes"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, env=dict(self._environ))
        self._started = time.monotonic()
        self.starts += 1

    def watch(self) -> int | None:
        """Start the process where it is due; returns its exit code when it was found dead."""
        if self._process is None:
            if time.monotonic() >= self._start_at:
                self.start()
            return None
        code = self._process.poll()
        if code is not None:
            self._plan_restart(code)
        return code

    def _plan_restart(self, code: int) -> None:
        well = code == 0 or time.monotonic() - self._started > HEALTHY_SECONDS
        self._backoff = SHORTEST_BACKOFF if well else min(max(SHORTEST_BACKOFF, self._backoff * 2), LONGEST_BACKOFF)
        self._start_at = time.monotonic() + self._backoff
        self._process = None

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def end(self, timeout: float) -> None:
        """Wait `timeout` seconds for the process to end by itself, then kill it."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, timeout))
        except subprocess.TimeoutExpired:
            _log.warning("worker killed: it did not end in time", worker=self.number, pid=self._process.pid)
            self._process.kill()
            self._process.wait()


def run_workers(count: int, grpc_port: int, metrics_port: int, patience: float) -> int:
    """Run `count` API processes until SIGTERM or SIGINT; returns the exit code for this process.

    The workers have `patience` seconds to stop in, and a little more. Worker i listens on `grpc_port` + i and, unless
    `metrics_port` is 0, serves metrics on `metrics_port` + i.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    workers = [Worker(i, _environ(i, grpc_port, metrics_port)) for i in range(count)]
    code = _watch(workers, stop)
    for worker in workers:
        worker.ask_to_stop()
    deadline = time.monotonic() + patience + 2
    for worker in workers:
        worker.end(deadline - time.monotonic())
    return code


def _watch(workers: list[Worker], stop: threading.Event) -> int:
    while not stop.is_set():
        for worker in workers:
            code = worker.watch()
            if code is None:
                continue
            # At a first start the settings are wrong. Later something else is, for now, and the other workers go on.
            if code == CANNOT_START and worker.starts == 1:
                _log.error("a worker can't start; stopping all of them", worker=worker.number)
                return CANNOT_START
            if code == 0:
                _log.info("worker ended; starting it again", worker=worker.number)
            else:
                _log.error("worker died; starting it again", worker=worker.number, exit_code=code)
        stop.wait(POLL_SECONDS)
    return 0


def _environ(number: int, grpc_port: int, metrics_port: int) -> dict[str, str]:
    ports = {"API_WORKERS": "1", "GRPC_PORT": str(grpc_port + number)}
    if metrics_port:
        ports["METRICS_PORT"] = str(metrics_port + number)
    return {**os.environ, **ports}
