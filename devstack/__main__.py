"""The command line: the stack and its tokens and mails, each stand-in by itself, and what pins and downloads files."""

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from devstack.errors import StackError, StackStopped


def main() -> int:
    """Runs one command; its exit status. What can be foreseen ends in one line on standard error."""
    arguments = _parser().parse_args()
    try:
        arguments.command(arguments)
    except StackStopped:
        return 0
    except (StackError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f"error: the package {error.name} is missing; install the dependency group devstack", file=sys.stderr)
        return 1
    return 0


# Each command imports what it needs: together that takes a second.


def run(arguments: argparse.Namespace) -> None:
    """Starts the stack and looks after it until Ctrl-C, SIGTERM or SIGHUP."""
    from devstack.console import run_until_stopped
    from devstack.gateway import cors_origins
    from devstack.ports import Ports
    from devstack.stack import Stack
    from devstack.tls import Tls

    if arguments.workers < 1:
        raise StackError(f"{arguments.workers} API workers are too few")
    run_dir = _run_dir(os.environ)
    tls = Tls.from_env(os.environ, run_dir / "tls")
    origins = cors_origins(os.environ)
    ports = Ports.from_env(os.environ)
    run_until_stopped(Stack(run_dir, ports, workers=arguments.workers, tls=tls, cors_origins=origins))


def token(arguments: argparse.Namespace) -> None:
    """Prints a JWT for the stack of RUN_DIR, and nothing else on standard output."""
    from devstack.identity import InsecureDevelopmentIdentity, check_caller

    check_caller(arguments.role, arguments.sub)
    try:
        identity = InsecureDevelopmentIdentity(_run_dir(os.environ) / "identity")
    except FileNotFoundError as error:
        raise StackError(f"there is no signing key ({error.filename}); start the stack first") from None
    print(identity.mint_token(arguments.role, arguments.sub))


def keys(arguments: argparse.Namespace) -> None:
    """Makes the signing key and the key set of RUN_DIR where they are missing, for a system that runs elsewhere.

    With TLS set, certificates too.
    """
    from devstack.identity import InsecureDevelopmentIdentity, hide_from_git
    from devstack.tls import Tls

    run_dir = _run_dir(os.environ)
    hide_from_git(run_dir)
    print(InsecureDevelopmentIdentity.create(run_dir / "identity").jwks_file)
    if tls := Tls.from_env(os.environ, run_dir / "tls"):
        tls.provide()
        print(tls.ca)


def mails(arguments: argparse.Namespace) -> None:
    """Prints the mails that the stack of RUN_DIR has sent, the newest last."""
    from devstack.mail import Mails, shown

    caught = Mails(_run_dir(os.environ)).all()
    print("\n".join(map(shown, caught)) if caught else "no mail so far")


def user_service(arguments: argparse.Namespace) -> None:
    """Stands in for the User Service until SIGTERM."""
    from asyncio import run

    from devstack import user_service

    run(user_service.run(_run_dir(os.environ), arguments.host, arguments.port))


def order_service(arguments: argparse.Namespace) -> None:
    """Stands in for the Order Service until SIGTERM."""
    from asyncio import run

    from devstack import order_service

    run(order_service.run(_run_dir(os.environ), arguments.host, arguments.port))


def mail(arguments: argparse.Namespace) -> None:
    """Catches mail until SIGTERM."""
    from asyncio import run

    from devstack import mail

    run(mail.run(_run_dir(os.environ), arguments.host, arguments.port))


def page(arguments: argparse.Namespace) -> None:
    """Puts the files of the API page together in a folder, for a gateway that runs elsewhere."""
    from threading import Event

    from devstack.api_page import ApiPage

    ApiPage(arguments.folder).assemble(print, Event())


def fetch_jars(arguments: argparse.Namespace) -> None:
    """Downloads and verifies the pinned jars where they are missing, so that no later start has to."""
    from threading import Event

    from devstack.jars import PINS, Jars

    for pin in PINS:
        Jars(pin).provide(print, Event())


def lock_jars(arguments: argparse.Namespace) -> None:
    """Pins the newest jars of each series."""
    from devstack.jars import PINS, write_lock

    for pin in PINS:
        write_lock(pin, print)


def _run_dir(env: Mapping[str, str]) -> Path:
    return Path(env.get("RUN_DIR") or ".run").resolve()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m devstack", description="The whole system on this machine.")
    commands = parser.add_subparsers(required=True)
    run_parser = commands.add_parser("run", help="start everything, and stop it at Ctrl-C")
    run_parser.add_argument("--workers", type=int, default=os.environ.get("API_WORKERS") or "1", metavar="N")
    run_parser.set_defaults(command=run)
    token_parser = commands.add_parser("token", help="print a JWT for the running stack")
    token_parser.add_argument("--role", required=True)
    token_parser.add_argument("--sub", metavar="UUID", help="the caller; a new one by default")
    token_parser.set_defaults(command=token)
    commands.add_parser("keys", help="make the development signing key").set_defaults(command=keys)
    commands.add_parser("mails", help="print the mails that were caught, the newest last").set_defaults(command=mails)
    for name, help_text, command in (
        ("user-service", "stand in for the User Service (insecure, for development)", user_service),
        ("order-service", "stand in for the Order Service (insecure, for development)", order_service),
        ("mail", "catch mail (insecure, for development)", mail),
    ):
        stand_in = commands.add_parser(name, help=help_text)
        stand_in.add_argument("--host", default="127.0.0.1")
        stand_in.add_argument("--port", type=int, required=True)
        stand_in.set_defaults(command=command)
    page_parser = commands.add_parser("page", help="put the files of the API page together")
    page_parser.add_argument("folder", type=Path)
    page_parser.set_defaults(command=page)
    commands.add_parser("fetch-jars", help="download Kafka and Swagger UI").set_defaults(command=fetch_jars)
    commands.add_parser("lock-jars", help="pin the newest Kafka and Swagger UI again").set_defaults(command=lock_jars)
    return parser


if __name__ == "__main__":
    sys.exit(main())
