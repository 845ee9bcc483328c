"""Kafka starts, and says nothing of it, where Java can't use what an earlier run has left."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from devstack.jars import CACHE, KAFKA, Jars
from devstack.kafka import Kafka
from devstack.part import Part
from devstack.ports import free_port
from devstack.stack import Stack


def beside(real: Jars, cache: Path) -> Jars:
    """The same jars in a folder of their own, where they count as verified."""
    made = Jars(KAFKA, cache)
    made.folder.mkdir(parents=True)
    for there, here in zip(real.paths, made.paths, strict=True):
        here.symlink_to(there)
    (made.folder / "verified").write_bytes((real.folder / "verified").read_bytes())
    return made


def test_classes_that_cannot_be_read_cost_time_and_nothing_else(broker: Stack, tmp_path: Path) -> None:
    assert broker.is_running
    stopping, run_dir = threading.Event(), tmp_path / "run"
    (run_dir / "logs").mkdir(parents=True)
    kafka = Kafka(run_dir, free_port(), stopping, beside(Jars(KAFKA, CACHE), tmp_path / "cache"))
    kafka.training.provide(lambda folder: None, lambda line: None)
    kafka.training.classes.write_text("no classes")
    with ThreadPoolExecutor(1) as forks:
        part = Part(kafka.program(), run_dir, forks, stopping)
        part.start()
        part.kill()
    assert "aot" not in part.log_path.read_text()
