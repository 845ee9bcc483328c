"""One command per role, `python -m server api|relay|notifier|migrate|…`, and what operators do."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from uuid import UUID

from server import telemetry
from server.app import analytics, migrations, notification, notification_api, republish, support, sweeper
from server.app.process import StartError
from server.processes import CANNOT_START
from server.settings import Role, Settings, SettingsError, read_settings

LOOPBACK = "127.0.0.1"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one role to its end; returns the exit code: 2 where it can't start, with the reasons on standard error."""
    arguments = _parser().parse_args(argv)
    if "check" in arguments:
        arguments.check(arguments)
    if arguments.command == "health":
        port = str(arguments.port or os.environ.get("GRPC_PORT") or 50_051)
        if not port.isdecimal():
            print("server health: GRPC_PORT must be a number", file=sys.stderr)  # noqa: T201
            return CANNOT_START
        return 0 if _is_serving(int(port), os.environ) else 1
    if arguments.command == "dead-letters":
        return _deal_with_dead_letters(arguments, os.environ.get("KAFKA_BOOTSTRAP_SERVERS", ""))
    role = Role(arguments.command)
    try:
        settings = read_settings(role, _environ(arguments))
        telemetry.configure_logging(settings.log_level, settings.log_format)
        return _RUN[role](settings, arguments)
    except (SettingsError, StartError) as error:
        for line in str(error).strip().splitlines():
            print(f"server {arguments.command}: {line}", file=sys.stderr)  # noqa: T201
        return CANNOT_START


# What a role needs beside settings is loaded when it runs.
_RUN: Mapping[Role, Callable[[Settings, argparse.Namespace], int]] = {
    Role.API: lambda settings, given: support.run_api(settings, until_stdin_closes=given.until_stdin_closes),
    Role.RELAY: lambda settings, _: support.run_relay(settings),
    Role.SWEEPER: lambda settings, _: sweeper.run_sweeper(settings),
    Role.MIGRATE: lambda settings, _: migrations.run_migrate(settings),
    Role.REPUBLISH: republish.run_republish,
    Role.NOTIFIER: lambda settings, _: notification.run_notifier(settings),
    Role.NOTIFICATION_API: lambda settings, _: notification_api.run_api(settings),
    Role.DEAD_EMAILS: lambda settings, given: notification.deal_with_dead_emails(settings, given.act, given.ids),
    Role.ANALYST: lambda settings, _: analytics.run_analyst(settings),
    Role.ANALYTICS_API: lambda settings, _: analytics.run_api(settings),
    Role.REBUILD_ANALYTICS: lambda settings, given: analytics.run_rebuild(settings, forget=given.forget),
}


def _deal_with_dead_letters(arguments: argparse.Namespace, bootstrap_servers: str) -> int:
    """Do what an operator asked for; 1 where it could not be done, or not all of it."""
    if not bootstrap_servers:
        print("server dead-letters: KAFKA_BOOTSTRAP_SERVERS is not set", file=sys.stderr)  # noqa: T201
        return CANNOT_START
    from server.workers.dead_letter_desk import Desk, DeskError, DeskSettings
    from server.workers.topics import DEAD_LETTERS, TICKET_EVENTS

    telemetry.configure_logging("error", "console")
    desk = Desk(DeskSettings(bootstrap_servers, DEAD_LETTERS, TICKET_EVENTS), print)
    act = {"list": desk.show, "redrive": desk.redrive, "discard": desk.discard}[arguments.act]
    try:
        act(arguments.count)
    except DeskError as error:
        print(f"server dead-letters: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _is_serving(port: int, environ: Mapping[str, str]) -> bool:
    """Asks the API on this machine, by TLS where the settings that it shares with this probe say so."""
    from server import health, tls

    peer = None
    if environ.get("TLS_CERT_FILE"):
        try:
            peer = tls.whoever_listens(LOOPBACK, port, _own_pair(environ), health.PROBE_TIMEOUT)
        except OSError:
            return False
    return health.is_serving(f"{LOOPBACK}:{port}", peer=peer)


def _own_pair(environ: Mapping[str, str]) -> tuple[Path, Path] | None:
    """What the probe shows where clients must show something: its own pair, or else the server's."""
    if not environ.get("TLS_CLIENT_CA_FILE"):
        return None
    which = "TLS_PROBE" if environ.get("TLS_PROBE_CERT_FILE") else "TLS"
    return Path(environ.get(f"{which}_CERT_FILE", "")), Path(environ.get(f"{which}_KEY_FILE", ""))


def _environ(arguments: argparse.Namespace) -> dict[str, str]:
    workers = getattr(arguments, "workers", None)
    return {**os.environ, **({"API_WORKERS": str(workers)} if workers is not None else {})}


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError("must be 1 or more")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="server", description="The support-ticket service, one role per process.")
    commands = parser.add_subparsers(dest="command", required=True)
    api = commands.add_parser("api", help="answer gRPC calls")
    api.add_argument("--workers", type=int, help="processes, on consecutive ports (API_WORKERS, default 1)")
    api.add_argument("--until-stdin-closes", action="store_true", help=argparse.SUPPRESS)
    commands.add_parser("relay", help="send the events to Kafka")
    again = commands.add_parser("republish", help="send events to Kafka once more, with the same ids")
    republish.add_arguments(again)
    commands.add_parser("notifier", help="tell people of events, by their inbox and by e-mail")
    mails = commands.add_parser("dead-emails", help="look at the e-mails that were given up, or try them again")
    mails.add_argument("act", choices=["list", "retry"])
    mails.add_argument("ids", nargs="*", type=UUID, help="which ones to try again; all, where none is named")
    commands.add_parser("notification-api", help="answer gRPC calls about what people are told")
    commands.add_parser("analyst", help="keep the facts that reports rest on, from the events in Kafka")
    commands.add_parser("analytics-api", help="answer gRPC calls for reports")
    rebuild = commands.add_parser("rebuild-analytics", help="build the facts anew, from the topic's beginning on")
    rebuild.add_argument("--forget", action="store_true", help="from the topic alone: older facts are lost")
    commands.add_parser("sweeper", help="do what is due because time has passed")
    commands.add_parser("migrate", help="bring the database up to date, then end")
    letters = commands.add_parser(
        "dead-letters", help="look at the events that a consumer could not use, or deal with them"
    )
    letters.add_argument("act", choices=["list", "redrive", "discard"], help="redrive sends them to the topic again")
    letters.add_argument("--count", type=_positive, help="the oldest so many; all, where it is not given")
    health = commands.add_parser("health", help="ask the API on this machine whether it serves: exit code 0 or 1")
    health.add_argument("--port", type=int, help="the port to ask (GRPC_PORT, default 50051)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
