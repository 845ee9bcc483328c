"""A call that is cancelled ends, even where what it waited for comes at that very moment."""

import asyncio
import random

from server.db.database import PoolLimits
from tests.integration.vocabulary import Desk, look_at, open_ticket

ATTEMPTS = 300
MOST_ROUNDS = 60


async def test_a_cancellation_is_not_lost_to_a_connection_that_comes_free_just_then(dsn: str) -> None:
    seed = random.randrange(2**32)  # noqa: S311
    print(f"seed {seed}")  # noqa: T201
    dice = random.Random(seed)  # noqa: S311
    async with Desk.at(dsn, PoolLimits(size=1)) as desk:
        ticket = await open_ticket(desk)

        async def for_ever() -> None:
            while True:
                await look_at(desk, ticket)

        for _ in range(ATTEMPTS):
            tasks = [asyncio.create_task(for_ever()) for _ in range(4)]
            # By rounds of the loop, not by time: the moment that matters is one round long.
            for _ in range(dice.randrange(MOST_ROUNDS)):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            _, left = await asyncio.wait(tasks, timeout=2)
            assert not left
