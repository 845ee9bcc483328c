"""What sweeps have in common: they work in batches, for as long as there is time left."""

from collections.abc import Awaitable, Callable

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
