"""Jars from a Maven repository: which ones, by what hash, and where they are on this machine.

A lock file pins the exact set; a jar whose hash differs is never used. The ordinary Maven repository cache serves as a
download cache between checkouts. A folder of verified jars in the checkout makes later starts need neither.
"""

import fcntl
import hashlib
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from typing import Self

from jgo.maven import Artifact, MavenContext

from devstack.errors import StackError, StackStopped
from devstack.part import CHECKOUT, Say

CACHE = CHECKOUT / ".cache"
_HEADER = """\
# {}:{}* and what it runs on: group:artifact:version, size in bytes, SHA-256.
# Written by `python -m devstack lock-jars`.
"""
_DOWNLOADS_AT_ONCE = 6
_PROGRESS_SECONDS = 2.0


@dataclass(frozen=True)
class Pin:
    """What a lock file pins: the newest version of `artifact` (`group:artifact`) that begins with `series`, with all
    that it needs at run time.
    """

    artifact: str
    series: str
    lock_file: Path

    @property
    def name(self) -> str:
        """What it is called towards people."""
        return self.lock_file.stem

    def version(self, jars: Sequence["Jar"]) -> str:
        """The version of the artifact itself among `jars`."""
        return next(
            jar.coordinates.rpartition(":")[2] for jar in jars if jar.coordinates.startswith(f"{self.artifact}:")
        )


KAFKA = Pin("org.apache.kafka:kafka_2.13", "4.3.", Path(__file__).with_name("kafka.lock"))
SWAGGER_UI = Pin("org.webjars:swagger-ui", "5.", Path(__file__).with_name("swagger-ui.lock"))
PINS = (KAFKA, SWAGGER_UI)


@dataclass(frozen=True)
class Jar:
    """One line of the lock file."""

    coordinates: str
    size: int
    sha256: str

    @classmethod
    def parse(cls, line: str) -> Self:
        """Reads `group:artifact:version size sha256`; StackError for another shape."""
        match = re.fullmatch(r"([\w.-]+:[\w.-]+:[\w.-]+) (\d+) ([0-9a-f]{64})", line)
        if match is None:
            raise StackError(f"a lock file has a line that is no jar: {line!r}")
        return cls(match[1], int(match[2]), match[3])

    @property
    def file_name(self) -> str:
        """The jar's name in every folder."""
        _, artifact, version = self.coordinates.split(":")
        return f"{artifact}-{version}.jar"

    def artifact_in(self, context: MavenContext) -> Artifact:
        """The jar as the resolver knows it."""
        group, artifact, version = self.coordinates.split(":")
        return context.project(group, artifact).at_version(version).artifact()

    def in_cache(self, context: MavenContext) -> Path:
        """Where that cache keeps the jar, or would."""
        return Path(context.repo_cache, self.artifact_in(context).component.path_prefix, self.file_name)

    def is_at(self, path: Path) -> bool:
        """Whether the very bytes that the lock file means are in that file."""
        return path.is_file() and path.stat().st_size == self.size and _sha256(path) == self.sha256


def read_lock(lock_file: Path) -> list[Jar]:
    """The pinned jars; StackError when the file is missing or malformed."""
    try:
        lines = lock_file.read_text().splitlines()
    except OSError as error:
        raise StackError(f"cannot read {lock_file}: {error.strerror}") from error
    return [Jar.parse(line) for line in lines if line and not line.startswith("#")]


class Jars:
    """The pinned jars on this machine.

    `cache` is the folder under which they are kept for this checkout, `shared` the Maven repository cache that is
    looked in and added to (the user's own by default), `repositories` where downloads come from (Maven Central by
    default).
    """

    def __init__(
        self,
        pin: Pin,
        cache: Path = CACHE,
        shared: Path | None = None,
        repositories: Mapping[str, str] | None = None,
    ) -> None:
        self._pin = pin
        self._shared = MavenContext(repo_cache=shared)
        self._repositories = None if repositories is None else dict(repositories)
        self._jars = read_lock(pin.lock_file)
        self.version = pin.version(self._jars)
        self.folder = cache / f"{pin.name}-{self.version}"

    @property
    def main(self) -> Path:
        """Where the jar of the artifact itself is, once they are provided."""
        _, artifact = self._pin.artifact.split(":")
        return self.folder / f"{artifact}-{self.version}.jar"

    @property
    def paths(self) -> list[Path]:
        """Where every jar is, once they are provided; always in the same order, by the same names where checkouts
        share a cache by a link.
        """
        folder = self.folder.resolve()
        return [folder / jar.file_name for jar in self._jars]

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """While no other process changes what is in `folder`."""
        with _exclusive(self.folder / "lock"):
            yield

    def provide(self, say: Say, stopping: Event) -> None:
        """Puts every pinned jar, and no other, into `folder`, downloading as needed; at once when they are there.

        StackError names a jar that cannot be had or whose hash is not the pinned one; StackStopped when `stopping` is
        set.
        """
        if self._is_stamped():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.exclusive():
            if not self._is_stamped():
                self._fill(Progress(self._pin.name, self._jars, say, stopping))
                self._stamp.write_text(_sha256(self._pin.lock_file))

    @property
    def _stamp(self) -> Path:
        return self.folder / "verified"

    def _is_stamped(self) -> bool:
        """Whether all jars were verified once and none has gone since; cheap enough for every start."""
        if not self._stamp.is_file() or self._stamp.read_text() != _sha256(self._pin.lock_file):
            return False
        return all(path.is_file() for path in self.paths)

    def _fill(self, progress: "Progress") -> None:
        for stranger in {path.name for path in self.folder.glob("*.jar")} - {jar.file_name for jar in self._jars}:
            (self.folder / stranger).unlink()
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="download-") as staging:
            # Downloads go to a folder of our own first: the resolver writes in place, and a broken-off download must
            # not stay behind under the name of a whole jar.
            context = MavenContext(repo_cache=Path(staging), remote_repos=self._repositories)
            with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool:
                list(pool.map(lambda jar: self._place(jar, context, progress), self._jars))

    def _place(self, jar: Jar, context: MavenContext, progress: "Progress") -> None:
        target = self.folder / jar.file_name
        shared = jar.in_cache(self._shared)
        if not jar.is_at(target):
            if jar.is_at(shared):
                _copy(shared, target)
            else:
                progress.starts()
                downloaded = _download(jar, context)
                _share(downloaded, shared)
                downloaded.replace(target)
        progress.finished(jar)


def write_lock(pin: Pin, say: Say) -> None:
    """Rewrites the lock file for the newest of the series; StackError when the repository cannot be reached."""
    with tempfile.TemporaryDirectory() as folder:
        context = MavenContext(repo_cache=Path(folder))
        try:
            artifacts = _resolve(pin, context)
            say(f"{len(artifacts)} jars for {artifacts[0]}")
            lines = sorted(_lock_line(artifact) for artifact in artifacts)
        except (OSError, RuntimeError) as error:
            raise StackError(f"could not resolve {pin.artifact} ({_reason(error)}); check the network") from error
    pin.lock_file.write_text(_HEADER.format(pin.artifact, pin.series) + "".join(lines))


class Progress:
    """Counts what has arrived, and says so every other second once something must be downloaded."""

    def __init__(self, name: str, jars: list[Jar], say: Say, stopping: Event) -> None:
        self._name = name
        self._count, self._bytes = len(jars), sum(jar.size for jar in jars)
        self._say, self._stopping = say, stopping
        self._done_count = self._done_bytes = 0
        self._said_at = -_PROGRESS_SECONDS
        self._downloading = False
        self._lock = Lock()

    def starts(self) -> None:
        """To be called before each download; StackStopped when the stack is told to stop."""
        if self._stopping.is_set():
            raise StackStopped(f"stopped while downloading {self._name}")
        self._downloading = True

    def finished(self, jar: Jar) -> None:
        """Counts a jar that is in its place."""
        with self._lock:
            self._done_count += 1
            self._done_bytes += jar.size
            if self._downloading and time.monotonic() - self._said_at > _PROGRESS_SECONDS:
                self._said_at = time.monotonic()
                self._say(self._line())

    def _line(self) -> str:
        done, all_of_it = self._done_bytes / 1e6, self._bytes / 1e6
        return f"{self._name}: downloading, {self._done_count} of {self._count} jars, {done:.0f} of {all_of_it:.0f} MB"


def _download(jar: Jar, context: MavenContext) -> Path:
    try:
        path = Path(jar.artifact_in(context).resolve())
    except (OSError, RuntimeError) as error:
        raise StackError(
            f"could not download {jar.coordinates} ({_reason(error)}); check the network and start again"
        ) from error
    if not jar.is_at(path):
        raise StackError(
            f"{jar.coordinates} is not the pinned jar: its SHA-256 is {_sha256(path)}, the lock file has {jar.sha256}"
        )
    return path


def _share(downloaded: Path, shared: Path) -> None:
    """Leaves a copy in the Maven repository cache for other checkouts, where that can be written and has none."""
    try:
        if not shared.exists():
            shared.parent.mkdir(parents=True, exist_ok=True)
            _copy(downloaded, shared)
    except OSError:
        return


def _copy(source: Path, target: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as unfinished:
        shutil.copyfile(source, unfinished.name)
    Path(unfinished.name).chmod(0o644)
    Path(unfinished.name).replace(target)


def _resolve(pin: Pin, context: MavenContext) -> list[Artifact]:
    project = context.project(*pin.artifact.split(":"))
    project.update()
    version = max((c.version for c in project.versions() if c.version.startswith(pin.series)), key=_version_key)
    dependency = context.create_dependency(f"{pin.artifact}:{version}")
    _, transitive = context.resolver.resolve([dependency])
    found = [dependency.artifact, *(d.artifact for d in transitive if d.scope in ("compile", "runtime"))]
    # Kafka logs to SLF4J and brings Log4j, but only its release archive has the bridge between the two.
    log4j = [a for a in found if a.artifactId == "log4j-core"]
    bridges = [context.project(a.groupId, "log4j-slf4j-impl").at_version(a.version).artifact() for a in log4j]
    return [*found, *bridges]


def _version_key(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def _lock_line(artifact: Artifact) -> str:
    path = Path(artifact.resolve())
    coordinates = f"{artifact.groupId}:{artifact.artifactId}:{artifact.version}"
    return f"{coordinates} {path.stat().st_size} {_sha256(path)}\n"


def _reason(error: Exception) -> str:
    """The resolver raises what its HTTP client does, which are OSErrors, and RuntimeError for what is not there."""
    return type(error).__name__ if isinstance(error, OSError) else "not in the Maven repository"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Two starts in one checkout take turns."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
