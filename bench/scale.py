"""Whether ten million tickets are as fast to work with as ten thousand: `python -m bench.scale --help`.

Each size has a database of its own in one PostgreSQL, and an API of its own. They are measured in turn, call by call,
so that what disturbs the machine disturbs all of them.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.company import CallersFailed
from bench.databases import Sizes, fill, name_of, put_to_work, require_room, sizes_of
from bench.looks import DEEP_PAGE, PAGE, Look, Side, Subjects
from bench.processor import cores, of_machine, of_ours
from bench.progress import Progress
from bench.scale_report import Found, Seconds, report
from devstack.errors import StackError
from devstack.part import CHECKOUT
from devstack.ports import Ports
from devstack.stack import Stack

NAME = "scale"
SIZES = (10_000, 1_000_000, 10_000_000)
FEWEST = DEEP_PAGE * PAGE
SEED = 20_260_304
WARM_UP, ROUNDS, LOOKS_PER_ROUND = 40, 7, 100
CREATE_ROUNDS, CREATE_SECONDS, CREATE_WARM_UP, CALLERS = 5, 5.0, 2.0, 8


def main(words: Sequence[str] | None = None) -> int:
    """Fill, measure, print; 0 where every target is met, 2 where nothing could be measured."""
    wanted = _arguments(words)
    began, all_before, ours_before = time.monotonic(), of_machine(), of_ours()
    try:
        with _folder(wanted.folder) as folder:
            found = measure(folder, wanted.sizes, wanted.seed)
    except (StackError, CallersFailed) as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 2
    is_flat = report(found)
    seconds = time.monotonic() - began
    others = (of_machine() - all_before - of_ours() + ours_before) / seconds
    print(f"{NAME}: {seconds / 60:.1f} minutes; others took {others:.1f} of the {cores()} processors")
    return 0 if is_flat else 1


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--sizes", type=_numbers, default=SIZES, help="numbers of tickets, by commas")
    parser.add_argument("--seed", type=int, default=SEED, help="what chance begins with")
    parser.add_argument(
        "--folder", type=Path, help="where the databases stay, and are not made again; else they go when all is done"
    )
    return parser.parse_args(words)


def _numbers(text: str) -> tuple[int, ...]:
    numbers = tuple(sorted({int(each) for each in text.split(",")}))
    if numbers[0] < FEWEST:
        raise argparse.ArgumentTypeError(f"fewer than {FEWEST} tickets have no page {DEEP_PAGE}")
    return numbers


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        yield kept
        return
    with TemporaryDirectory(prefix="nibble-") as folder:
        yield Path(folder)


def measure(folder: Path, tickets: Sequence[int], seed: int) -> Found:
    """Everything, in the databases of that folder."""
    print(f"{NAME}: seed {seed}, in {folder}")
    with ExitStack() as stack:
        postgres = stack.enter_context(Stack(folder / "postgres", Ports.free(), parts={"postgres"}))
        sizes = _filled(postgres, tickets, seed)
        memory = put_to_work(postgres, tickets)
        print(f"{NAME}: PostgreSQL has {memory / 1e9:.1f} GB of memory to itself, and indexes in it")
        apis = {each: stack.enter_context(_api(folder, postgres, each)) for each in tickets}
        looks = _look(apis, postgres, seed)
        creates = _create(apis)
    return Found(looks, creates, sizes, seed)


def _filled(postgres: Stack, tickets: Sequence[int], seed: int) -> Mapping[int, Sizes]:
    began = time.monotonic()
    require_room(postgres, tickets)
    fill(postgres, tickets, seed)
    print(f"{NAME}: filled after {(time.monotonic() - began) / 60:.1f} minutes")
    return {each: sizes_of(postgres.dsn_for(name_of(each))) for each in tickets}


def _api(folder: Path, postgres: Stack, tickets: int) -> Stack:
    """An API process on that database."""
    env = {"DATABASE_URL": postgres.dsn_for(name_of(tickets))}
    return Stack(folder / f"api-{tickets}", Ports.free(), parts={"api"}, env=env)


def _look(apis: Mapping[int, Stack], postgres: Stack, seed: int) -> Seconds:
    """How long each look took, in rounds, after some for warming up."""
    number = WARM_UP + ROUNDS * LOOKS_PER_ROUND
    with ExitStack() as stack:
        sides: dict[int, Side] = {}
        for each, api in apis.items():
            subjects = Subjects.of(postgres.dsn_for(name_of(each)), each, seed, number)
            sides[each] = stack.enter_context(Side.of(api, subjects))
        looks = {each: side.looks() for each, side in sides.items()}
        names = list(looks[min(looks)])
        progress = stack.enter_context(Progress("looks", len(names)))
        found: dict[str, dict[int, list[list[float]]]] = {}
        for name in names:
            progress.begin(name)
            chosen = {each: looks[each][name] for each in sides}
            rounds = [_round(sides, chosen, length) for length in [WARM_UP] + [LOOKS_PER_ROUND] * ROUNDS]
            found[name] = {each: [taken[each] for taken in rounds[1:]] for each in sides}
    return found


def _round(sides: Mapping[int, Side], looks: Mapping[int, Iterator[Look]], number: int) -> Mapping[int, list[float]]:
    """So many looks at each side, one here, one there."""
    seconds: dict[int, list[float]] = {each: [] for each in sides}
    for _ in range(number):
        for each, side in sides.items():
            seconds[each].append(side.time(next(looks[each])))
    return seconds


def _create(apis: Mapping[int, Stack]) -> Mapping[int, Sequence[float]]:
    """Creates a second in each round, after a short one for warming up; then no size is what it was any more."""
    rates: dict[int, list[float]] = {each: [] for each in apis}
    lengths = [CREATE_WARM_UP] + [CREATE_SECONDS] * CREATE_ROUNDS
    with Progress("creates", len(lengths)) as progress:
        for number, length in enumerate(lengths):
            progress.begin(f"round {number}")
            for each, api in apis.items():
                rates[each].append(_saturate(api, length) / length)
    return {each: of[1:] for each, of in rates.items()}


def _saturate(api: Stack, length: float) -> int:
    """How many tickets were created."""
    arguments = [api.grpc_target, api.mint_token("service"), str(length), str(CALLERS)]
    done = subprocess.run(
        [sys.executable, "-m", "bench.creates", *arguments],
        env={**os.environ, **api.service_env()},
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return len(done.stdout.split())


if __name__ == "__main__":
    sys.exit(main())
