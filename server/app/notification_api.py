"""The Notification Service: the API of the inbox."""

from server.app import api_process
from server.app.process import now
from server.domain.paging import PageTokens
from server.settings import Settings


def run_api(settings: Settings) -> int:
    """Serve the inbox's API until SIGTERM or SIGINT; returns the exit code.

    Raises:
        StartError: a port is taken, or the file of the signing keys can't be read.
    """
    return api_process.serve(settings, _compose)


def _compose(settings: Settings) -> api_process.Api:
    from nibble.notification.v1 import notification_service_pb2

    from server.api.server import Service
    from server.notification.directory import StaffDirectory
    from server.notification.feed import Feed
    from server.notification.inbox import Collaborators
    from server.notification.inbox_statements import PROBE
    from server.notification.permissions import MAY_CALL
    from server.notification.servicer import NotificationServicer

    database = api_process.database(settings, PROBE)
    feed = Feed(database)
    tokens = PageTokens(settings.page_token_key)
    on = Collaborators(database, tokens, now, StaffDirectory(database, now), feed)
    descriptor = notification_service_pb2.DESCRIPTOR.services_by_name["NotificationService"]
    services = [Service(descriptor, NotificationServicer(on).methods())]
    return api_process.Api(database, MAY_CALL, services, [feed.keep_watch])
