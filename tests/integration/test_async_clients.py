"""The API's clients of the Order and the User Service against the stand-ins: slow, failing, lying, frozen or gone."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import UUID, uuid4

import grpc
import pytest
from prometheus_client import REGISTRY

from devstack.control import Control
from devstack.order_service import CARD, CVV, IBAN
from devstack.ports import Ports
from devstack.stack import Stack
from devstack.user_service import address_of, name_of
from server.clients import order_service, user_service
from server.clients.bearer import BearerFile
from server.clients.breaker import FAILURES, PAUSE
from server.clients.callee import MOST_AT_ONCE
from server.clients.order_service import LARGEST_ANSWER, OrderBook
from server.clients.user_service import KEPT_SECONDS, AsyncUserDirectory
from server.domain.orders import MOST_ENTRIES, Order, to_json
from server.domain.users import User
from server.errors import DependencyUnavailable, OrderServiceUnavailable, UserServiceUnavailable
from tests.integration.vocabulary import until
from tests.stack_folder import stack_folder
from tests.unit.test_circuit_breaker import Clock

TIMEOUT = 0.5
AT_ONCE = 0.15
ORDER_ID = UUID("01920000-0000-7000-8000-0000000012ab")


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """The two stand-ins, and nothing else of the stack."""
    with stack_folder() as folder, Stack(folder, Ports.free(), parts={"user-service", "order-service"}) as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Line(NamedTuple):
    """One of the clients, and the service at its other end."""

    part: str
    control: Control
    error: type[DependencyUnavailable]
    channel: grpc.aio.Channel
    ask: Callable[[UUID], Awaitable[object]]
    clock: Clock

    async def answers(self) -> bool:
        """Whether the service does, when its breaker lets it be asked."""
        self.clock.now += PAUSE
        try:
            return bool(await self.ask(uuid4()))
        except self.error:
            return False

    async def is_back(self) -> None:
        """Returns when it answers."""
        await until(self.answers)

    async def seconds_to_fail(self) -> float:
        began = time.monotonic()
        with pytest.raises(self.error):
            await self.ask(uuid4())
        return time.monotonic() - began

    def counted(self, outcome: str) -> float:
        name = f"nibble_{self.part.replace('-', '_')}_calls_total"
        return REGISTRY.get_sample_value(name, {"outcome": outcome}) or 0.0

    @property
    def is_given_up(self) -> bool:
        return REGISTRY.get_sample_value(f"nibble_{self.part.replace('-', '_')}_breaker_open") == 1


def line_to(part: str, stack: Stack, clock: Clock, token: BearerFile | None = None) -> Line:
    if part == "order-service":
        channel = order_service.connect(stack.service_env()["ORDER_SERVICE_TARGET"])
        ask = OrderBook(channel, clock, TIMEOUT, token).order
        return Line(part, stack.order_service, OrderServiceUnavailable, channel, ask, clock)
    channel = user_service.connect_async(stack.service_env()["USER_SERVICE_TARGET"])
    directory = AsyncUserDirectory(channel, clock, TIMEOUT, token)
    return Line(part, stack.user_service, UserServiceUnavailable, channel, directory.user, clock)


async def opened(line: Line) -> AsyncIterator[Line]:
    line.control.give()
    try:
        await line.is_back()
        yield line
    finally:
        await line.channel.close()


@pytest.fixture(params=["order-service", "user-service"])
async def line(request: pytest.FixtureRequest, stack: Stack, clock: Clock) -> AsyncIterator[Line]:
    """Each of the clients in turn, of a service that behaves well."""
    async for line in opened(line_to(request.param, stack, clock)):
        yield line


@pytest.fixture
async def orders(stack: Stack, clock: Clock) -> AsyncIterator[Line]:
    async for line in opened(line_to("order-service", stack, clock)):
        yield line


@pytest.fixture
async def users(stack: Stack, clock: Clock) -> AsyncIterator[Line]:
    async for line in opened(line_to("user-service", stack, clock)):
        yield line


async def test_a_slow_service_is_waited_for_until_the_deadline(line: Line) -> None:
    line.control.give(behaviour="slow", seconds=TIMEOUT / 5)
    assert await line.ask(uuid4())
    line.control.give(behaviour="slow")
    assert TIMEOUT * 0.9 < await line.seconds_to_fail() < TIMEOUT * 3


@pytest.mark.parametrize(
    ("orders", "outcome"),
    [
        ({"behaviour": "failing"}, "INTERNAL"),
        ({"behaviour": "failing", "code": "CANCELLED"}, "CANCELLED"),
        ({"behaviour": "failing", "code": "PERMISSION_DENIED"}, "PERMISSION_DENIED"),
        ({"behaviour": "malformed"}, "UNUSABLE_ANSWER"),
        ({"token": "another"}, "UNAUTHENTICATED"),
    ],
    ids=str,
)
async def test_what_is_no_answer_is_the_one_error(line: Line, orders: dict[str, str], outcome: str) -> None:
    before = line.counted(outcome)
    line.control.give(**orders)
    assert await line.seconds_to_fail() < TIMEOUT
    assert line.counted(outcome) == before + 1


async def test_a_service_that_is_gone_fails_at_once_and_is_found_again(line: Line) -> None:
    line.control.give(behaviour="gone")
    await until(lambda: is_no(line.answers()))
    assert max([await line.seconds_to_fail() for _ in range(FAILURES)]) < AT_ONCE
    assert line.is_given_up
    line.control.give()
    await line.is_back()
    assert not line.is_given_up


async def turns(count: int) -> None:
    """So many turns of the event loop."""
    for _ in range(count):
        await asyncio.sleep(0)


async def is_no(answer: Awaitable[bool]) -> bool:
    return not await answer


async def test_once_the_breaker_is_open_nobody_waits_for_a_frozen_service(stack: Stack, line: Line) -> None:
    process = stack.part(line.part)
    process.kill(signal.SIGSTOP)
    try:
        waited = [await line.seconds_to_fail() for _ in range(FAILURES)]
        assert min(waited) > TIMEOUT * 0.9
        began = time.monotonic()
        assert max(await asyncio.gather(*[line.seconds_to_fail() for _ in range(100)])) < TIMEOUT
        assert time.monotonic() - began < TIMEOUT
    finally:
        process.kill(signal.SIGCONT)
    assert await line.seconds_to_fail() < AT_ONCE
    await line.is_back()


async def test_a_service_that_was_killed_is_found_again_when_it_is_back(stack: Stack, line: Line) -> None:
    process = stack.part(line.part)
    process.kill()
    assert await line.seconds_to_fail() < TIMEOUT
    process.start()
    await line.is_back()


async def test_more_than_so_many_at_once_are_told_at_once_that_they_get_no_answer(line: Line) -> None:
    line.control.give(behaviour="slow")
    before = line.counted("TOO_MANY")
    waited = await asyncio.gather(*[line.seconds_to_fail() for _ in range(MOST_AT_ONCE + 50)])
    assert sorted(waited)[49] < TIMEOUT * 0.9
    assert sorted(waited)[50] > TIMEOUT * 0.9
    assert max(waited) < TIMEOUT * 3
    assert line.counted("TOO_MANY") == before + 50
    line.control.give()
    await line.is_back()
    assert all(await asyncio.gather(*[line.ask(uuid4()) for _ in range(MOST_AT_ONCE)]))


async def test_a_caller_that_goes_away_ends_the_call_and_says_nothing_of_the_service(line: Line) -> None:
    line.control.give(behaviour="slow")
    before = line.counted("GIVEN_UP")
    calls = [asyncio.ensure_future(line.ask(uuid4())) for _ in range(MOST_AT_ONCE)]
    await turns(3)
    for call in calls:
        call.cancel()
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(it, asyncio.CancelledError) for it in ended)
    # The questions end a turn after those who wait for them.
    await turns(3)
    assert line.counted("GIVEN_UP") == before + MOST_AT_ONCE
    assert not line.is_given_up
    line.control.give()
    assert all(await asyncio.gather(*[line.ask(uuid4()) for _ in range(MOST_AT_ONCE)]))


async def test_many_who_ask_for_the_same_at_once_are_one_call(line: Line) -> None:
    line.control.give(behaviour="slow", seconds=TIMEOUT / 5)
    before, wanted = line.counted("OK"), uuid4()
    answers = await asyncio.gather(*[line.ask(wanted) for _ in range(3 * MOST_AT_ONCE)])
    assert answers[0] is not None
    assert all(answer is answers[0] for answer in answers)
    assert line.counted("OK") == before + 1


async def test_a_token_that_was_replaced_is_shown_from_then_on(
    request: pytest.FixtureRequest, stack: Stack, clock: Clock, tmp_path: Path
) -> None:
    token = BearerFile(tmp_path / "token")
    for part in ("order-service", "user-service"):
        line = line_to(part, stack, clock, token)
        for text in ("first", "second"):
            line.control.give(token=text)
            assert await line.seconds_to_fail() < TIMEOUT
            token.path.write_text(text)
            assert await line.ask(uuid4())
        await line.channel.close()


async def test_a_client_that_was_closed_says_so_by_the_one_error(line: Line) -> None:
    await line.channel.close()
    assert await line.seconds_to_fail() < AT_ONCE


async def test_an_order_comes_without_what_pays_for_it(orders: Line) -> None:
    order = await orders.ask(ORDER_ID)
    assert isinstance(order, Order)
    assert (order.id, order.status, [item.name for item in order.items]) == (
        ORDER_ID, "delivered", ["Margherita", "Lemonade 0.5 l"],
    )  # fmt: skip
    snapshot = str(to_json(order))
    assert not [secret for secret in (CARD, CARD.replace(" ", ""), IBAN, CVV) if secret in snapshot]


async def test_an_order_book_says_how_many_questions_are_worth_asking(stack: Stack, clock: Clock) -> None:
    book = OrderBook(order_service.connect(stack.service_env()["ORDER_SERVICE_TARGET"]), clock, TIMEOUT)
    assert book.room(8) == 8
    stack.order_service.give(behaviour="failing")
    for _ in range(FAILURES):
        with pytest.raises(OrderServiceUnavailable):
            await book.order(uuid4())
    assert book.room(8) == 0
    clock.now += PAUSE
    assert book.room(8) == 1
    stack.order_service.give()
    assert await book.order(uuid4())
    assert book.room(8) == 8
    await book.close()


async def test_an_order_that_is_not_there_is_an_answer(orders: Line) -> None:
    orders.control.give(orders={str(ORDER_ID): None})
    for _ in range(2 * FAILURES):
        assert await orders.ask(ORDER_ID) is None
    assert not orders.is_given_up


async def test_what_is_ordered_of_an_order_is_told(orders: Line) -> None:
    customer = str(uuid4())
    orders.control.give(orders={str(ORDER_ID): {"customer_id": customer, "status": "cancelled"}})
    order = await orders.ask(ORDER_ID)
    assert isinstance(order, Order)
    assert (str(order.customer_id), order.status) == (customer, "cancelled")


@pytest.mark.parametrize(
    ("malice", "outcome"),
    [
        ({"how": "huge"}, "RESOURCE_EXHAUSTED"),
        ({"how": "huge", "bytes": LARGEST_ANSWER + 1_000}, "RESOURCE_EXHAUSTED"),
        ({"how": "deep"}, "RESOURCE_EXHAUSTED"),
        ({"how": "deep", "levels": 10_000}, "UNUSABLE_ANSWER"),
        ({"how": "bad_utf8"}, "UNUSABLE_ANSWER"),
        ({"how": "another_order"}, "UNUSABLE_ANSWER"),
    ],
    ids=str,
)
async def test_a_malicious_answer_is_none(orders: Line, malice: dict[str, object], outcome: str) -> None:
    before = orders.counted(outcome)
    orders.control.give(behaviour="malicious", **malice)
    assert await orders.seconds_to_fail() < TIMEOUT
    assert orders.counted(outcome) == before + 1


@pytest.mark.parametrize("malice", [{"how": "texts"}, {"how": "numbers"}, {"bytes": LARGEST_ANSWER}], ids=str)
async def test_what_is_malicious_in_an_order_is_not_in_what_is_told_on(orders: Line, malice: dict[str, object]) -> None:
    orders.control.give(behaviour="malicious", **malice)
    began = time.monotonic()
    order = await orders.ask(ORDER_ID)
    assert time.monotonic() - began < TIMEOUT
    assert isinstance(order, Order)
    assert len(order.items) <= MOST_ENTRIES
    assert CARD not in str(to_json(order))


async def test_somebody_is_looked_up_once_in_ten_minutes(users: Line, clock: Clock) -> None:
    user_id = uuid4()
    known = await users.ask(user_id)
    assert known == User(user_id, name_of(user_id), address_of(user_id))
    users.control.give(behaviour="failing")
    clock.now += KEPT_SECONDS - 1
    assert await users.ask(user_id) == known
    clock.now += 1
    with pytest.raises(UserServiceUnavailable):
        await users.ask(user_id)


async def test_nobody_is_none_and_who_was_not_asked_for_is_not_believed(users: Line) -> None:
    user_id = uuid4()
    users.control.give(users={str(user_id): None})
    assert await users.ask(user_id) is None
    users.control.give(behaviour="malicious")
    other = uuid4()
    assert await users.ask(other) == User(other, None, None)
