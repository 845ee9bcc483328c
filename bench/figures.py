"""Arithmetic of measurements: percentiles, medians of rounds, ratios."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Figures(NamedTuple):
    """What one server did in one round, with one kind of call.

    `p50` and `p99` in milliseconds; the rest, but for `per_second`, in milliseconds of processor time for each call.
    None where it does not apply.
    """

    per_second: float
    p50: float
    p99: float
    server: float
    database: float
    gateway: float | None = None


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value at that share of an ascending sequence, which is not empty: 0.99 is the 99th percentile."""
    return ordered[int(share * (len(ordered) - 1))]


def median(rounds: Sequence[Figures]) -> Figures:
    """Each figure's median over the rounds."""
    columns = {name: [getattr(each, name) for each in rounds] for name in Figures._fields}
    return Figures(**{name: statistics.median(values) for name, values in columns.items() if None not in values})


def ratio(of: Sequence[float], to: Sequence[float]) -> float:
    """The median of the ratios round by round: what disturbs a whole round disturbs both of its sides."""
    return statistics.median([one / other for one, other in zip(of, to, strict=True)])


def slope(points: Sequence[tuple[float, float]]) -> float:
    """How much the second coordinate rises with one of the first, by least squares; there are two points or more."""
    return statistics.linear_regression(*zip(*points, strict=True)).slope
