"""PostgreSQL, started once per run, and an empty database for every test."""

import itertools
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import psycopg
import pytest
from psycopg import sql
from structlog.testing import capture_logs

from devstack.ports import Ports
from devstack.stack import Stack
from server.analytics.migrations import MIGRATIONS as ANALYTICS_MIGRATIONS
from server.db.migrations import MIGRATIONS
from server.db.migrator import migrate
from server.notification.migrations import MIGRATIONS as NOTIFICATION_MIGRATIONS
from tests.integration.consumer_line import Line
from tests.integration.vocabulary import EMPTY, Desk
from tests.stack_folder import stack_folder

TEMPLATE = "migrated"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """A PostgreSQL server, and nothing else of the stack."""
    with stack_folder() as folder, Stack(folder, Ports.free(), parts={"postgres"}, durable=False) as running:
        yield running


@pytest.fixture(scope="session")
def broker() -> Iterator[Stack]:
    """A Kafka server, and nothing else of the stack."""
    with stack_folder() as folder, Stack(folder, Ports.free(), parts={"kafka"}, durable=False) as running:
        yield running


@pytest.fixture
def line(broker: Stack, empty_dsn: str) -> Iterator[Line]:
    """A topic and a database of a consumer's own."""
    with Line.laid(broker.kafka_bootstrap, empty_dsn) as laid:
        yield laid


@pytest.fixture
def told() -> Iterator[Sequence[Mapping[str, Any]]]:
    """What the service logs in this process meanwhile."""
    with capture_logs() as lines:
        yield lines


@pytest.fixture(scope="session")
def template(stack: Stack) -> str:
    """The name of a migrated database without rows."""
    _create_database(stack, TEMPLATE, "template1")
    for migrations in (MIGRATIONS, NOTIFICATION_MIGRATIONS, ANALYTICS_MIGRATIONS):
        migrate(stack.dsn_for(TEMPLATE), migrations)
    return TEMPLATE


@pytest.fixture(scope="session")
def shared_dsn(stack: Stack, template: str) -> Iterator[str]:
    """A migrated database that the tests of a run use one after the other."""
    yield from _own_database(stack, template)


@pytest.fixture
def dsn(shared_dsn: str) -> str:
    """A migrated database without rows. Emptying one takes a tenth of the time of a new one."""
    with psycopg.connect(shared_dsn, autocommit=True) as connection:
        connection.execute(EMPTY)
    return shared_dsn


@pytest.fixture
def own_dsn(stack: Stack, template: str) -> Iterator[str]:
    """A migrated database without rows that no other test will see, so that it may be broken."""
    yield from _own_database(stack, template)


@pytest.fixture(scope="module")
def module_dsn(stack: Stack, template: str) -> Iterator[str]:
    """A migrated database without rows for the tests of one module."""
    yield from _own_database(stack, template)


@pytest.fixture
def empty_dsn(stack: Stack) -> Iterator[str]:
    """A database without any tables."""
    yield from _own_database(stack, "template1")


@pytest.fixture
def another_empty_dsn(stack: Stack) -> Iterator[str]:
    """A second database without any tables."""
    yield from _own_database(stack, "template1")


@pytest.fixture
async def desk(dsn: str) -> AsyncIterator[Desk]:
    """The use cases at work on an empty database."""
    async with Desk.at(dsn) as desk:
        yield desk


def _own_database(stack: Stack, template: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    _create_database(stack, name, template)
    yield stack.dsn_for(name)
    _run(stack, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _create_database(stack: Stack, name: str, template: str) -> None:
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
    _run(stack, statement.format(sql.Identifier(name), sql.Identifier(template)))


def _run(stack: Stack, statement: sql.Composed) -> None:
    with psycopg.connect(stack.dsn_for("postgres"), autocommit=True) as connection:
        connection.execute(statement)
