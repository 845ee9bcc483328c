"""One more relay process of the running stack, and what a relay tells of itself."""

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from devstack.part import CHECKOUT, launcher
from devstack.ports import LOOPBACK, free_port
from devstack.service import http_status
from server.db.schema import SHARDS
from tests.system.stage import Stage
from tests.system.vocabulary import eventually


class Relay:
    """A relay, as its metrics tell of it."""

    def __init__(self, metrics_port: int) -> None:
        self._metrics_port = metrics_port

    def is_up(self) -> bool:
        """Whether it can be asked."""
        return http_status(self._metrics_port, "/metrics") == 200

    def metric(self, name: str) -> float:
        """The value of a metric without labels."""
        with urllib.request.urlopen(f"http://{LOOPBACK}:{self._metrics_port}/metrics", timeout=5) as answer:
            lines: list[str] = answer.read().decode().splitlines()
        (line,) = (line for line in lines if line.startswith(f"nibble_relay_{name} "))
        return float(line.split()[1])

    def published(self) -> float:
        """How many events it has published since it started."""
        return self.metric("events_published_total")

    def shards(self) -> float:
        """How many shards it holds."""
        return self.metric("shards")


class RelayProcess(Relay):
    """One more relay process of the same stack."""

    def __init__(self, stage: Stage, **settings: str) -> None:
        """Args: settings: in the environment, over those of the stack."""
        port = free_port()
        super().__init__(port)
        env = {**os.environ, **stage.stack.service_env(), "METRICS_PORT": str(port), **settings}
        with (stage.stack.logs / "second-relay.log").open("ab") as log:
            command = launcher([sys.executable, "-m", "server", "relay"])
            self.process = subprocess.Popen(command, env=env, cwd=CHECKOUT, stdout=log, stderr=log)


def relay_of(stage: Stage) -> Relay:
    """The stack's own relay."""
    port = urlsplit(stage.stack.metrics_url("relay")).port
    assert port is not None
    return Relay(port)


@contextmanager
def second_relay(stage: Stage, **settings: str) -> Iterator[RelayProcess]:
    """Such a process, once it can be asked; it is ended at the end."""
    relay = RelayProcess(stage, **settings)
    try:
        eventually(relay.is_up)
        yield relay
    finally:
        relay.process.kill()
        relay.process.wait()


def have_shared(*relays: Relay) -> bool:
    """Whether they have all shards among them, and each its fair share."""
    held = [relay.shards() for relay in relays]
    return sum(held) == SHARDS and max(held) - min(held) <= 1
