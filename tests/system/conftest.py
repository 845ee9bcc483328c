"""The stage that the tests of the whole system play on."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.doors import Door
from tests.system.stage import Stage, pytest_runtest_makereport, stage_of

__all__ = ["pytest_runtest_makereport"]


@pytest.fixture(scope="session")
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """The real system."""
    with stage_of(request.session) as stage:
        yield stage


@pytest.fixture(scope="session")
def rest(stage: Stage) -> Door:
    """JSON over HTTP, through the gateway."""
    return stage.rest


@pytest.fixture(scope="session")
def path_with_grpcurl(tmp_path_factory: pytest.TempPathFactory) -> str:
    """PATH with the real grpcurl where it is installed, else with one that asks the server's reflection likewise."""
    path = os.environ["PATH"]
    if shutil.which("grpcurl") is not None:
        return path
    folder = tmp_path_factory.mktemp("bin")
    script = folder / "grpcurl"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("grpcurl.py")} "$@"\n')
    script.chmod(0o755)
    return f"{folder}{os.pathsep}{path}"
