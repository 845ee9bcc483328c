"""The TCP ports of one stack, all on loopback."""

import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

from devstack.errors import StackError

LOOPBACK = "127.0.0.1"
# Below the range that Linux hands to outgoing connections, so that none of those takes a port between choice and use.
_CHOICE = range(10_000, 32_000)
# Chosen already in this process, perhaps for something that does not listen yet.
_chosen: set[int] = set()

BEHIND_THE_API = ("notification-api", "analytics-api")
"""The parts that answer gRPC on the ports after those of the API workers, in this order."""

MEASURED_AFTER_THE_API = ("relay", "notifier", "notification-api", "analyst", "analytics-api", "sweeper")
"""The parts that serve metrics on the ports after those of the API workers, in this order."""


@dataclass(frozen=True)
class Ports:
    """Where one stack listens.

    `grpc` is the first of one port per API worker and one for each of BEHIND_THE_API; `metrics` is the first of one per
    API worker and one for each of MEASURED_AFTER_THE_API. They stay free when such a part is left out.
    """

    gateway: int = 8080
    grpc: int = 50051
    kafka: int = 9092
    metrics: int = 9464

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Reads GATEWAY_PORT, GRPC_PORT, KAFKA_PORT and METRICS_PORT; StackError for one that is no port number."""
        return cls(
            gateway=_port_number(env, "GATEWAY_PORT", cls.gateway),
            grpc=_port_number(env, "GRPC_PORT", cls.grpc),
            kafka=_port_number(env, "KAFKA_PORT", cls.kafka),
            metrics=_port_number(env, "METRICS_PORT", cls.metrics),
        )

    @classmethod
    def free(cls, workers: int = 1) -> Self:
        """Picks ports on which nothing listens now, and that no other process of the user's picks."""
        grpc, metrics = workers + len(BEHIND_THE_API), workers + len(MEASURED_AFTER_THE_API)
        first = _free_block(2 + grpc + metrics)
        return cls(gateway=first, kafka=first + 1, grpc=first + 2, metrics=first + 2 + grpc)

    def grpc_of(self, part: str, workers: int) -> int:
        """Where one of BEHIND_THE_API answers gRPC, beside so many API workers."""
        return self.grpc + workers + BEHIND_THE_API.index(part)

    def metrics_of(self, part: str, workers: int) -> int:
        """Where one of MEASURED_AFTER_THE_API serves its metrics, beside so many API workers."""
        return self.metrics + workers + MEASURED_AFTER_THE_API.index(part)

    def claims(self, workers: int, parts: Collection[str]) -> Iterator[tuple[str, int]]:
        """Every port that those parts listen on, with the setting that it comes from."""
        if "gateway" in parts:
            yield "GATEWAY_PORT", self.gateway
        if "kafka" in parts:
            yield "KAFKA_PORT", self.kafka
        if "api" in parts:
            for i in range(workers):
                yield _claim("GRPC_PORT", self.grpc, self.grpc + i)
                yield _claim("METRICS_PORT", self.metrics, self.metrics + i)
        for part in BEHIND_THE_API:
            if part in parts:
                yield _claim("GRPC_PORT", self.grpc, self.grpc_of(part, workers))
        for part in MEASURED_AFTER_THE_API:
            if part in parts:
                yield _claim("METRICS_PORT", self.metrics, self.metrics_of(part, workers))

    def check(self, workers: int, parts: Collection[str]) -> None:
        """StackError, naming port and setting, unless every claim is a different port that is free."""
        owner: dict[int, str] = {}
        for setting, port in self.claims(workers, parts):
            if port in owner:
                raise StackError(f"port {port} is both {owner[port]} and {setting}; set one of them to another")
            owner[port] = setting
        for port, setting in owner.items():
            _refuse_unless_free(port, setting)


def free_port() -> int:
    """A port on which nothing listens now, and that nobody else in any process of the user's was given."""
    return _free_block(1)


def accepts(port: int) -> bool:
    """Whether something accepts connections on the port."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1):
            return True
    except OSError:
        return False


def _claim(setting: str, first: int, port: int) -> tuple[str, int]:
    return f"{setting} + {port - first}" if port > first else setting, port


def _port_number(env: Mapping[str, str], setting: str, default: int) -> int:
    text = env.get(setting) or str(default)
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise StackError(f"{setting} is {text!r}; it must be a port number between 1 and 65535")
    return int(text)


def _bind(port: int) -> None:
    with closing(socket.socket()) as probe:
        # As servers do: a connection that has just been closed does not count as use.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((LOOPBACK, port))


def _refuse_unless_free(port: int, setting: str) -> None:
    try:
        _bind(port)
    except PermissionError:
        raise StackError(f"port {port} ({setting}) needs more rights; set {setting.split()[0]} above 1023") from None
    except (OSError, OverflowError):
        raise StackError(f"port {port} ({setting}) is in use; set {setting.split()[0]} to another") from None


def _is_free(port: int) -> bool:
    try:
        _bind(port)
    except OSError:
        return False
    return True


def _free_block(size: int) -> int:
    for _ in range(200):
        first = random.choice(_CHOICE)  # noqa: S311 - chance only keeps stacks apart
        block = range(first, first + size)
        if _chosen.isdisjoint(block) and _reserve(block):
            _chosen.update(block)
            return first
    raise StackError(f"found no {size} free ports in a row between {_CHOICE.start} and {_CHOICE.stop}")


def _reserve(block: range) -> bool:
    """Keeps the ports from other processes until this one ends; False where one has them, or something listens."""
    try:
        fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, len(block), block.start)
    except OSError:
        return False
    if all(map(_is_free, block)):
        return True
    fcntl.lockf(_reservations(), fcntl.LOCK_UN, len(block), block.start)
    return False


@cache
def _reservations() -> int:
    """An empty file of the user's, whose nth byte is locked by the process that was given port n.

    It stays open, since closing it would give up the locks; the kernel does so when the process ends.
    """
    file = Path(tempfile.gettempdir()) / f"nibble-ports-{os.getuid()}"
    return os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
