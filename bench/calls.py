"""What each kind of call costs, beside a floor server that does nothing but the call: `python -m bench.calls --help`.

Both servers stand on the same PostgreSQL and the same data, and are measured in turn, round by round.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import psycopg

from bench.callers import Order
from bench.company import CALLERS, Callers, CallersFailed, callers, floor, loaded_stack, pid_of
from bench.durability import durability
from bench.figures import Figures, median, percentile, ratio
from bench.floor import NAME as FLOOR
from bench.ghz import DOES, Ghz, installed
from bench.kinds import KINDS, Kind
from bench.processor import Clock, cores, of_process, of_tree
from bench.progress import Progress
from bench.results import FOLDER, verdict, write_results
from devstack.stack import Stack

PARTS = {"postgres", "kafka", "migrate", "api", "relay", "gateway"}
SERVICE, REST = "service", "rest"
SERVERS = (FLOOR, SERVICE, REST)
RESULTS = FOLDER / "calls.json"
# The API's connections say no name; the workers' do.
API_NAME = ""
_OTHER_CLIENTS = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name <> %s"


class Server(NamedTuple):
    """A server that is measured: how it is reached, and whose processor time counts."""

    name: str
    door: str
    target: str
    process: Clock
    database: Clock
    gateway: Clock | None = None


@dataclass
class Plan:
    """What is measured, and how long."""

    kinds: Sequence[str] = tuple(KINDS)
    servers: Sequence[str] = SERVERS
    rounds: int = 16
    seconds: float = 0.6
    callers: int = CALLERS
    results: Path = RESULTS


@dataclass
class Table:
    """The figures of every round, by kind and server."""

    rounds: dict[tuple[str, str], list[Figures]] = field(default_factory=dict)

    def add(self, kind: str, server: str, figures: Figures) -> None:
        """Those of one more round."""
        self.rounds.setdefault((kind, server), []).append(figures)

    def ratio(self, kind: str, server: str, figure: str) -> float | None:
        """Of the server to the floor; None where the floor was not measured."""
        of, to = ([getattr(each, figure) for each in self.rounds.get((kind, name), [])] for name in (server, FLOOR))
        return ratio(of, to) if of and to else None


def bench_calls(plan: Plan) -> bool:
    """Measure, print the table and write it as JSON; False where a target is missed.

    Raises:
        CallersFailed: a call failed.
    """
    with _stage(plan) as (stack, servers, those):
        settings = durability(stack)
        print(f"calls: {cores()} processors, {plan.callers} callers in a process of their own: {_who_calls(those)}")
        for part, values in settings.items():
            print(f"calls: {part}: " + ", ".join(f"{name} {value}" for name, value in values.items()))
        table = _measure(plan, servers, those)
    met = _print(table)
    _write(plan, table, settings)
    return met


@contextmanager
def _stage(plan: Plan) -> Iterator[tuple[Stack, Sequence[Server], Callers | Ghz]]:
    parts = PARTS if REST in plan.servers else PARTS - {"gateway"}
    with (
        loaded_stack(parts) as stack,
        psycopg.connect(stack.dsn, autocommit=True, application_name="bench") as connection,
        floor(stack) as bare,
        callers(stack, plan.callers) as those,
    ):

        def database(name: str) -> Clock:
            def others() -> Iterator[int]:
                return (pid for (pid,) in connection.execute(_OTHER_CLIENTS, [name]).fetchall())

            return of_tree(pid_of(stack, "postgres"), apart_from=others)

        api, beside = of_tree(pid_of(stack, "api")), database(API_NAME)
        known = [
            Server(FLOOR, "grpc", bare.target, lambda: of_process(bare.pid), database(FLOOR)),
            Server(SERVICE, "grpc", stack.grpc_target, api, beside),
        ]
        if REST in plan.servers:
            gateway = stack.gateway_url.removeprefix("http://")
            known.append(Server(REST, "rest", gateway, api, beside, of_tree(pid_of(stack, "gateway"))))
        program = installed()
        makers = Ghz(program, stack, plan.callers, those) if program else those
        yield stack, [server for server in known if server.name in plan.servers], makers


def _who_calls(makers: Callers | Ghz) -> str:
    ours = "our own over grpc.aio and HTTP/1.1"
    return f"ghz for {', '.join(DOES)} over gRPC, else {ours}" if isinstance(makers, Ghz) else ours


def _measure(plan: Plan, servers: Sequence[Server], those: Callers | Ghz) -> Table:
    """The rounds, after one that does not count; every other one in the opposite order."""
    table = Table()
    with Progress("calls", (plan.rounds + 1) * len(plan.kinds) * len(servers)) as progress:
        for number in range(plan.rounds + 1):
            for kind in plan.kinds:
                for server in servers if number % 2 else reversed(servers):
                    progress.begin(f"{kind}, {server.name}, round {number}")
                    figures = measure(server, KINDS[kind], plan.seconds if number else plan.seconds / 2, those)
                    if number:
                        table.add(kind, server.name, figures)
    return table


def measure(server: Server, kind: Kind, seconds: float, those: Callers | Ghz) -> Figures:
    """What calls of one kind come to in so many seconds."""
    clocks = [server.process, server.database, *([server.gateway] if server.gateway else [])]
    before = [clock() for clock in clocks]
    calls = those.make_calls(Order(server.door, [server.target], kind.name, seconds))
    count = len(calls.milliseconds)
    each = [(clock() - was) * 1000 / count for clock, was in zip(clocks, before, strict=True)]
    return Figures(calls.per_second, percentile(calls.milliseconds, 0.5), percentile(calls.milliseconds, 0.99), *each)


_COLUMNS = ("kind", "server", "calls/s", "p50 ms", "p99 ms", "server", "database", "envoy", "server:", "database:")
_ROW = "{:<14} {:<8} {:>8} {:>7} {:>7} {:>7} {:>9} {:>6} {:>8} {:>10}  {}"


def _print(table: Table) -> bool:
    """Whether every target is met."""
    print(
        "calls: `server`, `database` and `envoy` in milliseconds of processor time for each call; then their ratios to"
    )
    print("calls: the floor, and the most that the server's may be")
    print(_ROW.format(*_COLUMNS, ""))
    met = True
    for (kind, server), rounds in sorted(table.rounds.items(), key=lambda item: list(KINDS).index(item[0][0])):
        times, target = table.ratio(kind, server, "server"), KINDS[kind].target if server == SERVICE else None
        ratios = [None if server == FLOOR else table.ratio(kind, server, name) for name in ("server", "database")]
        word = ""
        if times is not None and target is not None:
            word = f"at most {target}: {verdict(met=times <= target)}"
            met = met and times <= target
        print(_ROW.format(kind, server, *_cells(median(rounds)), *(_digits(each, 2) for each in ratios), word))
    return met


def _digits(value: float | None, places: int) -> str:
    return "-" if value is None else f"{value:.{places}f}"


def _cells(figures: Figures) -> list[str]:
    rate, *times = figures[:3]
    return [f"{rate:.0f}", *(_digits(value, 1) for value in times), *(_digits(value, 3) for value in figures[3:])]


def _write(plan: Plan, table: Table, settings: Mapping[str, Mapping[str, str]]) -> None:
    """Every round, the medians, and the ratios to the floor."""
    found = [
        {
            "kind": kind,
            "server": server,
            "target": KINDS[kind].target,
            "median": median(rounds)._asdict(),
            "to_floor": {name: table.ratio(kind, server, name) for name in ("server", "database", "per_second")},
            "rounds": [each._asdict() for each in rounds],
        }
        for (kind, server), rounds in table.rounds.items()
    ]
    about = {"processors": cores(), "callers": plan.callers, "seconds": plan.seconds, "durability": settings}
    write_results("calls", {"about": about, "calls": found}, plan.results)


def _some_of(known: Sequence[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        named = text.split(",")
        if not set(named) <= set(known):
            raise argparse.ArgumentTypeError(f"some of {', '.join(known)}, separated by commas")
        return named

    return parse


def read_plan(argv: Sequence[str]) -> Plan:
    """The plan that the command line asks for; ends the process where it asks for what there is not."""
    parser = argparse.ArgumentParser(prog="bench.calls", description=__doc__)
    usual = Plan()
    parser.add_argument("--kinds", type=_some_of(list(KINDS)), default=usual.kinds, help=f"of {', '.join(KINDS)}")
    parser.add_argument("--servers", type=_some_of(SERVERS), default=usual.servers, help=f"of {', '.join(SERVERS)}")
    parser.add_argument("--rounds", type=int, default=usual.rounds, help="that count; one goes before them")
    parser.add_argument("--seconds", type=float, default=usual.seconds, help="of each kind, server and round")
    parser.add_argument("--callers", type=int, default=usual.callers, help="who call at once")
    parser.add_argument("--results", type=Path, default=usual.results, help="where the JSON goes")
    return Plan(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    try:
        sys.exit(0 if bench_calls(read_plan(sys.argv[1:])) else 1)
    except CallersFailed as failure:
        sys.exit(f"bench.calls: {failure}")
