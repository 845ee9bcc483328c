"""The real system, started once per run of the tests, or of a process of them, with every door open."""

import functools
import shutil
import time
from collections.abc import Collection, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from devstack.ports import Ports
from devstack.stack import PARTS, Stack
from tests.stack_folder import new_stack_folder, stack_folder
from tests.system.doors import OK, Caller, Door, Grpc, Mint, Rest
from tests.system.tokens import ALGORITHMS, LATE_KEY, odd_keys, publish
from tests.system.topic import Topic
from tests.system.vocabulary import eventually, new_id
from tests.unit.signing import signer

WORKERS = 2
WITHOUT_KAFKA = ("postgres", "migrate", "api", "gateway")


@dataclass(frozen=True)
class Stage:
    """The running stack, its doors and its topic."""

    stack: Stack
    rest: Rest
    grpc: Grpc
    own_port: Grpc
    topic: Topic
    mint: Mint
    late_key_since: float
    """Since when, by the monotonic clock, the key set has a key that it did not have when everything started."""

    @property
    def doors(self) -> list[Door]:
        """REST and gRPC through the gateway, and gRPC on a worker's own port."""
        return [self.rest, self.grpc, self.own_port]

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of a statement on the service's database."""
        with psycopg.connect(self.stack.dsn, autocommit=True) as connection:
            return connection.execute(statement.encode(), values).fetchall()


@contextmanager
def stage_of(session: pytest.Session, parts: Collection[str] = PARTS) -> Iterator[Stage]:
    """A stage with these parts, whose logs stay where a test has failed."""
    folder = new_stack_folder()
    try:
        # Durable: tests kill PostgreSQL and count what is left.
        # As in production, a worker that stops goes on until the gateway has seen it.
        # Of the hundreds of agents that the tests make up, few are told of each new ticket.
        env = {
            "SHUTDOWN_DELAY_SECONDS": "3",
            "STAFF_SEEN_WITHIN_SECONDS": "5",
            "SWEEP_INTERVAL_SECONDS": "1",
            "ORDER_FRESH_SECONDS": "1",
        }
        stack = Stack(folder, Ports.free(WORKERS), workers=WORKERS, env=env, parts=parts)
        publish(stack.identity.jwks_file, *map(signer, ALGORITHMS), *odd_keys().values())
        with stack, ExitStack() as cleanup:
            yield _open(stack, cleanup)
    finally:
        _tidy(folder, keep_logs=session.testsfailed > 0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """For a conftest.py: adds to a failure where the logs of its stages are. Those of a small one are gone by then."""
    report = yield
    if report.failed:
        stages = {it for it in getattr(item, "funcargs", {}).values() if isinstance(it, Stage)}
        report.sections += [("logs of the stack", str(stage.stack.logs)) for stage in stages]
    return report


@contextmanager
def small_stage(parts: Collection[str] = WITHOUT_KAFKA, **env: str) -> Iterator[Stage]:
    """A second system of these parts, whose one API process and others have these settings."""
    with ExitStack() as cleanup:
        folder = cleanup.enter_context(stack_folder())
        stack = cleanup.enter_context(Stack(folder, Ports.free(), parts=parts, env=env, durable=False))
        yield _open(stack, cleanup)


def _tidy(folder: Path, *, keep_logs: bool) -> None:
    """Removes what the stack left behind; its logs stay where they are needed to understand a failure."""
    if not keep_logs:
        shutil.rmtree(folder)
        return
    for left in folder.iterdir():
        if left.is_dir() and left.name != "logs":
            shutil.rmtree(left)


def _open(stack: Stack, cleanup: ExitStack) -> Stage:
    identity = stack.identity

    @functools.cache
    def mint(caller: Caller) -> str:
        return identity.mint_token(caller.role, caller.id)

    # Not before the gateway has read the key set for the first time.
    rest = Rest(stack.gateway_url, mint)
    eventually(lambda: rest.call("ListMyTickets", Caller("customer", new_id())).code == OK)
    publish(identity.jwks_file, signer("ES256", LATE_KEY))

    gateway = stack.gateway_url.removeprefix("http://")
    elsewhere = {
        "NotificationService": stack.grpc_target_of("notification-api"),
        "AnalyticsService": stack.grpc_target_of("analytics-api"),
    }
    stage = Stage(
        stack,
        rest,
        Grpc("gRPC", gateway, mint),
        Grpc("gRPC on the server's own port", stack.grpc_target, mint, elsewhere=elsewhere),
        Topic(stack.kafka_bootstrap),
        mint,
        time.monotonic(),
    )
    for close in (stage.topic.close, *(door.close for door in stage.doors)):
        cleanup.callback(close)
    return stage
