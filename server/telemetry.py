"""Logs and metrics: one structured line and one count per call, and nothing a caller wrote in either."""

import contextlib
import json
import logging
import math
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog
from prometheus_client import Counter, Gauge, Histogram, start_http_server

CALLS = Counter("nibble_calls", "Calls answered, by method and code", ["method", "code"])
CALL_SECONDS = Histogram(
    "nibble_call_seconds",
    "Time from a call's arrival to its answer",
    ["method"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
CALLS_IN_FLIGHT = Gauge("nibble_calls_in_flight", "Calls admitted and not yet answered")
CALLS_TURNED_AWAY = Counter("nibble_calls_turned_away", "Calls refused since as many as may be were in flight")
STREAMS = Gauge("nibble_streams", "Streams of answers that are open")
DB_CONNECTIONS = Gauge("nibble_db_connections", "Connections to PostgreSQL, open or being opened")
DB_WAITING = Gauge("nibble_db_waiting_calls", "Calls that wait for a connection to come free")
KEYS = Gauge("nibble_signing_keys", "Public keys that tokens are checked with")
KEYS_READ = Gauge("nibble_signing_keys_read_timestamp_seconds", "When the source of the keys was last read in full")
KEYS_FAILED = Counter("nibble_signing_keys_read_failures", "Looks at the source of the keys that failed")
CERTIFICATE_EXPIRY = Gauge("nibble_tls_certificate_expiry_timestamp_seconds", "When the certificate in use ends")
USER_SERVICE_CALLS = Counter("nibble_user_service_calls", "Questions to the User Service, by outcome", ["outcome"])
USER_SERVICE_OPEN = Gauge("nibble_user_service_breaker_open", "Whether the User Service is taken to be down (1) or not")
ORDER_SERVICE_CALLS = Counter("nibble_order_service_calls", "Questions to the Order Service, by outcome", ["outcome"])
ORDER_SERVICE_OPEN = Gauge(
    "nibble_order_service_breaker_open", "Whether the Order Service is taken to be down (1) or not"
)
# A process without them has no number either: an alarm compares with NaN in vain.
for _gauge in (KEYS, KEYS_READ, CERTIFICATE_EXPIRY, USER_SERVICE_OPEN, ORDER_SERVICE_OPEN):
    _gauge.set(math.nan)
EVENTS_PUBLISHED = Counter("nibble_relay_events_published", "Events that Kafka has acknowledged")
EVENTS_FAILED = Counter("nibble_relay_events_failed", "Sends of an event that failed and will be tried again")
EVENT_BACKLOG = Gauge("nibble_relay_backlog_events", "Events that Kafka has not acknowledged yet")
OLDEST_EVENT_SECONDS = Gauge("nibble_relay_oldest_unsent_seconds", "Age of the oldest event not yet acknowledged")
BACKLOG_MEASURED = Gauge("nibble_relay_backlog_timestamp_seconds", "When the two above were measured last")
SHARDS_HELD = Gauge("nibble_relay_shards", "Shards of the tickets that this relay sends the events of, of 16")
PUBLISH_SECONDS = Histogram(
    "nibble_relay_publish_seconds",
    "Time from an event to Kafka's acknowledgement",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2.5, 5, 10, 60, 600),
)
EVENTS_CONSUMED = Counter("nibble_consumer_events", "Records of the topic that a consumer is done with", ["outcome"])
CONSUMER_LAG_EVENTS = Gauge("nibble_consumer_lag_events", "Records of the consumer's partitions not yet worked through")
CONSUMER_LAG_SECONDS = Gauge("nibble_consumer_lag_seconds", "Age of the oldest record not yet worked through")
CONSUMER_TROUBLE = Gauge(
    "nibble_consumer_last_trouble_timestamp_seconds", "When a consumer last met trouble, and waited"
)
NOTIFICATIONS = Counter("nibble_notifications", "Notifications written, by type", ["type"])
EVENTS_TOO_OLD_TO_TELL = Counter("nibble_notifier_events_too_old", "Events that told nobody since they were too old")
EMAILS = Counter("nibble_emails", "E-mails that came to an end, and attempts that did not, by outcome", ["outcome"])
EMAILS_WAITING = Gauge("nibble_emails_waiting", "E-mails that are not sent so far, due or not, up to 100000")
OLDEST_DUE_EMAIL_SECONDS = Gauge("nibble_emails_oldest_due_seconds", "How long the oldest waiting e-mail has been due")
SMTP_TROUBLE = Gauge("nibble_smtp_trouble_timestamp_seconds", "When the SMTP server last failed as a whole")
SWEEP_DONE = Counter("nibble_sweep_done", "Pieces of work that a sweep has done", ["sweep"])
SWEEP_OLDEST_DUE_SECONDS = Gauge(
    "nibble_sweep_oldest_due_seconds", "How long the oldest piece of work of a sweep has been due", ["sweep"]
)
SWEEP_ROUNDS = Gauge("nibble_sweep_rounds_timestamp_seconds", "When a sweep's last whole round ended", ["sweep"])
for _gauge in (BACKLOG_MEASURED, CONSUMER_LAG_EVENTS, CONSUMER_LAG_SECONDS, CONSUMER_TROUBLE):
    _gauge.set(math.nan)
for _gauge in (EMAILS_WAITING, OLDEST_DUE_EMAIL_SECONDS, SMTP_TROUBLE):
    _gauge.set(math.nan)

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
LEVELS = tuple(_LEVELS)
FORMATS = ("json", "console")

# These say more than an operator can use: at `info`, and Kafka's client and the database's pool at every attempt to
# connect, many times a second, what the relay, the consumers and `nibble.database` say once for all of them.
_QUIETER = {
    "kafka": logging.WARNING,
    "alembic": logging.WARNING,
    "asyncio": logging.WARNING,
    "psycopg.pool": logging.ERROR,
    "kafka.net": logging.CRITICAL,
    "kafka.cluster": logging.CRITICAL,
    "kafka.coordinator": logging.CRITICAL,
    "kafka.consumer": logging.CRITICAL,
    # Quotes the bytes of a caller's header when they are not text.
    "grpc": logging.CRITICAL,
}


def configure_logging(level: str, form: str) -> None:
    """Send every log line of the process, the libraries' too, to standard error as JSON or for a terminal.

    The service's own lines don't pass through `logging`, where a line took longer than many a call's own work.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderers = _renderers(form)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[_without_internals, *renderers])
    )
    logging.basicConfig(level=_LEVELS[level], handlers=[handler], force=True)
    for name, least in _QUIETER.items():
        logging.getLogger(name).setLevel(max(least, _LEVELS[level]))
    sys.unraisablehook = _log_unraisable
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=_StandardError,
        cache_logger_on_first_use=True,
    )


class _StandardError:
    """Writes a line to standard error, in one piece; one that can't be written is lost, and no call fails for it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def write(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()

    debug = info = warning = error = critical = exception = write


def _log_unraisable(what: "sys.UnraisableHookArgs") -> None:
    """An exception that nobody can catch, such as one in a finalizer, as a line like any other."""
    logging.getLogger("nibble").warning("exception ignored in %r: %r", what.object, what.exc_value)


def _without_internals(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event.pop("_record", None)
    event.pop("_from_structlog", None)
    return event


def _renderers(form: str) -> list[structlog.typing.Processor]:
    if form == "console":
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    # Tracebacks as text, without the values of variables: those hold what callers wrote.
    return [structlog.processors.format_exc_info, _as_json]


# Made once: `json.dumps` makes one for each line where it is told what to do with other types.
_ENCODER = json.JSONEncoder(default=repr)


def _as_json(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    return _ENCODER.encode(event)


def serve_metrics(host: str, port: int) -> None:
    """Answer GET /metrics in Prometheus' text format; port 0 means not at all.

    Raises:
        OSError: the port is taken.
    """
    if port:
        start_http_server(port, addr=host)
