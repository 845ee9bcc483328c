"""What the account of a wave says about calls whose outcomes are known."""

import math

import pytest

from bench.overload import NORMAL_SECONDS, WAVE_SECONDS, Account, account_of
from bench.wave import Outcome

BEGIN, END = NORMAL_SECONDS, NORMAL_SECONDS + WAVE_SECONDS
OK, REFUSED, LATE, CANCELLED = 0, 8, 4, 1
PEAK = 100.0


def calls(begin: float, end: float, rate: float, took: float = 0.01, code: int = OK) -> list[Outcome]:
    """So many a second, all with one outcome."""
    times = [begin + number / rate for number in range(int((end - begin) * rate))]
    return [Outcome(due, due + took, code) for due in times]


def a_wave(*, answered: float, after: list[Outcome] | None = None) -> Account:
    """Three times the peak, of which so many a second are answered and all others refused."""
    normal = calls(0, BEGIN, PEAK / 2)
    served = calls(BEGIN, END, answered, took=0.2)
    refused = calls(BEGIN, END, 3 * PEAK - answered, code=REFUSED)
    after = after or calls(END, END + NORMAL_SECONDS, PEAK / 2)
    return account_of("gateway", [*normal, *served, *refused, *after], PEAK)


def test_a_server_that_refuses_the_excess_at_once_meets_all_targets() -> None:
    account = a_wave(answered=98)
    assert account.misses == []
    assert account.offered == pytest.approx(3 * PEAK, rel=0.01)
    assert account.goodput == pytest.approx(96, abs=2)
    assert account.codes[REFUSED] > account.codes[OK]
    assert [account.p99, account.longest, account.recovery] == pytest.approx([0.2, 0.2, 0.0])


def test_goodput_below_nine_tenths_of_the_peak_is_a_miss() -> None:
    assert a_wave(answered=80).misses == ["goodput"]


def test_what_is_refused_in_another_way_than_callers_are_promised_is_a_miss() -> None:
    cancelled = calls(BEGIN, END, 2 * PEAK, code=CANCELLED)
    served = calls(BEGIN, END, 98, took=0.2)
    outcomes = [*calls(0, BEGIN, 50), *served, *cancelled, *calls(END, END + NORMAL_SECONDS, 50)]
    assert account_of("gateway", outcomes, PEAK).misses == ["codes"]
    # There gRPC itself refuses, and has no other word for it.
    assert account_of("own port", outcomes, PEAK).misses == []


def test_answers_after_the_wave_are_no_goodput_of_it() -> None:
    late = [Outcome(END - 0.5, END + 3, OK)] * 500
    outcomes = [*calls(0, BEGIN, 50), *late, *calls(END, END + NORMAL_SECONDS, 50)]
    account = account_of("gateway", outcomes, PEAK)
    assert account.goodput == 0
    assert account.misses == ["goodput", "latency"]


def test_recovery_is_when_all_calls_go_well_again_and_as_fast_as_before() -> None:
    still_refused = calls(END, END + 0.7, 50, code=REFUSED)
    still_slow = calls(END + 0.7, END + 1.5, 50, took=0.9)
    account = a_wave(answered=98, after=[*still_refused, *still_slow, *calls(END + 1.5, END + NORMAL_SECONDS, 50)])
    assert account.recovery == pytest.approx(1.5)
    assert account.misses == ["recovery"]


def test_where_nothing_is_ever_as_before_there_is_no_recovery() -> None:
    account = a_wave(answered=98, after=calls(END, END + NORMAL_SECONDS, 50, code=LATE))
    assert account.recovery == math.inf
