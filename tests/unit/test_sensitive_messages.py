"""How much of what is marked in the labelled messages the detector finds, and how much of what it finds is marked."""

import pytest

from server.detection import find
from tests.unit.sensitive_set import Score, messages, report, score

MESSAGES = messages()
PRECISION, RECALL = 0.98, 0.95


def halves() -> list[str]:
    return sorted({message.half for message in MESSAGES})


def test_the_set_is_large_and_has_many_languages_and_look_alikes() -> None:
    marked = [message for message in MESSAGES if message.marked]
    assert len(MESSAGES) >= 500
    assert len(marked) >= 250
    assert len(MESSAGES) - len(marked) >= 250
    assert len({message.language for message in marked}) >= 8


@pytest.mark.parametrize("half", halves())
def test_the_detector_keeps_its_precision_and_recall(half: str, capsys: pytest.CaptureFixture[str]) -> None:
    scores = score((message for message in MESSAGES if message.half == half), find)
    with capsys.disabled():  # the figures belong into the output of every run
        print("", f"sensitive data, {half} messages:", *report(scores), sep="\n  ")  # noqa: T201
    overall = sum(scores.values(), Score())
    assert overall.precision >= PRECISION, overall.misses
    assert overall.recall >= RECALL, overall.misses
