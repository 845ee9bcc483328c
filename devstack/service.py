"""The processes of the service itself, as parts of the stack."""

import http.client
import sys
from collections.abc import Mapping

from devstack.part import CHECKOUT, Program
from devstack.ports import LOOPBACK, Ports
from devstack.tls import Tls
from server import health


def programs(env: Mapping[str, str], ports: Ports, workers: int, tls: Tls | None = None) -> list[Program]:
    """The migrations, the API and the relay, with the environment that they read their settings from.

    `tls`: how to ask the API whether it serves, where it speaks TLS.
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
        Program(
            "relay",
            [*_SERVER, "relay"],
            is_ready=lambda: http_status(ports.metrics + workers, "/metrics") == 200,
            env={**env, "METRICS_PORT": str(ports.metrics + workers)},
            needs=["migrate", "kafka"],
            drains=True,
        ),
    ]


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
