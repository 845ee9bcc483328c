"""The command of operators that sends events to Kafka once more: its arguments, and how it is run."""

import argparse
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from server.app.process import StartError
from server.settings import Settings

if TYPE_CHECKING:
    from server.workers.republish import Selection


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `republish` takes."""
    parser.add_argument("--ticket", type=_ticket_id, metavar="UUID", help="the events of one ticket")
    parser.add_argument("--from", type=_moment, metavar="TIME", dest="since", help="those that occurred from then on")
    parser.add_argument("--to", type=_moment, metavar="TIME", dest="until", help="and before then")
    parser.add_argument("--dry-run", action="store_true", help="only say how many they are")
    parser.set_defaults(check=_check, refuse=parser.error)


def _check(arguments: argparse.Namespace) -> None:
    """Ends the process, as argparse does, where the arguments don't go together."""
    if arguments.ticket and (arguments.since or arguments.until):
        arguments.refuse("give either --ticket, or --from and --to")
    if not arguments.ticket and not (arguments.since and arguments.until):
        arguments.refuse("give --ticket, or both --from and --to")
    if arguments.since and arguments.since >= arguments.until:
        arguments.refuse("--from must lie before --to")


def run_republish(settings: Settings, arguments: argparse.Namespace) -> int:
    """Send events that were published already once more, and print how many; returns the exit code.

    Raises:
        StartError: the database can't be reached.
    """
    import psycopg

    from server.workers.republish import Republication
    from server.workers.topics import TICKET_EVENTS

    republication = Republication(settings.database_url, settings.kafka_bootstrap_servers, TICKET_EVENTS, print)
    try:
        return 0 if republication.run(_selection(arguments), dry_run=arguments.dry_run) else 1
    except psycopg.Error as error:
        raise StartError(f"the database (DATABASE_URL) does not answer: {str(error).strip()}") from error


def _selection(arguments: argparse.Namespace) -> "Selection":
    from server.workers.republish import between, of_ticket

    return of_ticket(arguments.ticket) if arguments.ticket else between(arguments.since, arguments.until)


def _moment(text: str) -> datetime:
    with suppress(ValueError):
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment
    raise argparse.ArgumentTypeError(f"{text!r} is no RFC 3339 time with a zone, such as 2026-03-04T05:06:07Z")


def _ticket_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no UUID") from None
