"""The composition root: the only room that knows everybody. It starts in order and stops in reverse order.

Each role imports what it needs when it runs: the relay loads no gRPC, the API no Kafka client.
"""

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import structlog

from server import telemetry
from server.domain.paging import PageTokens
from server.settings import Settings

if TYPE_CHECKING:
    from grpc import ServerCredentials

    from server.api.boundary import Boundary
    from server.api.server import ApiServer
    from server.auth.keys import KeySet
    from server.db.database import Database
    from server.usecases.collaborators import Collaborators

TOPIC = "support.ticket-events.v1"
READY_POLL_SECONDS = 0.2
RELAY_GRACE_SECONDS = 5.0

_log = structlog.stdlib.get_logger("nibble.app")


class StartError(Exception):
    """The process can't start; the message says why in one line."""


def _now() -> datetime:
    return datetime.now(UTC)


def _serve_metrics(settings: Settings) -> None:
    try:
        telemetry.serve_metrics(settings.metrics_host, settings.metrics_port)
    except OSError as error:
        address = f"{settings.metrics_host}:{settings.metrics_port}"
        raise StartError(f"can't serve metrics on {address} (METRICS_PORT): {error}") from error


def run_migrate(settings: Settings) -> int:
    """Bring the database up to date; returns the exit code.

    Raises:
        StartError: the database can't be reached, or refuses a migration.
    """
    from sqlalchemy.exc import DBAPIError

    from server.db.migrations import migrate

    try:
        revision = migrate(settings.database_url)
    except DBAPIError as error:
        raise StartError(f"the database (DATABASE_URL) can't be migrated: {error.orig}") from error
    _log.info("migrated", revision=revision)
    return 0


def run_relay(settings: Settings) -> int:
    """Relay events until SIGTERM or SIGINT; returns the exit code.

    Raises:
        StartError: the metrics port is taken.
    """
    from server.workers.relay import Relay, RelaySettings

    stop = threading.Event()

    def on_signal(_number: int, _frame: object) -> None:
        stop.set()
        _end_within(RELAY_GRACE_SECONDS)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    _serve_metrics(settings)
    where = RelaySettings(settings.database_url, settings.kafka_bootstrap_servers, TOPIC)
    Relay(where, _now, stop).run()
    _log.info("stopped")
    return 0


def _end_within(seconds: float) -> None:
    """End the process even where a client blocks: Kafka's while no broker answers, the database's while that is frozen.

    Nothing is lost by that: what was not marked as published is sent again.
    """

    def end() -> None:
        _log.warning("ended without waiting for Kafka and the database", grace_seconds=seconds)
        os._exit(0)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def run_api(settings: Settings, *, until_stdin_closes: bool) -> int:
    """Serve the API until SIGTERM or SIGINT, in this process or in several; returns the exit code.

    Args:
        until_stdin_closes: stop also when standard input ends, which is how a worker notices that its parent is gone.

    Raises:
        StartError: a port is taken, or the file of the signing keys can't be read.
    """
    if settings.api_workers > 1:
        from server.processes import run_workers

        patience = settings.shutdown_delay_seconds + settings.shutdown_grace_seconds
        return run_workers(settings.api_workers, settings.grpc_port, settings.metrics_port, patience)
    import uvloop

    # gRPC's core writes lines of its own form, to no one's use but its developers'; it reads this when it is loaded.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    _serve_metrics(settings)
    uvloop.run(_serve_api(settings, until_stdin_closes=until_stdin_closes))
    return 0


async def _serve_api(settings: Settings, *, until_stdin_closes: bool) -> None:
    # Several workers write to one log.
    structlog.contextvars.bind_contextvars(port=settings.grpc_port)
    asked = _stop_requests(until_stdin_closes=until_stdin_closes)
    keys = _keys(settings)
    database = _database(settings)
    async with AsyncExitStack() as stack:
        await database.open()
        stack.push_async_callback(database.close)
        server = _api_server(settings, _collaborators(settings, database), _boundary(settings, keys))
        await server.start()
        stack.push_async_callback(_stop, server, settings, asked)
        await stack.enter_async_context(_background(keys.keep_fresh()))
        await stack.enter_async_context(_background(_report_ready(server, database, keys)))
        _log.info("listening", host=settings.grpc_host)
        await asked.event.wait()
    _log.info("stopped")


class _StopRequest:
    """Whether this process was asked to stop, and whether it has lost its parent."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.orphaned = False


def _stop_requests(*, until_stdin_closes: bool) -> _StopRequest:
    asked = _StopRequest()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.event.set)
    if until_stdin_closes:
        loop.add_reader(sys.stdin.fileno(), _on_stdin, loop, asked)
    return asked


def _on_stdin(loop: asyncio.AbstractEventLoop, asked: _StopRequest) -> None:
    if not os.read(sys.stdin.fileno(), 1024):
        loop.remove_reader(sys.stdin.fileno())
        asked.orphaned = True
        asked.event.set()


async def _stop(server: "ApiServer", settings: Settings, asked: _StopRequest) -> None:
    # A process whose parent is gone makes room at once: the parent's successor wants its port.
    delay = 0.0 if asked.orphaned else settings.shutdown_delay_seconds
    _log.info("stopping", delay_seconds=delay, grace_seconds=settings.shutdown_grace_seconds)
    await server.stop(delay, settings.shutdown_grace_seconds)


@asynccontextmanager
async def _background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _report_ready(server: "ApiServer", database: "Database", keys: "KeySet") -> None:
    """SERVING once there are keys to check tokens with, and the database has answered with the schema in place.

    A database that goes away later changes nothing here: calls then answer UNAVAILABLE by themselves, which tells
    callers more than a server that no gateway sends to. Keys stay when their source goes away.
    """
    last = None
    while (problem := "no signing keys so far" if keys.is_empty else await database.problem()) is not None:
        if problem != last:
            _log.warning("not ready", problem=problem)
        last = problem
        await asyncio.sleep(READY_POLL_SECONDS)
    await server.report_health(serving=True)
    _log.info("serving")


def _keys(settings: Settings) -> "KeySet":
    from server.auth.keys import KeySet, keys_at_url, keys_in_file

    # Of the calls that are admitted at once, those that wait for a key may be a tenth.
    most_waiting = max(1, settings.max_concurrent_calls // 10)
    if settings.jwks_file is None:
        # An identity provider that is down is no reason not to start: it is asked again until there are keys.
        return KeySet(keys_at_url(settings.jwks_url or ""), most_waiting=most_waiting)
    keys = KeySet(keys_in_file(settings.jwks_file), most_waiting=most_waiting)
    try:
        keys.load()
    except (OSError, ValueError) as error:
        # A file that is wrong stays wrong until somebody mends it.
        raise StartError(f"the signing keys (JWKS_FILE) can't be read: {error}") from error
    return keys


def _database(settings: Settings) -> "Database":
    from server.db.database import Database, PoolLimits

    limits = PoolLimits(
        size=settings.db_pool_size,
        max_waiting=settings.db_pool_max_waiting,
        timeout=settings.db_pool_timeout_seconds,
        statement_timeout=settings.statement_timeout_seconds,
    )
    return Database(settings.database_url, limits)


def _collaborators(settings: Settings, database: "Database") -> "Collaborators":
    from uuid_utils.compat import uuid7

    from server.usecases.collaborators import Collaborators

    return Collaborators(
        db=database,
        page_tokens=PageTokens(settings.page_token_key),
        clock=_now,
        new_id=uuid7,
        idempotency_key_ttl=timedelta(seconds=settings.idempotency_key_ttl_seconds),
        reopen_on_comment=settings.reopen_on_comment,
    )


def _boundary(settings: Settings, keys: "KeySet") -> "Boundary":
    from server.api.boundary import Boundary
    from server.auth.tokens import TokenVerifier

    verifier = TokenVerifier(keys, settings.jwt_issuer, settings.jwt_audience, settings.jwt_leeway_seconds)
    return Boundary(verifier, settings.max_concurrent_calls, settings.default_deadline_seconds)


def _api_server(settings: Settings, on: "Collaborators", boundary: "Boundary") -> "ApiServer":
    from server.api.server import ApiServer, Endpoint

    endpoint = Endpoint(settings.grpc_host, settings.grpc_port, settings.max_request_bytes, _credentials(settings))
    try:
        return ApiServer(on, boundary, endpoint)
    except RuntimeError as error:
        raise StartError(f"can't listen on {endpoint.host}:{endpoint.port} (GRPC_PORT): {error}") from error


def _credentials(settings: Settings) -> "ServerCredentials | None":
    from server.tls import TlsFiles, UnusableTls, server_credentials

    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    try:
        files = TlsFiles(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)
        return server_credentials(files, _now)
    except UnusableTls as error:
        raise StartError(str(error)) from error
