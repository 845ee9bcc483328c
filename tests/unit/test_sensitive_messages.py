"""How much of what is marked in the labelled messages the detector finds, and how much of what it finds is marked."""

import pytest

from server.detection import find
from tests.unit.sensitive_set import Score, messages, report, score

MESSAGES = messages()
# Precision and recall that each part keeps, and all together; the hard part was written to be failed.
FLOORS = {"tuning": (0.98, 0.95), "held_out": (0.98, 0.95), "hard": (0.95, 0.85), "all": (0.98, 0.95)}


def test_the_set_is_large_and_has_many_languages_and_look_alikes() -> None:
    marked = [message for message in MESSAGES if message.marked]
    assert len(MESSAGES) >= 500
    assert len(marked) >= 250
    assert len(MESSAGES) - len(marked) >= 250
    assert len({message.language for message in marked}) >= 8


def test_every_part_is_measured() -> None:
    assert {message.part for message in MESSAGES} == FLOORS.keys() - {"all"}


@pytest.mark.parametrize("part", FLOORS)
def test_the_detector_keeps_its_precision_and_recall(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    scores = score((message for message in MESSAGES if part in (message.part, "all")), find)
    with capsys.disabled():  # the figures belong into the output of every run
        print("", f"sensitive data, messages: {part}", *report(scores), sep="\n  ")  # noqa: T201
    overall = sum(scores.values(), Score())
    precision, recall = FLOORS[part]
    assert overall.precision >= precision, overall.misses
    assert overall.recall >= recall, overall.misses
