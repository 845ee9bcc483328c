"""What a broker's first run leaves for later ones is made once, and where it can't be made nothing fails."""

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from devstack import jars
from devstack.errors import StackError, StackStopped
from devstack.jars import Jars
from devstack.kafka_training import Training

OPTIONS = ["-Xmx1m"]


@pytest.fixture
def pinned(tmp_path: Path) -> Jars:
    """One jar that is in its place."""
    lock_file = tmp_path / "kafka.lock"
    lock_file.write_text(f"org.apache.kafka:kafka_2.13:4.3.9 6 {hashlib.sha256(b'broker').hexdigest()}\n")
    made = Jars(replace(jars.KAFKA, lock_file=lock_file), tmp_path / "cache", tmp_path / "shared", {})
    made.folder.mkdir(parents=True)
    made.paths[0].write_bytes(b"broker")
    return made


def learn(folder: Path) -> None:
    (folder / "classes.aot").write_text("learnt")


def fail(_folder: Path) -> None:
    raise StackError("no memory")


def be_stopped(_folder: Path) -> None:
    raise StackStopped("stopped")


def test_of_several_at_once_one_is_trained_and_all_have_what_it_learnt(pinned: Jars) -> None:
    begun: list[Path] = []
    together, second = threading.Barrier(5), threading.Event()

    def slowly(folder: Path) -> None:
        begun.append(folder)
        if len(begun) > 1:
            second.set()
        # Time enough for others to begin as well, if they could.
        second.wait(0.3)
        learn(folder)

    def start(_number: int) -> str:
        training = Training(pinned, OPTIONS)
        together.wait(10)
        training.provide(slowly, lambda line: None)
        return training.classes.read_text()

    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(start, range(5))) == ["learnt"] * 5
    assert len(begun) == 1


def test_a_training_that_fails_is_said_and_leaves_nothing(pinned: Jars) -> None:
    said: list[str] = []
    Training(pinned, OPTIONS).provide(fail, said.append)
    assert said[1:] == ["kafka: goes on without, no memory"]
    assert not Training(pinned, OPTIONS).classes.exists()
    assert not list(pinned.folder.glob("train*"))


def test_a_stop_ends_the_training(pinned: Jars) -> None:
    with pytest.raises(StackStopped):
        Training(pinned, OPTIONS).provide(be_stopped, lambda line: None)
    assert not list(pinned.folder.glob("train*"))


def test_what_java_would_refuse_is_made_anew_and_replaced(pinned: Jars) -> None:
    def make(options: list[str]) -> str:
        training = Training(pinned, options)
        training.provide(learn, lambda line: None)
        return training.classes.parent.name

    first = make(OPTIONS)
    assert make(OPTIONS) == first
    assert make(["-Xmx2m"]) != first
    os.utime(pinned.paths[0], (1, 1))
    last = make(OPTIONS)
    assert last != first
    assert [it.name for it in pinned.folder.glob("train*")] == [last]


def test_where_nothing_can_be_written_nothing_fails(pinned: Jars) -> None:
    (pinned.folder / "lock").mkdir()
    said: list[str] = []
    Training(pinned, OPTIONS).provide(learn, said.append)
    assert "goes on without" in said[0]
