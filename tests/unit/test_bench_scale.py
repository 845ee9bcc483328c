"""When ten million tickets count as being as fast as ten thousand, and what is said of it."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench import scale
from bench.databases import Sizes
from bench.scale_report import Found, report

FEW, MANY = 10_000, 1_000_000
SIZES = Sizes({"support_tickets": 2_900_000}, {"support_tickets": 10_000}, {("support_tickets", "by_user"): 700_000})


def found(
    *rounds: tuple[float, float], creates: Sequence[tuple[float, float]] = ((800, 800),), look: str = "get"
) -> Found:
    """What was measured in rounds: milliseconds of every call among few and among many, creates a second likewise."""
    few, many = ([[ms[end] / 1000] * 100 for ms in rounds] for end in (0, 1))
    rates = {FEW: [pair[0] for pair in creates], MANY: [pair[1] for pair in creates]}
    return Found({look: {FEW: few, MANY: many}}, rates, {FEW: SIZES, MANY: SIZES}, seed=1)


def test_a_look_may_take_so_much_longer_among_many_and_no_more() -> None:
    assert found((1.0, 1.29)).is_flat
    assert not found((1.0, 1.31)).is_flat


def test_creates_may_be_so_much_slower_among_many_and_no_more() -> None:
    assert found((1.0, 1.0), creates=[(100, 81)]).is_flat
    assert not found((1.0, 1.0), creates=[(100, 79)]).is_flat


def test_what_disturbs_a_round_disturbs_both_of_its_sides() -> None:
    assert found((1.0, 1.1), (1.0, 1.1), (50.0, 55.0)).slowdown("get") == pytest.approx(1.1)


def test_a_slow_twentieth_counts_and_fewer_do_not() -> None:
    for slow, is_flat in ((4, True), (6, False)):
        one = found((1.0, 1.0))
        among_many = [0.001] * (100 - slow) + [1.0] * slow
        assert one._replace(looks={"get": {FEW: one.looks["get"][FEW], MANY: [among_many]}}).is_flat is is_flat


def test_a_target_that_is_missed_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert not report(found((1.0, 2.0), look="page 500"))
    printed = capsys.readouterr().out
    assert ["page", "500", "1.00", "1.00", "2.00", "2.00", "2.00", "MISSED"] in [
        line.split() for line in printed.splitlines()
    ]
    assert "by_user" in printed
    assert json.loads(Path(".bench/scale.json").read_text())["ratios"] == {"page 500": pytest.approx(2.0)}


def test_too_few_tickets_for_a_deep_page_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        scale.main(["--sizes", "9999,1000000"])
    assert "page 500" in capsys.readouterr().err
