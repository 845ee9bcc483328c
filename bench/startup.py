"""How soon a process of the API serves, and how soon the whole system does: `python -m bench.startup`."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.progress import Progress
from bench.results import verdict, write_results
from devstack.part import CHECKOUT
from devstack.ports import LOOPBACK, Ports, free_port
from devstack.stack import Stack
from server import health

STARTS = 7
TARGET_SECONDS = 1.5
STACK_TARGET_SECONDS = 20.0
LONGEST_SECONDS = 60.0
POLL_SECONDS = 0.005


def bench_startup() -> bool:
    """Print both; False where one misses its target."""
    with TemporaryDirectory(prefix="nibble-") as folder, Progress("startup", STARTS + 2) as progress:
        progress.begin("the whole system, for the first time")
        new = _stack_seconds(folder)
        progress.begin("the whole system, once more")
        again = _stack_seconds(folder)
        serving = _starts(folder, progress)
    median = statistics.median(serving)
    met, stack_met = median <= TARGET_SECONDS, again <= STACK_TARGET_SECONDS
    print(
        f"startup: the API serves {median:.2f} s after its process began ({min(serving):.2f} to {max(serving):.2f}, of"
        f" {STARTS}); target {TARGET_SECONDS} s: {verdict(met=met)}"
    )
    print(
        f"startup: the whole system is up in {again:.1f} s, and in {new:.1f} s where it has no data so far; target"
        f" {STACK_TARGET_SECONDS:.0f} s: {verdict(met=stack_met)}"
    )
    write_results("startup", {"api": serving, "stack": again, "stack_without_data": new})
    return met and stack_met


def _stack_seconds(folder: str) -> float:
    began = time.monotonic()
    with Stack(Path(folder), Ports.free()):
        return time.monotonic() - began


def _starts(folder: str, progress: Progress) -> list[float]:
    with Stack(Path(folder), Ports.free(), parts={"postgres", "migrate"}) as stack:
        seconds = []
        for number in range(STARTS):
            progress.begin(f"the API, {number + 1}")
            port = free_port()
            # As in production, with its metrics.
            ports = {"GRPC_PORT": str(port), "METRICS_PORT": str(free_port())}
            seconds.append(_seconds_to_serve(port, {**os.environ, **stack.service_env(), **ports}))
        return seconds


def _seconds_to_serve(port: int, env: Mapping[str, str]) -> float:
    """From the fork on. The process ends with this one by its standard input, so that no launcher counts."""
    began = time.monotonic()
    command = [sys.executable, "-m", "server", "api", "--until-stdin-closes"]
    with subprocess.Popen(command, env=env, cwd=CHECKOUT, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            while not health.is_serving(f"{LOOPBACK}:{port}", timeout=1):
                if process.poll() is not None or time.monotonic() - began > LONGEST_SECONDS:
                    raise TimeoutError("the API did not come to serve")
                time.sleep(POLL_SECONDS)
            return time.monotonic() - began
        finally:
            process.terminate()


if __name__ == "__main__":
    sys.exit(0 if bench_startup() else 1)
