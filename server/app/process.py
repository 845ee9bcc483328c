"""What every process of the service does, whatever its role."""

import asyncio
import os
import signal
import threading
from datetime import UTC, datetime

import structlog

from server import telemetry
from server.settings import Settings

_log = structlog.stdlib.get_logger("nibble.app")


class StartError(Exception):
    """The process can't start; the message says why in one line."""


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def serve_metrics(settings: Settings) -> None:
    """Serve the process's metrics where the settings say.

    Raises:
        StartError: the port is taken.
    """
    try:
        telemetry.serve_metrics(settings.metrics_host, settings.metrics_port)
    except OSError as error:
        address = f"{settings.metrics_host}:{settings.metrics_port}"
        raise StartError(f"can't serve metrics on {address} (METRICS_PORT): {error}") from error


def silence_grpc() -> None:
    """Keep gRPC's core from writing lines of its own form, to no one's use but its developers'.

    It reads this when it is loaded, so that comes first.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def stop_at_signals(grace_seconds: float) -> threading.Event:
    """An event that SIGTERM and SIGINT set; the process ends `grace_seconds` later even where it is held up."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: object) -> None:
        # In this order: what the signal interrupts may hold the event's lock, and then setting it never ends.
        _end_within(grace_seconds)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    return stop


def stop_loop_at_signals(grace_seconds: float) -> asyncio.Event:
    """As `stop_at_signals`, for a process that is one event loop, the running one: it wakes up from its waits."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def on_signal() -> None:
        stop.set()
        _end_within(grace_seconds)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stop


def _end_within(seconds: float) -> None:
    """End the process even where a client blocks: Kafka's while no broker answers, the database's while that is frozen.

    Nothing is lost by that: what was not noted as done is done again.
    """

    def end() -> None:
        _log.warning("ended without waiting for what holds it up", grace_seconds=seconds)
        os._exit(0)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
