"""Finds the processes of a stack whatever became of the supervisor that started them."""

import signal
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
    for process in processes:
        _signal(process, kill=grace <= 0)
    _, alive = psutil.wait_procs(processes, timeout=max(grace, 2))
    for process in alive:
        _signal(process, kill=True)
    psutil.wait_procs(alive, timeout=2)


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


def _signal(process: psutil.Process, *, kill: bool) -> None:
    try:
        if kill:
            process.kill()
        elif process.name() == "postgres":
            process.send_signal(signal.SIGINT)
        else:
            process.terminate()
    except psutil.Error:
        return
