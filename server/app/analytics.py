"""The Analytics Service: its API, its consumer, and the command that has its facts built anew."""

from typing import TYPE_CHECKING

import structlog

from server.app import api_process
from server.app.process import StartError, now, serve_metrics, stop_at_signals
from server.settings import Settings

if TYPE_CHECKING:
    from server.analytics.analyst import AnalystSettings

ANALYST_GRACE_SECONDS = 5.0
TOO_MUCH_POISON = 1

_log = structlog.stdlib.get_logger("nibble.app")


def run_api(settings: Settings) -> int:
    """Answer for reports until SIGTERM or SIGINT; returns the exit code.

    Raises:
        StartError: a port is taken, or the file of the signing keys can't be read.
    """
    return api_process.serve(settings, _compose)


def run_analyst(settings: Settings) -> int:
    """Keep the facts until SIGTERM or SIGINT; returns the exit code, which is not 0 where poison has ended it.

    Raises:
        StartError: the metrics port is taken.
    """
    from server.analytics.analyst import Analyst
    from server.workers.dead_letters import TooManyDeadLetters

    stop = stop_at_signals(ANALYST_GRACE_SECONDS)
    serve_metrics(settings)
    try:
        Analyst(_analyst_settings(settings), now, stop).run()
    except TooManyDeadLetters:
        return TOO_MUCH_POISON
    _log.info("stopped")
    return 0


def run_rebuild(settings: Settings, *, forget: bool) -> int:
    """Have the facts built anew, and the topic read from its beginning by whoever consumes it; returns the exit code.

    Raises:
        StartError: the database can't be reached, or refuses; what facts there are are as true as before.
    """
    import psycopg

    from server.analytics.rebuild import rebuild

    try:
        generation = rebuild(settings.database_url, now(), forget=forget)
    except psycopg.Error as error:
        raise StartError(f"the facts (DATABASE_URL) can't be built anew: {str(error).strip()}") from error
    _log.info("the analysts read the topic from its beginning", generation=generation, forgotten=forget)
    return 0


def _compose(settings: Settings) -> api_process.Api:
    from nibble.analytics.v1 import analytics_service_pb2

    from server.analytics.permissions import MAY_CALL
    from server.analytics.servicer import AnalyticsServicer
    from server.analytics.statements import PROBE
    from server.api.server import Service

    database = api_process.database(settings, PROBE)
    descriptor = analytics_service_pb2.DESCRIPTOR.services_by_name["AnalyticsService"]
    return api_process.Api(database, MAY_CALL, [Service(descriptor, AnalyticsServicer(database).methods())])


def _analyst_settings(settings: Settings) -> "AnalystSettings":
    from server.analytics.analyst import AnalystSettings

    return AnalystSettings(
        dsn=settings.database_url,
        bootstrap_servers=settings.kafka_bootstrap_servers,
        session_timeout=settings.consumer_session_timeout_seconds,
        dead_letter_limit=settings.dead_letter_limit,
    )
