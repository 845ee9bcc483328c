"""The support service: its API and its relay."""

import threading
from datetime import timedelta

import structlog

from server.app import api_process
from server.app.collaborators import collaborators
from server.app.process import now, serve_metrics, stop_at_signals
from server.settings import Settings

RELAY_GRACE_SECONDS = 5.0

_log = structlog.stdlib.get_logger("nibble.app")


def run_api(settings: Settings, *, until_stdin_closes: bool) -> int:
    """Serve the API until SIGTERM or SIGINT, in this process or in several; returns the exit code.

    Raises:
        StartError: a port is taken, or the file of the signing keys can't be read.
    """
    if settings.api_workers > 1:
        from server.processes import run_workers

        patience = settings.shutdown_delay_seconds + settings.shutdown_grace_seconds
        return run_workers(settings.api_workers, settings.grpc_port, settings.metrics_port, patience)
    return api_process.serve(settings, _compose, until_stdin_closes=until_stdin_closes)


def run_relay(settings: Settings) -> int:
    """Relay events until SIGTERM or SIGINT; returns the exit code.

    Raises:
        StartError: the metrics port is taken.
    """
    from server.workers.relay import Relay, RelaySettings
    from server.workers.topics import TICKET_EVENTS

    stop = stop_at_signals(RELAY_GRACE_SECONDS)
    serve_metrics(settings)
    if settings.event_retention_seconds is not None:
        _delete_old_events(settings.database_url, timedelta(seconds=settings.event_retention_seconds), stop)
    where = RelaySettings(settings.database_url, settings.kafka_bootstrap_servers, TICKET_EVENTS)
    Relay(where, now, stop).run()
    _log.info("stopped")
    return 0


def _delete_old_events(dsn: str, keep: timedelta, stop: threading.Event) -> None:
    """Does so beside the relay, which must not wait for it."""
    from server.workers.retention import Retention

    threading.Thread(target=Retention(dsn, keep, now, stop).run, name="retention", daemon=True).start()


def _compose(settings: Settings) -> api_process.Api:
    from nibble.support.v1 import agent_service_pb2, comment_service_pb2, privacy_service_pb2, ticket_service_pb2

    from server.api.agents import AgentServicer
    from server.api.comments import CommentServicer
    from server.api.privacy import PrivacyServicer
    from server.api.server import Service
    from server.api.tickets import TicketServicer
    from server.db.statement import SHARED
    from server.db.statements import PROBE
    from server.domain.permissions import MAY_CALL

    database = api_process.database(settings, PROBE, SHARED)
    on = collaborators(settings, database, settings.page_token_key)
    tickets = ticket_service_pb2.DESCRIPTOR.services_by_name["TicketService"]
    comments = comment_service_pb2.DESCRIPTOR.services_by_name["CommentService"]
    agents = agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"]
    privacy = privacy_service_pb2.DESCRIPTOR.services_by_name["PrivacyService"]
    services = [
        Service(tickets, TicketServicer(on).methods()),
        Service(comments, CommentServicer(on).methods()),
        Service(privacy, PrivacyServicer(on).methods()),
        Service(agents, AgentServicer(on).methods()),
    ]
    return api_process.Api(database, MAY_CALL, services, close=on.close)
