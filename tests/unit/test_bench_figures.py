"""The arithmetic of the benchmarks, what they are asked on the command line, and what they come to."""

import os
import random
from collections import Counter
from itertools import islice, pairwise
from pathlib import Path

import pytest

from bench import __main__ as bench
from bench.calls import Plan, Table, read_plan
from bench.company import CallersFailed
from bench.data_set import data_set
from bench.figures import Figures, median, percentile, ratio, slope
from bench.ghz import calls_in
from bench.kinds import KINDS, MIX, MIXED, Share, requests
from bench.progress import Progress


def figures(server: float, gateway: float | None = None) -> Figures:
    """Those of one round."""
    return Figures(per_second=1000 / server, p50=1.0, p99=2.0, server=server, database=server / 2, gateway=gateway)


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 50), (0.99, 99), (1.0, 100)])
def test_a_percentile_is_the_value_at_that_share(share: float, value: float) -> None:
    assert percentile(range(1, 101), share) == value


def test_a_percentile_of_one_value_is_that_value() -> None:
    assert percentile([7.0], 0.99) == 7.0


def test_the_ratio_is_taken_within_each_round_so_that_a_slow_round_counts_once() -> None:
    # The third round was ten times as slow, for both.
    assert ratio([1.2, 1.3, 12.0], [1.0, 1.0, 10.0]) == pytest.approx(1.2)


def test_each_figure_has_its_own_median() -> None:
    middle = median([figures(1.0), figures(4.0), figures(2.0)])
    assert (middle.server, middle.database, middle.per_second, middle.gateway) == (2.0, 1.0, 500.0, None)
    assert median([figures(1.0, gateway=0.5)]).gateway == 0.5


def test_a_slope_is_what_is_added_per_step() -> None:
    assert slope([(0, 5.0), (1, 7.0), (2, 9.0)]) == pytest.approx(2.0)


def test_a_table_knows_no_ratio_without_the_floor() -> None:
    table = Table()
    table.add("get", "service", figures(1.5))
    assert table.ratio("get", "service", "server") is None
    table.add("get", "floor", figures(1.0))
    assert table.ratio("get", "service", "server") == pytest.approx(1.5)


def test_the_command_line_says_what_is_measured() -> None:
    plan = read_plan(["--kinds", "get,list", "--servers", "floor,service", "--rounds", "2", "--seconds", "0.5"])
    assert (plan.kinds, plan.servers, plan.rounds, plan.seconds) == (["get", "list"], ["floor", "service"], 2, 0.5)
    assert read_plan([]) == Plan()
    assert read_plan(["--results", "elsewhere.json"]).results == Path("elsewhere.json")


@pytest.mark.parametrize("wrong", [["--kinds", "got"], ["--servers", "floor,roof"], ["--rounds", "many"]])
def test_what_there_is_not_is_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read_plan(wrong)
    assert ended.value.code == 2
    assert wrong[0] in capsys.readouterr().err


def test_the_data_set_is_the_same_every_time_and_its_parts_are_apart() -> None:
    data = data_set()
    assert data == data_set()
    assert len({ticket.id for ticket in data.tickets}) == len(data.tickets)
    assert {ticket.status for ticket in data.moved} == {"open"}


def test_of_several_callers_each_changes_tickets_of_its_own() -> None:
    data = data_set()
    shares = [Share(data, random.Random(number), number, 3) for number in range(3)]  # noqa: S311
    owned = [set(share.own(data.moved)) for share in shares]
    assert sum(map(len, owned)) == len(set.union(*owned)) == len(data.moved)


def test_every_change_of_status_asks_for_another_status_than_the_last_one_did() -> None:
    share = Share(data_set(), random.Random(1), 0, 40)  # noqa: S311
    statuses: dict[str, list[int]] = {}
    for _, ask in islice(requests("status", share), 200):
        statuses.setdefault(ask.request.ticket_id, []).append(ask.request.status)
    assert all(one != other for seen in statuses.values() for one, other in pairwise(seen))


def test_mixed_calls_come_in_the_shares_that_the_mix_says() -> None:
    share = Share(data_set(), random.Random(1), 0, 1)  # noqa: S311
    assert sum(MIX.values()) == 100
    assert set(MIX) == set(KINDS)
    assert Counter(kind.name for kind, _ in islice(requests(MIXED, share), 200)) == {
        name: 2 * count for name, count in MIX.items()
    }


def test_off_a_terminal_progress_is_a_line_a_step(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("soak", 3) as progress:
        progress.begin("one")
        progress.begin("two")
        progress.begin("three", 3)
    assert capsys.readouterr().err == "soak: 0 of 3: one\nsoak: 1 of 3: two\nsoak: 3 of 3: three\n"


GHZ = {
    "count": 2,
    "total": 500_000_000,
    "statusCodeDistribution": {"OK": 2},
    "errorDistribution": {},
    "details": [{"latency": 3_000_000, "status": "OK"}, {"latency": 1_500_000, "status": "OK"}],
}


def test_a_report_of_ghz_is_read_as_calls() -> None:
    calls = calls_in(GHZ)
    assert (calls.milliseconds, calls.per_second) == ([1.5, 3.0], 4.0)


@pytest.mark.parametrize("wrong", [{"statusCodeDistribution": {"OK": 1, "Unavailable": 1}}, {"details": []}])
def test_a_report_of_ghz_with_failed_or_missing_calls_is_none(wrong: dict[str, object]) -> None:
    with pytest.raises(CallersFailed):
        calls_in({**GHZ, **wrong})


def failing() -> bool:
    raise CallersFailed("a call failed")


@pytest.mark.parametrize(
    ("sections", "code"),
    [
        ({"one": lambda: True, "two": lambda: True}, 0),
        ({"one": lambda: False, "two": lambda: True}, 1),
        ({"one": failing, "two": lambda: False}, 2),
    ],
)
def test_the_exit_code_tells_a_missed_target_from_a_benchmark_that_failed(
    sections: dict[str, object], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "SECTIONS", sections)
    assert bench.main([]) == code
    assert "bench: two: " in capsys.readouterr().out


def test_a_benchmark_that_kept_to_one_processor_does_not_keep_the_next_one_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = os.sched_getaffinity(0)

    def narrow() -> bool:
        os.sched_setaffinity(0, {min(before)})
        return True

    monkeypatch.setattr(bench, "SECTIONS", {"narrow": narrow})
    assert bench.main([]) == 0
    assert os.sched_getaffinity(0) == before
