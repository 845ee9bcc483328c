"""Finds the processes of a stack whatever became of the supervisor that started them."""

import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

_RUN_DIR = "NIBBLE_DEVSTACK_RUN_DIR"
_PART = "NIBBLE_DEVSTACK_PART"


def mark(run_dir: Path, part: str) -> Mapping[str, str]:
    """The environment by which a process, and all that it starts, is found again."""
    return {_RUN_DIR: str(run_dir), _PART: part}


def processes_of(run_dir: Path, part: str | None = None) -> list[psutil.Process]:
    """The living processes of the stack in `run_dir`, or of one of its parts."""
    return [process for process in psutil.process_iter() if part in _parts(process, run_dir)]


def end(processes: list[psutil.Process], grace: float) -> None:
    """Asks the processes to end (PostgreSQL: by fast shutdown), and kills those that live on after `grace` seconds."""
    if grace > 0:
        for process in processes:
            _signal(process, signal.SIGINT if _name(process) == "postgres" else signal.SIGTERM)
    alive = _alive_after(grace, processes)
    for process in alive:
        _signal(process, signal.SIGKILL)
    _alive_after(2, alive)


def _parts(process: psutil.Process, run_dir: Path) -> Iterator[str | None]:
    """None and the part's name when the process belongs to the stack, else nothing."""
    try:
        env = process.environ()
        if env.get(_RUN_DIR) == str(run_dir):
            yield from (None, env.get(_PART))
        # PostgreSQL writes its titles over the environment, but stays in its data folder.
        elif process.name() == "postgres" and Path(process.cwd()) == run_dir / "postgres" / "data":
            yield from (None, "postgres")
    except (psutil.Error, OSError):
        return


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.Error:
        return


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return ""


def _alive_after(seconds: float, processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that are still alive after that time; waits no longer than there are any."""
    deadline = time.monotonic() + seconds
    while alive := [process for process in processes if _is_alive(process)]:
        if time.monotonic() >= deadline:
            break
        time.sleep(0.02)
    return alive


def _is_alive(process: psutil.Process) -> bool:
    """A zombie is dead: where nobody collects orphans, as in many containers, it stays one for ever."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
