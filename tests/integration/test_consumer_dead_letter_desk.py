"""What an operator does with dead letters: each is shown, redriven or let go once, by one command at a time."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from devstack.part import CHECKOUT
from devstack.service import python_path
from devstack.stack import Stack
from server.workers import dead_letter_desk
from server.workers.dead_letter_desk import Desk, DeskError, DeskSettings
from server.workers.topics import DEAD_LETTERS, TICKET_EVENTS
from tests.integration.consumer_line import Line, some_events
from tests.integration.recorder import BROKEN, Recorder, breaks
from tests.integration.test_consumer_poison import broken
from tests.system.vocabulary import eventually
from tests.unit.ticket_events import a_record


class Book:
    """A desk, and what it said."""

    def __init__(self, line: Line) -> None:
        self.said: list[str] = []
        self.desk = Desk(DeskSettings(line.bootstrap, line.dead_letter_topic, line.name), self.said.append)

    def pending(self) -> list[str]:
        """The ids of the events whose letters are pending, as the list shows them."""
        self.said.clear()
        self.desk.show()
        return [match[1] for line in self.said if (match := re.search(r"event (\S+) ticket_", line))]


@contextmanager
def with_dead_letters(line: Line, number: int) -> Iterator[list[str]]:
    """That many dead letters; gives the ids of their events, oldest first."""
    ids = []
    with line.consumer(Recorder(breaks), dead_letter_limit=100):
        for _ in range(number):
            event = broken()
            line.send_events([event])
            ids.append(event["event_id"])
        eventually(lambda: len(line.dead_letters()) == number)
        line.until_committed()
    by_age = [dict(letter.headers)["ce_id"].decode() for letter in line.dead_letters()]
    assert sorted(by_age) == sorted(ids)
    yield by_age


def test_what_was_mended_is_redriven_and_applied_once_as_it_first_came(line: Line) -> None:
    event, others = broken(), some_events(2, each=2)
    line.send_events([event, *others])
    book = Book(line)
    with line.consumer(Recorder(breaks)):
        line.until_committed()
        assert book.pending() == [event["event_id"]]
        assert book.said[0].endswith(f"ValueError: can't get over {BROKEN}")

        line.query("INSERT INTO recorded.mended VALUES (now())")
        assert book.desk.redrive() == 1
        line.until_committed()
        line.until_applied([*others, event])
    first, again = (
        (record.partition, record.key, record.value, record.headers)
        for record in line.records()
        if record.key == a_record(event).key
    )
    assert first == again
    assert book.pending() == []
    assert book.said == ["no dead letters pending"]
    assert book.desk.redrive() == 0


def test_one_that_fails_again_is_a_new_dead_letter_and_redriven_no_more_by_the_same_command(line: Line) -> None:
    with with_dead_letters(line, 2) as ids, line.consumer(Recorder(breaks)):
        book = Book(line)
        assert book.desk.redrive() == 2
        eventually(lambda: len(line.dead_letters()) == 4)
        assert sorted(book.pending()) == sorted(ids)


def test_the_oldest_so_many_are_dealt_with_and_the_rest_stays_pending(line: Line) -> None:
    with with_dead_letters(line, 5) as ids:
        book = Book(line)
        assert book.pending() == ids
        assert book.said[-1] == "5 dead letters pending"
        assert book.desk.show(2) == 2
        assert book.desk.discard(2) == 2
        assert book.pending() == ids[2:]
        assert book.desk.redrive(1) == 1
        assert book.pending() == ids[3:]
        assert book.desk.discard() == 2
        assert book.pending() == []


def test_of_two_commands_at_once_each_dead_letter_is_redriven_by_one(line: Line) -> None:
    with with_dead_letters(line, 30):
        before, refusals = line.size(), []

        def redrive() -> None:
            try:
                Book(line).desk.redrive()
            except DeskError as error:
                refusals.append(str(error))

        both = [threading.Thread(target=redrive) for _ in range(2)]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join(60)
        assert all("another dead-letters command" in refusal for refusal in refusals)
        assert Book(line).pending() == [] or refusals
        Book(line).desk.redrive()
        # The one that lost its turn may have sent one whose note Kafka did not take any more.
        assert 30 <= line.size() - before <= 31


def test_a_command_that_is_given_nothing_says_so(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letter_desk, "ASSIGNMENT_SECONDS", 0.0)
    monkeypatch.setattr(dead_letter_desk, "POLL_SECONDS", 0.0)
    with pytest.raises(DeskError, match="another dead-letters command is at work"):
        Book(line).desk.discard()


def test_a_letter_from_elsewhere_is_not_redriven(line: Line) -> None:
    with with_dead_letters(line, 1):
        book = Book(line)
        book.desk = Desk(DeskSettings(line.bootstrap, line.dead_letter_topic, "another.topic"), book.said.append)
        with pytest.raises(DeskError, match="offset 0 came from no topic that is redriven"):
            book.desk.redrive()
        assert len(book.pending()) == 1


def test_a_missing_topic_is_named(line: Line) -> None:
    desk = Desk(DeskSettings(line.bootstrap, "nowhere", line.name), print)
    for act in (desk.show, desk.redrive, desk.discard):
        with pytest.raises(DeskError, match="there is no topic nowhere"):
            act()


# --- The command itself -----------------------------------------------------------------------------------------------


def command(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`python -m server dead-letters`, with nothing else in its environment."""
    path = python_path(os.environ.get("PYTHONPATH"))
    everything = [sys.executable, "-m", "server", "dead-letters", *arguments]
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": path, **env}
    return subprocess.run(
        everything, cwd=CHECKOUT, env=environ, capture_output=True, text=True, check=False, timeout=60
    )


def test_the_command_does_the_round_trip_on_the_topics_of_the_contract(broker: Stack, line: Line) -> None:
    line.name, event = TICKET_EVENTS, broken()
    kafka = {"KAFKA_BOOTSTRAP_SERVERS": broker.kafka_bootstrap}
    empty = command("list", **kafka)
    assert (empty.returncode, empty.stdout, empty.stderr) == (0, "no dead letters pending\n", "")
    line.send_events([event])
    settings = {"group": "round-trip", "dead_letter_topic": DEAD_LETTERS}
    with line.consumer(Recorder(breaks), **settings):
        eventually(lambda: line.committed("round-trip") == line.size())
        shown = command("list", **kafka)
        assert shown.returncode == 0
        assert re.search(rf"^0 \S+ round-trip \d+/0 event {event['event_id']} ticket_commented ticket ", shown.stdout)
        assert shown.stdout.endswith("1 dead letter pending\n")
        line.query("INSERT INTO recorded.mended VALUES (now())")
        redriven = command("redrive", "--count", "1", **kafka)
        assert (redriven.returncode, redriven.stderr) == (0, "")
        assert redriven.stdout.endswith("1 dead letter redriven\n")
        line.until_applied([event])
    assert command("discard", **kafka).stdout == "no dead letters discarded\n"


@pytest.mark.parametrize(
    ("arguments", "env", "code", "problem"),
    [
        (["list"], {}, 2, "KAFKA_BOOTSTRAP_SERVERS is not set"),
        (["list", "--count", "0"], {"KAFKA_BOOTSTRAP_SERVERS": "x:1"}, 2, "must be 1 or more"),
        (["burn"], {}, 2, "redrive"),
        (["list"], {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9"}, 1, "Kafka does not answer"),
    ],
)
def test_what_the_command_cannot_do_it_says(arguments: list[str], env: dict[str, str], code: int, problem: str) -> None:
    result = command(*arguments, **env)
    assert result.returncode == code
    assert problem in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
