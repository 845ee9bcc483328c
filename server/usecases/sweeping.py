"""What sweeps have in common: they work in batches, for as long as there is time left."""

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from server.errors import DeadlineExceeded

P = TypeVar("P")

TimeLeft = Callable[[], float]
"""Seconds that are left of the round: at 0 or less no further piece is begun."""


async def in_batches(batch: Callable[[], Awaitable[int]], size: int, time_left: TimeLeft) -> int:
    """Do one batch after the other, at least one; returns how many pieces those were.

    One of fewer than `size` pieces is the last: nothing is left, or others are at what is left.
    """
    total = 0
    while True:
        done = await batch()
        total += done
        if done < size or time_left() <= 0:
            return total


async def one_by_one(
    pieces: Callable[[P | None], Awaitable[Sequence[P]]],
    do: Callable[[P], Awaitable[bool]],
    size: int,
    time_left: TimeLeft,
    rank: Callable[[P], int] = lambda _: 0,
) -> int:
    """Do each piece for itself; returns how many were done, and not by somebody else.

    `pieces` lists up to `size` of those that come after one, or after none. What could not be done is passed over
    until the next round, so that it keeps nothing else waiting. Within a batch, lower ranks go first.
    """
    done, last = 0, None
    while True:
        batch = await pieces(last)
        for piece in _apart(batch, rank):
            if time_left() <= 0:
                return done
            done += await _done(do, piece)
        if len(batch) < size:
            return done
        last = batch[-1]


async def _done(do: Callable[[P], Awaitable[bool]], piece: P) -> bool:
    try:
        return await do(piece)
    except DeadlineExceeded:
        # Somebody has held it for longer than a statement may take, and may go on with that. Others are free.
        return False


def _apart(batch: Sequence[P], rank: Callable[[P], int]) -> Sequence[P]:
    """Those of one rank in any order: else sweepers with the same batch would meet, and wait, at each piece."""
    return sorted(batch, key=lambda piece: (rank(piece), random.random()))  # noqa: S311
