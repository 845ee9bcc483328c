"""One more API process of the running stack, for what must not be done to the stack's own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from devstack.part import CHECKOUT, launcher
from devstack.ports import LOOPBACK, free_port
from devstack.service import is_serving
from tests.system.doors import Grpc
from tests.system.stage import Stage
from tests.system.vocabulary import eventually

GRACE_SECONDS = 4.0


class ApiProcess:
    """One more API process of the same stack, and a door to it."""

    def __init__(self, stage: Stage, **settings: str) -> None:
        """Args: settings: in the environment, over those of the stack."""
        self.port = free_port()
        env = {
            **os.environ,
            **stage.stack.service_env(),
            "API_WORKERS": "1",
            "METRICS_PORT": "0",
            "GRPC_PORT": str(self.port),
            "SHUTDOWN_DELAY_SECONDS": "0",
            "SHUTDOWN_GRACE_SECONDS": str(GRACE_SECONDS),
            **settings,
        }
        with (stage.stack.logs / "second-api.log").open("ab") as log:
            command = launcher([sys.executable, "-m", "server", "api"])
            self.process = subprocess.Popen(command, env=env, cwd=CHECKOUT, stdout=log, stderr=log)
        self.door = Grpc("gRPC on a port of its own", f"{LOOPBACK}:{self.port}", stage.mint)

    def end(self) -> None:
        """Kill the process, whatever state it is in, and close the door."""
        self.door.close()
        self.process.kill()
        self.process.wait()


@contextmanager
def serving(stage: Stage, **settings: str) -> Iterator[ApiProcess]:
    """Such a process, once it serves; it is ended at the end."""
    api = ApiProcess(stage, **settings)
    try:
        eventually(lambda: is_serving(api.port), 20)
        yield api
    finally:
        api.end()
