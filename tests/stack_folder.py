"""Where a stack of the tests keeps its state."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def new_stack_folder() -> Path:
    """A new folder, to be removed by whoever asked for it.

    Not below pytest's own: each start of pytest closes that one to the user that PostgreSQL runs as.
    """
    return Path(tempfile.mkdtemp(prefix="nibble-"))


@contextmanager
def stack_folder() -> Iterator[Path]:
    """A new folder that is removed at the end, whatever is in it then."""
    folder = new_stack_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
