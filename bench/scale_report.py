"""What `bench.scale` has found: in tables, as JSON, and against its targets."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from bench.databases import Sizes
from bench.figures import percentile, ratio
from bench.results import verdict, write_results

MOST_TIME, LEAST_RATE = 1.3, 0.8
"""The targets, of the largest size against the smallest: p95 of each look at most, creates a second at least."""

_MEGABYTE = 1_000_000

Seconds = Mapping[str, Mapping[int, Sequence[Sequence[float]]]]
"""How long each look took, by its name, the number of tickets and the round."""


class Found(NamedTuple):
    """All that was measured, by the number of tickets: seconds of looks, creates a second in each round, bytes."""

    looks: Seconds
    creates: Mapping[int, Sequence[float]]
    sizes: Mapping[int, Sizes]
    seed: int

    @property
    def ends(self) -> tuple[int, int]:
        """The smallest number of tickets and the largest."""
        return min(self.sizes), max(self.sizes)

    def milliseconds(self, look: str, tickets: int, share: float) -> float:
        """A percentile of all rounds together."""
        return percentile(sorted(chain.from_iterable(self.looks[look][tickets])), share) * 1000

    def slowdown(self, look: str) -> float:
        """How much longer its p95 is among most tickets than among fewest."""
        few, many = ([percentile(sorted(seconds), 0.95) for seconds in self.looks[look][end]] for end in self.ends)
        return ratio(many, few)

    @property
    def creation(self) -> float:
        """The rate of creates among most tickets, as a share of that among fewest."""
        few, many = (self.creates[end] for end in self.ends)
        return ratio(many, few)

    @property
    def is_flat(self) -> bool:
        """Whether every target is met."""
        return self.creation >= LEAST_RATE and all(self.slowdown(look) <= MOST_TIME for look in self.looks)


def report(found: Found) -> bool:
    """Print the tables and write the JSON; whether every target is met."""
    few, many = found.ends
    _print_table(["MB", *(f"{each}" for each in found.sizes)], _sizes(found))
    head = [f"{figure} {each}" for each in found.sizes for figure in ("p50", "p95")]
    _print_table(["ms", *head, "p95 ratio", f"at most {MOST_TIME}"], _looks(found))
    head = [str(each) for each in found.sizes]
    _print_table(["creates a second", *head, "ratio", f"at least {LEAST_RATE}"], _creates(found))
    print(f"scale: ratios are {many} tickets against {few}, each the median of the ratios round by round")
    write_results("scale", _json(found))
    return found.is_flat


def _sizes(found: Found) -> Iterable[list[str]]:
    """Each table with its rows, its indexes below it."""
    largest = found.sizes[found.ends[1]]
    for table, rows in largest.rows.items():
        yield [f"{table} ({rows} rows)", *(_megabytes(of.tables[table]) for of in found.sizes.values())]
        for key in largest.indexes:
            if key[0] == table:
                yield [f"  {key[1]}", *(_megabytes(of.indexes[key]) for of in found.sizes.values())]


def _megabytes(size: int) -> str:
    return f"{size / _MEGABYTE:.1f}"


def _looks(found: Found) -> Iterable[list[str]]:
    for look, of in found.looks.items():
        figures = [f"{found.milliseconds(look, each, share):.2f}" for each in of for share in (0.5, 0.95)]
        slowdown = found.slowdown(look)
        yield [look, *figures, f"{slowdown:.2f}", verdict(met=slowdown <= MOST_TIME)]


def _creates(found: Found) -> Iterable[list[str]]:
    rates = [f"{statistics.median(rates):.0f}" for rates in found.creates.values()]
    yield ["", *rates, f"{found.creation:.2f}", verdict(met=found.creation >= LEAST_RATE)]


def _print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """The first column to the left, the others to the right."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        others = (cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))
        print("  ".join([line[0].ljust(widths[0]), *others]).rstrip())
    print()


def _json(found: Found) -> dict[str, Any]:
    return {
        "seed": found.seed,
        "looks": found.looks,
        "ratios": {look: found.slowdown(look) for look in found.looks},
        "creates": found.creates,
        "creation": found.creation,
        "tables": {each: of.tables for each, of in found.sizes.items()},
        "rows": {each: of.rows for each, of in found.sizes.items()},
        "indexes": {each: {key[1]: size for key, size in of.indexes.items()} for each, of in found.sizes.items()},
        "is_flat": found.is_flat,
    }
