"""A process that serves an API: how each of them starts, becomes ready and stops."""

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from server.app.process import StartError, now, serve_metrics, silence_grpc
from server.domain.callers import CallTable
from server.settings import Settings

if TYPE_CHECKING:
    from grpc import ServerCredentials

    from server.api.boundary import Boundary
    from server.api.server import ApiServer, Service
    from server.auth.keys import KeySet
    from server.db.database import Database
    from server.db.statement import Sharing, Statement

READY_POLL_SECONDS = 0.2
# How long a thread that only computes keeps the calls waiting at each of their steps; Python's own choice is 5 ms.
SWITCH_SECONDS = 0.000_2

# So many more objects than were freed make the collector look; Python's own choice is 700, of which a call is a tenth.
GC_THRESHOLD = 10_000

# A process that takes few calls at once is to say so itself to those who come together.
LEAST_WAITING = 200

_log = structlog.stdlib.get_logger("nibble.app")


class Api(NamedTuple):
    """What one API consists of.

    `background` runs beside it, from before its first call to after its last; `close` is called when all that is over.
    """

    database: "Database"
    may_call: CallTable
    services: "Sequence[Service]"
    background: Sequence[Callable[[], Coroutine[Any, Any, None]]] = ()
    close: Callable[[], Coroutine[Any, Any, None]] | None = None


Compose = Callable[[Settings], Api]


def serve(settings: Settings, compose: Compose, *, until_stdin_closes: bool = False) -> int:
    """Serve the API until SIGTERM or SIGINT; returns the exit code.

    Args:
        until_stdin_closes: stop also when standard input ends, which is how a worker notices that its parent is gone.

    Raises:
        StartError: a port is taken, or the file of the signing keys can't be read.
    """
    import uvloop

    silence_grpc()
    sys.setswitchinterval(SWITCH_SECONDS)
    serve_metrics(settings)
    uvloop.run(_serve(settings, compose, until_stdin_closes=until_stdin_closes))
    return 0


def database(
    settings: Settings, probe: "Statement", shared: "Sequence[Sharing]" = (), *, tells_of_trouble: bool = True
) -> "Database":
    """The database of an API; see `Database` for the rest."""
    from server.db.database import Database, PoolLimits

    limits = PoolLimits(
        size=settings.db_pool_size,
        max_waiting=settings.db_pool_max_waiting,
        timeout=settings.db_pool_timeout_seconds,
        statement_timeout=settings.statement_timeout_seconds,
    )
    return Database(settings.database_url, limits, probe, shared, tells_of_trouble=tells_of_trouble)


async def _serve(settings: Settings, compose: Compose, *, until_stdin_closes: bool) -> None:
    # Several workers write to one log.
    structlog.contextvars.bind_contextvars(port=settings.grpc_port)
    asked = _stop_requests(until_stdin_closes=until_stdin_closes)
    keys = _keys(settings)
    database, may_call, services, background, close = compose(settings)
    async with AsyncExitStack() as stack:
        await database.open()
        stack.push_async_callback(database.close)
        if close is not None:
            stack.push_async_callback(close)
        server = _server(settings, services, _boundary(settings, keys, may_call))
        for work in background:
            await stack.enter_async_context(_background(work()))
        await server.start()
        stack.push_async_callback(_stop, server, settings, asked)
        await stack.enter_async_context(_background(keys.keep_fresh()))
        await stack.enter_async_context(_background(_report_ready(server, database, keys)))
        _spare_the_collector()
        _log.info("listening", host=settings.grpc_host)
        await asked.event.wait()
    _log.info("stopped")


def _spare_the_collector() -> None:
    """What was loaded by now stays: the collector of cycles looks at it no more, and at what calls leave less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)


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


def _boundary(settings: Settings, keys: "KeySet", may_call: CallTable) -> "Boundary":
    from server.api.boundary import Boundary, Limits
    from server.auth.tokens import TokenVerifier

    verifier = TokenVerifier(keys, settings.jwt_issuer, settings.jwt_audience, settings.jwt_leeway_seconds)
    limits = Limits(
        calls=settings.max_concurrent_calls,
        default_deadline=settings.default_deadline_seconds,
        streams=settings.max_concurrent_streams,
        streams_per_caller=settings.max_streams_per_caller,
        stream_seconds=settings.max_stream_seconds,
    )
    return Boundary(verifier, may_call, limits)


def _server(settings: Settings, services: "Sequence[Service]", boundary: "Boundary") -> "ApiServer":
    from server.api.server import ApiServer, Endpoint

    # As many as may be in flight can come at once, and so can all the streams after a restart.
    streaming = any(method.server_streaming for service in services for method in service.descriptor.methods)
    most_waiting = max(LEAST_WAITING, settings.max_concurrent_calls)
    most_waiting += settings.max_concurrent_streams if streaming else 0
    endpoint = Endpoint(
        settings.grpc_host, settings.grpc_port, settings.max_request_bytes, most_waiting, _credentials(settings)
    )
    try:
        return ApiServer(services, boundary, endpoint)
    except RuntimeError as error:
        raise StartError(f"can't listen on {endpoint.host}:{endpoint.port} (GRPC_PORT): {error}") from error


def _credentials(settings: Settings) -> "ServerCredentials | None":
    from server.tls import TlsFiles, UnusableTls, server_credentials

    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    try:
        files = TlsFiles(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)
        return server_credentials(files, now)
    except UnusableTls as error:
        raise StartError(str(error)) from error
