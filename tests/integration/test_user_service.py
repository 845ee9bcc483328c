"""The client of the User Service against the stand-in: a real server that is slow, failing, lying, frozen or gone."""

import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from devstack.ports import Ports
from devstack.stack import Stack
from devstack.user_service import address_of, name_of
from server.clients.bearer import BearerFile
from server.clients.breaker import FAILURES, PAUSE
from server.clients.user_service import BATCH, UserDirectory, connect
from server.domain.users import User
from server.errors import UserServiceUnavailable
from tests.stack_folder import stack_folder
from tests.system.vocabulary import eventually
from tests.unit.test_circuit_breaker import Clock

TIMEOUT = 0.5
AT_ONCE = 0.1
ANN = UUID("01920000-0000-7000-8000-0000000012ab")


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """The stand-in, and nothing else of the stack."""
    with stack_folder() as folder, Stack(folder, Ports.free(), parts={"user-service"}) as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory(stack: Stack, clock: Clock) -> Iterator[UserDirectory]:
    """A client that remembers nobody yet, of a service that behaves well."""
    stack.user_service.give()
    with closing(connect(stack.service_env()["USER_SERVICE_TARGET"])) as channel:
        directory = UserDirectory(channel, clock, TIMEOUT)
        eventually(lambda: answers(directory, clock))
        yield directory


def answers(directory: UserDirectory, clock: Clock) -> bool:
    clock.now += PAUSE
    try:
        return bool(directory.users([uuid4()]))
    except UserServiceUnavailable:
        return False


def seconds_to_fail(directory: UserDirectory) -> float:
    began = time.monotonic()
    with pytest.raises(UserServiceUnavailable):
        directory.users([uuid4()])
    return time.monotonic() - began


def test_everybody_has_a_name_and_an_address_that_their_id_tells(directory: UserDirectory) -> None:
    assert directory.users([ANN]) == {ANN: User(ANN, "User 12ab", "user-0000000012ab@nibble.example")}
    assert (name_of(ANN), address_of(ANN)) == ("User 12ab", "user-0000000012ab@nibble.example")


def test_more_than_a_call_may_ask_for_are_found_all_the_same(directory: UserDirectory) -> None:
    ids = [uuid4() for _ in range(3 * BATCH)]
    assert {user.id: user.email for user in directory.users(ids).values()} == {it: address_of(it) for it in ids}


def test_what_is_ordered_of_somebody_is_told(stack: Stack, directory: UserDirectory) -> None:
    gone, silent, moved = (uuid4() for _ in range(3))
    orders = {str(gone): None, str(silent): {"email": None}, str(moved): {"name": "Mo", "email": "mo@example.org"}}
    stack.user_service.give(users=orders)
    found = directory.users([gone, silent, moved])
    assert found == {silent: User(silent, name_of(silent), None), moved: User(moved, "Mo", "mo@example.org")}


def test_a_slow_service_is_waited_for_until_the_deadline(stack: Stack, directory: UserDirectory) -> None:
    stack.user_service.give(behaviour="slow", seconds=TIMEOUT / 5)
    assert directory.users([uuid4()])
    stack.user_service.give(behaviour="slow")
    assert TIMEOUT * 0.9 < seconds_to_fail(directory) < TIMEOUT * 3


@pytest.mark.parametrize(
    "orders",
    [
        {"behaviour": "failing"},
        {"behaviour": "failing", "code": "RESOURCE_EXHAUSTED"},
        {"behaviour": "malformed"},
        {"token": "another"},
    ],
    ids=str,
)
def test_what_is_no_answer_is_the_one_error(stack: Stack, directory: UserDirectory, orders: dict[str, str]) -> None:
    stack.user_service.give(**orders)
    assert seconds_to_fail(directory) < TIMEOUT


def test_nothing_of_a_malicious_answer_is_believed_but_that_somebody_exists(
    stack: Stack, directory: UserDirectory
) -> None:
    stack.user_service.give(behaviour="malicious")
    ids = [uuid4() for _ in range(5)]
    assert directory.users(ids) == {user_id: User(user_id, None, None) for user_id in ids}


def test_a_service_that_is_gone_fails_at_once_and_is_found_again(
    stack: Stack, directory: UserDirectory, clock: Clock
) -> None:
    stack.user_service.give(behaviour="gone")
    eventually(lambda: not answers(directory, clock))
    assert max(seconds_to_fail(directory) for _ in range(FAILURES)) < AT_ONCE
    stack.user_service.give()
    eventually(lambda: answers(directory, clock))


def test_once_the_breaker_is_open_nobody_waits_for_a_frozen_service(
    stack: Stack, directory: UserDirectory, clock: Clock
) -> None:
    process = stack.part("user-service")
    process.kill(signal.SIGSTOP)
    try:
        waited = [seconds_to_fail(directory) for _ in range(FAILURES + 20)]
        assert min(waited[:FAILURES]) > TIMEOUT * 0.9
        assert max(waited[FAILURES:]) < AT_ONCE
    finally:
        process.kill(signal.SIGCONT)
    assert not answers_without_a_pause(directory)
    eventually(lambda: answers(directory, clock))


def answers_without_a_pause(directory: UserDirectory) -> bool:
    return seconds_to_fail(directory) > AT_ONCE


def test_a_service_that_was_killed_is_found_again_when_it_is_back(
    stack: Stack, directory: UserDirectory, clock: Clock
) -> None:
    process = stack.part("user-service")
    process.kill()
    assert seconds_to_fail(directory) < TIMEOUT
    process.start()
    eventually(lambda: answers(directory, clock))


def test_a_token_that_was_replaced_is_shown_from_then_on(stack: Stack, tmp_path: Path, clock: Clock) -> None:
    token = BearerFile(tmp_path / "token")
    with closing(connect(stack.service_env()["USER_SERVICE_TARGET"])) as channel:
        directory = UserDirectory(channel, clock, TIMEOUT, token)
        for text in ("first", "second"):
            stack.user_service.give(token=text)
            assert seconds_to_fail(directory) < TIMEOUT
            token.path.write_text(text)
            assert directory.users([uuid4()])


def test_a_proxy_of_the_environment_is_not_asked(stack: Stack, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    stack.user_service.give()
    for name in ("http_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with closing(connect(stack.service_env()["USER_SERVICE_TARGET"])) as channel:
        assert UserDirectory(channel, clock, TIMEOUT).users([uuid4()])


def test_a_client_that_was_closed_says_so_by_the_one_error(stack: Stack, clock: Clock) -> None:
    with closing(connect(stack.service_env()["USER_SERVICE_TARGET"])) as channel:
        directory = UserDirectory(channel, clock, TIMEOUT)
    assert seconds_to_fail(directory) < AT_ONCE
