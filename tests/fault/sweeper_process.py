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

    def __init__(self, stage: Stage) -> None:
        self._log = stage.stack.logs / f"sweeper-{new_id()}.log"
        settings = {"METRICS_PORT": "0", "SWEEP_INTERVAL_SECONDS": str(INTERVAL_SECONDS)}
        env = {**os.environ, **stage.stack.service_env(), **settings}
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

    def kill(self) -> None:
        """As the kernel would."""
        self.process.kill()
        self.process.wait(10)


@contextmanager
def sweeper(stage: Stage) -> Iterator[SweeperProcess]:
    """Such a process, once it sweeps; it is killed at the end."""
    started = SweeperProcess(stage)
    try:
        eventually(lambda: "sweeping" in started.events)
        yield started
    finally:
        started.kill()
