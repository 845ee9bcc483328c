"""Who asks for the same at the same time gets the same answer, and whoever goes away takes it from nobody."""

import asyncio
from collections import Counter

import pytest

from server.clients.in_flight import InFlight


class Source:
    """Answers when a test lets it, and counts how often it was asked for what, and given up."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.given_up: Counter[str] = Counter()
        self.may_answer = asyncio.Event()
        self.failure: Exception | None = None
        self.flights = InFlight(self.ask)

    async def ask(self, key: str) -> str:
        self.asked[key] += 1
        number = self.asked[key]
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.given_up[key] += 1
            raise
        if self.failure:
            raise self.failure
        return f"{key}{number}"

    async def asked_by(self, *keys: str) -> list[asyncio.Task[str]]:
        """A caller for each, all waiting."""
        callers = [asyncio.create_task(self.flights.answer(key)) for key in keys]
        await self.turns()
        return callers

    @staticmethod
    async def turns() -> None:
        """Whatever can go on has gone on."""
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.fixture
async def source() -> Source:
    return Source()


async def test_all_who_ask_meanwhile_get_the_answer_to_one_question(source: Source) -> None:
    callers = await source.asked_by(*"aaab")
    source.may_answer.set()
    assert await asyncio.gather(*callers) == ["a1", "a1", "a1", "b1"]
    assert source.asked == {"a": 1, "b": 1}


async def test_who_comes_after_the_answer_asks_again(source: Source) -> None:
    source.may_answer.set()
    assert [await source.flights.answer("a"), await source.flights.answer("a")] == ["a1", "a2"]


async def test_a_failure_is_that_of_all_who_wait_and_not_of_who_comes_later(source: Source) -> None:
    callers = await source.asked_by(*"aa")
    source.failure = ValueError("no")
    source.may_answer.set()
    assert [type(it) for it in await asyncio.gather(*callers, return_exceptions=True)] == [ValueError, ValueError]
    source.failure = None
    assert await source.flights.answer("a") == "a2"


@pytest.mark.parametrize("who", [0, 1, 2])
async def test_one_who_goes_away_leaves_the_others_their_answer(source: Source, who: int) -> None:
    callers = await source.asked_by(*"aaa")
    callers[who].cancel()
    await source.turns()
    source.may_answer.set()
    answers = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(answers.pop(who), asyncio.CancelledError)
    assert answers == ["a1", "a1"]
    assert source.given_up == {}


async def test_with_the_last_one_the_question_is_given_up_and_the_next_one_asks_anew(source: Source) -> None:
    for caller in await source.asked_by(*"aa"):
        caller.cancel()
    await source.turns()
    assert source.given_up == {"a": 1}
    source.may_answer.set()
    assert await source.flights.answer("a") == "a2"


async def test_who_comes_just_when_the_last_one_goes_is_not_cancelled_along(source: Source) -> None:
    (first,) = await source.asked_by("a")
    first.cancel()
    await asyncio.sleep(0)
    (second,) = await source.asked_by("a")
    source.may_answer.set()
    assert await second == "a2"
