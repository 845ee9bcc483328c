"""The processes of the service itself, as parts of the stack."""

import http.client
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from devstack.identity import write_private
from devstack.part import CHECKOUT, Program
from devstack.ports import BEHIND_THE_API, LOOPBACK, Ports
from devstack.tls import Tls
from server import health


def programs(env: Mapping[str, str], ports: Ports, workers: int, tls: Tls | None = None) -> list[Program]:
    """One for each role, with the environment that it reads its settings from.

    `tls`: how to ask those that answer gRPC whether they serve, where they speak TLS.
    """
    return [
        Program("migrate", [*_SERVER, "migrate"], env=env, needs=["postgres"], one_shot=True),
        Program(
            "api",
            [*_SERVER, "api", "--workers", str(workers)],
            is_ready=lambda: all(is_serving(ports.grpc + i, tls) for i in range(workers)),
            env=env,
            needs=["migrate"],
            drains=True,
        ),
        *(
            _worker(name, env, ports.metrics_of(name, workers), ["migrate", "kafka"])
            for name in ("relay", "notifier", "analyst")
        ),
        _worker("sweeper", env, ports.metrics_of("sweeper", workers), ["migrate"]),
        *(
            _another_api(name, env, ports.grpc_of(name, workers), ports.metrics_of(name, workers), tls)
            for name in BEHIND_THE_API
        ),
    ]


def _worker(name: str, env: Mapping[str, str], metrics_port: int, needs: Sequence[str]) -> Program:
    """A role that answers nobody; it is at work once it tells its numbers."""
    return Program(
        name,
        [*_SERVER, name],
        is_ready=lambda: http_status(metrics_port, "/metrics") == 200,
        env={**env, "METRICS_PORT": str(metrics_port)},
        needs=needs,
        drains=True,
    )


def _another_api(name: str, env: Mapping[str, str], port: int, metrics_port: int, tls: Tls | None) -> Program:
    """A role that answers gRPC in one process."""
    return Program(
        name,
        [*_SERVER, name],
        is_ready=lambda: is_serving(port, tls),
        env={**env, "API_WORKERS": "1", "GRPC_PORT": str(port), "METRICS_PORT": str(metrics_port)},
        needs=["migrate"],
        drains=True,
    )


def write_command(file: Path, env: Mapping[str, str]) -> None:
    """Makes a program of `python -m server`, with that environment, for operators: `file dead-letters list`."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in env.items()]
    script = "\n".join(["#!/bin/sh", *lines, f'exec {shlex.join(_SERVER)} "$@"', ""])
    # It holds the secrets of the stack.
    write_private(file, script.encode(), mode=0o700)


def python_path(present: str | None) -> str:
    """PYTHONPATH with which the checkout's packages and generated stubs are found without being installed."""
    return ":".join(filter(None, [str(CHECKOUT), str(CHECKOUT / "generated"), present]))


def is_serving(port: int, tls: Tls | None = None) -> bool:
    """Whether the gRPC server on that port says by grpc.health.v1 that it serves."""
    return health.is_serving(f"{LOOPBACK}:{port}", timeout=1, peer=tls.peer() if tls else None)


def http_status(port: int, path: str, tls: Tls | None = None) -> int | None:
    """The status of a GET, or None when nothing answers."""
    connection = _connection(port, tls)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _connection(port: int, tls: Tls | None) -> http.client.HTTPConnection:
    if tls is None:
        return http.client.HTTPConnection(LOOPBACK, port, timeout=1)
    return http.client.HTTPSConnection(LOOPBACK, port, timeout=1, context=tls.context())


_SERVER = [sys.executable, "-m", "server"]
