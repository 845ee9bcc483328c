"""The labelled messages of tests/data/sensitive.tsv, and how well a detector finds what is marked in them."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from server.domain.sensitive import Finding, Kind

_FILE = Path(__file__).parents[1] / "data" / "sensitive.tsv"
_MARK = re.compile(r"⟦([a-z_]+):([^⟧]*)⟧")
_ESCAPE = re.compile(r"\\(n|u[0-9a-f]{4})")


class Message(NamedTuple):
    """One line: the text without its marks, and what is marked."""

    line: int
    part: str
    language: str
    text: str
    marked: tuple[Finding, ...]


def messages() -> list[Message]:
    """All of them, in the order of the file."""
    lines = enumerate(_FILE.read_text(encoding="utf-8").splitlines(), start=1)
    return [_message(number, line) for number, line in lines if not line.startswith("#")]


def _message(number: int, line: str) -> Message:
    part, language, written = line.split("\t")
    marked, text, end = [], "", 0
    for mark in _MARK.finditer(written):
        text += _plain(written[end : mark.start()])
        value = _plain(mark[2])
        marked.append(Finding(Kind(mark[1]), len(text), len(value)))
        text, end = text + value, mark.end()
    return Message(number, part, language, text + _plain(written[end:]), tuple(marked))


def _plain(written: str) -> str:
    return _ESCAPE.sub(lambda escape: "\n" if escape[1] == "n" else chr(int(escape[1][1:], 16)), written)


@dataclass
class Score:
    """Marks that were found, marks that were missed, and findings where nothing of the kind is marked."""

    found: int = 0
    missed: int = 0
    wrong: int = 0
    exact: int = 0
    misses: list[str] = field(default_factory=list)

    @property
    def precision(self) -> float:
        """The share of the findings that are right."""
        return self.found / (self.found + self.wrong) if self.found + self.wrong else 1.0

    @property
    def recall(self) -> float:
        """The share of the marks that were found."""
        return self.found / (self.found + self.missed) if self.found + self.missed else 1.0

    def __add__(self, other: "Score") -> "Score":
        return Score(
            self.found + other.found,
            self.missed + other.missed,
            self.wrong + other.wrong,
            self.exact + other.exact,
            self.misses + other.misses,
        )

    def __str__(self) -> str:
        return (
            f"precision {self.precision:.3f}  recall {self.recall:.3f}  "
            f"({self.found} found, {self.exact} of them to the letter; {self.missed} missed, {self.wrong} wrong)"
        )


def score(some: Iterable[Message], find: Callable[[str], tuple[Finding, ...]]) -> dict[str, Score]:
    """The detector's score for each kind. A finding is right where it meets a mark of its kind, each counted once."""
    scores: dict[str, Score] = defaultdict(Score)
    for message in some:
        open_marks = list(message.marked)
        for finding in find(message.text):
            mark = next((each for each in open_marks if _meet(each, finding)), None)
            result = scores[finding.kind]
            if mark is None:
                result.wrong += 1
                result.misses.append(f"line {message.line}: wrong {_shown(message, finding)}")
            else:
                open_marks.remove(mark)
                result.found += 1
                result.exact += mark == finding
        for mark in open_marks:
            scores[mark.kind].missed += 1
            scores[mark.kind].misses.append(f"line {message.line}: missed {_shown(message, mark)}")
    return dict(scores)


def _meet(mark: Finding, finding: Finding) -> bool:
    """Whether they are of one kind and at least half of what either covers is covered by both."""
    shared = min(mark.start + mark.length, finding.start + finding.length) - max(mark.start, finding.start)
    return mark.kind == finding.kind and 2 * shared >= max(mark.length, finding.length)


def _shown(message: Message, finding: Finding) -> str:
    return f"{finding.kind} {message.text[finding.start : finding.start + finding.length]!r} in {message.text!r}"


def report(scores: dict[str, Score]) -> Iterator[str]:
    """A line for each kind, and one for all together."""
    for kind in sorted(scores):
        yield f"{kind:14} {scores[kind]}"
    yield f"{'overall':14} {sum(scores.values(), Score())}"
