"""Only the pinned jars are ever used. A small Maven repository on loopback stands in for the public one."""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from devstack import jars
from devstack.errors import StackError, StackStopped
from devstack.jars import PINS, Jar, Jars, Pin, read_lock

KAFKA = "org.apache.kafka:kafka_2.13:4.3.9"
CLIENTS = "org.apache.kafka:kafka-clients:4.3.9"


class Repository:
    """A Maven repository with made-up jars, a lock file that pins them, and folders for both caches."""

    def __init__(self, folder: Path, url: str) -> None:
        self.files = folder / "repository"
        self.shared = folder / "shared"
        self.lock_file = folder / "kafka.lock"
        self._cache, self._url = folder / "cache", url
        self.pin({KAFKA: self.publish(KAFKA, b"broker"), CLIENTS: self.publish(CLIENTS, b"clients")})

    @property
    def jars(self) -> Jars:
        return Jars(self.pinned, self._cache, self.shared, {"test": self._url})

    @property
    def pinned(self) -> Pin:
        return replace(jars.KAFKA, lock_file=self.lock_file)

    def publish(self, coordinates: str, content: bytes) -> bytes:
        self.path_of(coordinates, self.files).parent.mkdir(parents=True, exist_ok=True)
        self.path_of(coordinates, self.files).write_bytes(content)
        return content

    def pin(self, contents: dict[str, bytes]) -> None:
        lines = (f"{jar} {len(content)} {hashlib.sha256(content).hexdigest()}\n" for jar, content in contents.items())
        self.lock_file.write_text("# a comment\n" + "".join(lines))

    def path_of(self, coordinates: str, root: Path) -> Path:
        group, artifact, version = coordinates.split(":")
        return root / group.replace(".", "/") / artifact / version / f"{artifact}-{version}.jar"

    def provide(self, stopping: threading.Event | None = None) -> list[str]:
        said: list[str] = []
        self.jars.provide(said.append, stopping or threading.Event())
        return said


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Tests are quiet."""


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "repository")))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield Repository(tmp_path, f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.jar")}


def test_missing_jars_are_downloaded_and_a_later_start_needs_no_network(repository: Repository) -> None:
    assert repository.provide() == ["kafka: downloading, 1 of 2 jars, 0 of 0 MB"]
    expected = {"kafka_2.13-4.3.9.jar": b"broker", "kafka-clients-4.3.9.jar": b"clients"}
    assert contents(repository.jars.folder) == expected
    repository.path_of(KAFKA, repository.files).unlink()
    assert repository.provide() == []


def test_a_jar_that_was_lost_is_put_back(repository: Repository) -> None:
    repository.provide()
    (repository.jars.folder / "kafka-clients-4.3.9.jar").unlink()
    repository.provide()
    assert len(contents(repository.jars.folder)) == 2


def test_another_checkout_takes_them_from_the_shared_cache(repository: Repository, tmp_path: Path) -> None:
    repository.provide()
    other = Jars(repository.pinned, tmp_path / "other", repository.shared, {})
    other.provide(lambda line: None, threading.Event())
    assert contents(other.folder) == contents(repository.jars.folder)


def test_a_jar_with_another_hash_is_refused_by_name(repository: Repository) -> None:
    repository.publish(CLIENTS, b"Clients")
    with pytest.raises(StackError, match=f"^{CLIENTS} is not the pinned jar: its SHA-256 is "):
        repository.provide()
    assert "kafka-clients-4.3.9.jar" not in contents(repository.jars.folder)
    assert not repository.path_of(CLIENTS, repository.shared).exists()


def test_a_damaged_jar_in_the_shared_cache_is_not_used(repository: Repository) -> None:
    damaged = repository.path_of(KAFKA, repository.shared)
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"brok")
    repository.provide()
    assert contents(repository.jars.folder)["kafka_2.13-4.3.9.jar"] == b"broker"


def test_a_missing_download_is_one_line_that_names_it(repository: Repository) -> None:
    repository.path_of(CLIENTS, repository.files).unlink()
    with pytest.raises(StackError, match=f"^could not download {CLIENTS} .*check the network and start again$"):
        repository.provide()


def test_a_new_lock_file_replaces_the_jars_of_the_old_one(repository: Repository) -> None:
    repository.provide()
    repository.pin({KAFKA: b"broker"})
    repository.provide()
    assert contents(repository.jars.folder) == {"kafka_2.13-4.3.9.jar": b"broker"}


def test_a_stop_ends_the_downloads(repository: Repository) -> None:
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(StackStopped):
        repository.provide(stopping)


@pytest.mark.parametrize("line", ["a:b:1 12", "a:b 1 " + "0" * 64, "a:b:../1 1 " + "0" * 64])
def test_a_malformed_lock_file_is_refused(line: str) -> None:
    with pytest.raises(StackError, match="a line that is no jar"):
        Jar.parse(line)


@pytest.mark.parametrize("pin", PINS, ids=lambda pin: pin.name)
def test_a_lock_file_pins_the_artifact_and_nothing_else_of_its_group_in_another_version(pin: Pin) -> None:
    pinned = read_lock(pin.lock_file)
    group, _, _ = pin.artifact.partition(":")
    versions = {jar.coordinates.split(":")[2] for jar in pinned if jar.coordinates.startswith(f"{group}:")}
    assert versions == {pin.version(pinned)}
    assert pin.version(pinned).startswith(pin.series)


def test_kafka_has_what_it_logs_with() -> None:
    pinned = read_lock(jars.KAFKA.lock_file)
    assert any(jar.coordinates.startswith("org.apache.logging.log4j:log4j-slf4j-impl:") for jar in pinned)


def test_the_jar_of_the_artifact_itself_is_known(repository: Repository) -> None:
    repository.provide()
    assert repository.jars.main.read_bytes() == b"broker"
