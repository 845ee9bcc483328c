"""A sweeper of a test's own on the database of the running stack, with its log."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from devstack.part import CHECKOUT, launcher
from tests.system.stage import Stage
from tests.system.vocabulary import eventually, new_id

INTERVAL_SECONDS = 0.1


class SweeperProcess:
    """One more sweeper process of the same stack."""

    def __init__(self, stage: Stage, **settings: str) -> None:
        """Args: settings: in the environment, over those of the stack."""
        self._log = stage.stack.logs / f"sweeper-{new_id()}.log"
        own = {"METRICS_PORT": "0", "SWEEP_INTERVAL_SECONDS": str(INTERVAL_SECONDS)}
        env = {**os.environ, **stage.stack.service_env(), **own, **settings}
        with self._log.open("ab") as log:
            command = launcher([sys.executable, "-m", "server", "sweeper"])
            self.process = subprocess.Popen(command, env=env, cwd=CHECKOUT, stdout=log, stderr=log)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What it has logged."""
        return [json.loads(line) for line in self._log.read_text().splitlines(keepends=True) if line.endswith("\n")]

    @property
    def events(self) -> list[str]:
        """The words of what it has logged."""
        return [line["event"] for line in self.lines]

    def done(self, sweep: str) -> int:
        """How many pieces of work it has done, by rounds that have ended."""
        return sum(line["done"] for line in self.lines if line["event"] == "swept" and line["sweep"] == sweep)

    def kill(self) -> None:
        """As the kernel would."""
        self.process.kill()
        self.process.wait(10)


@contextmanager
def sweeper(stage: Stage) -> Iterator[SweeperProcess]:
    """Such a process, once it sweeps; it is killed at the end."""
    with sweepers(stage, 1) as (started,):
        yield started


@contextmanager
def sweepers(stage: Stage, count: int, **settings: str) -> Iterator[list[SweeperProcess]]:
    """So many, once all of them sweep; they are killed at the end."""
    started = [SweeperProcess(stage, **settings) for _ in range(count)]
    try:
        eventually(lambda: all("sweeping" in process.events for process in started), 120)
        yield started
    finally:
        for process in started:
            process.kill()
