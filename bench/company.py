"""What stands around a measured stack: the floor server, and the callers' process; both end with this one."""

import json
import os
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import grpc

from bench import wave
from bench.callers import Order
from bench.data_set import data_set, load
from devstack.part import CHECKOUT, launcher
from devstack.ports import LOOPBACK, Ports, free_port
from devstack.stack import Stack

START_SECONDS = 20.0
CALLERS = 32
"""How many call at once, unless an option says otherwise."""


class CallersFailed(Exception):
    """A call of a measurement failed, or was not answered with what it asked for: no figure would mean anything."""


class Calls(NamedTuple):
    """The calls of one order: how long each took, in ascending milliseconds, and all of them in seconds."""

    milliseconds: Sequence[float]
    elapsed: float

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return len(self.milliseconds) / self.elapsed


class _Helper:
    """A process that takes an order a line and answers with a line."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.pid = process.pid

    def _ask(self, order: Mapping[str, Any]) -> Any:  # noqa: ANN401 - what JSON holds
        if self._process.stdin is None or self._process.stdout is None:
            raise TypeError("the process is not reachable")
        self._process.stdin.write(f"{json.dumps(order)}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise CallersFailed("the callers have ended")
        return json.loads(line)


class Callers(_Helper):
    """Callers in a process of their own."""

    def make_calls(self, order: Order) -> Calls:
        """Have the calls made.

        Raises:
            CallersFailed: one of them failed.
        """
        answer = self._ask(order._asdict())
        if "error" in answer:
            raise CallersFailed(f"{order.kind} over {order.door} at {order.targets[0]}: {answer['error']}")
        return Calls(sorted(answer["milliseconds"]), answer["elapsed"])


@contextmanager
def loaded_stack(parts: Collection[str], workers: int = 1) -> Iterator[Stack]:
    """A stack of these parts that holds the data set, as durable as in production."""
    with (
        TemporaryDirectory(prefix="nibble-") as folder,
        Stack(Path(folder), Ports.free(workers), parts=parts, workers=workers) as stack,
    ):
        load(stack.dsn, data_set())
        yield stack


def pid_of(stack: Stack, part: str) -> int:
    """The process of a part that runs."""
    pid = stack.part(part).pid
    if pid is None:
        raise LookupError(f"{part} does not run")
    return pid


@contextmanager
def callers(stack: Stack, count: int = CALLERS) -> Iterator[Callers]:
    """So many callers with tokens of this stack."""
    command = [sys.executable, "-m", "bench.callers", str(stack.run_dir / "identity"), str(count)]
    with _process(command, stack.service_env(), piped=True) as process:
        yield Callers(process)


class Surge(_Helper):
    """Callers who come by the clock, in a process of their own."""

    def make_calls(self, order: wave.Order) -> list[wave.Outcome]:
        """Every call's outcome, in the order in which they ended."""
        return [wave.Outcome(*outcome) for outcome in self._ask(order._asdict())]


@contextmanager
def surge(stack: Stack) -> Iterator[Surge]:
    """Callers by the clock with tokens of this stack."""
    command = [sys.executable, "-m", "bench.wave", str(stack.run_dir / "identity")]
    with _process(command, stack.service_env(), piped=True) as process:
        yield Surge(process)


class Floor(NamedTuple):
    """The floor server that runs."""

    pid: int
    target: str


@contextmanager
def floor(stack: Stack) -> Iterator[Floor]:
    """A floor server on the stack's database, in the environment of the service."""
    port = free_port()
    with _process([sys.executable, "-m", "bench.floor", str(port)], stack.service_env()) as process:
        target = f"{LOOPBACK}:{port}"
        with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
            grpc.channel_ready_future(channel).result(START_SECONDS)
        yield Floor(process.pid, target)


@contextmanager
def _process(
    command: Sequence[str], env: Mapping[str, str], *, piped: bool = False
) -> Iterator["subprocess.Popen[str]"]:
    pipe = subprocess.PIPE if piped else None
    with subprocess.Popen(
        launcher(command), env={**os.environ, **env}, cwd=CHECKOUT, text=True, stdin=pipe, stdout=pipe
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
