"""The package that pyproject.toml builds: what it holds, and that it runs away from the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without the network from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*command, str(ROOT)], check=True, timeout=100)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_service_its_migrations_the_stubs_and_the_statements_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"server", "nibble", "nibble_sql"}
    assert "server/db/migrations/versions/0001_tickets.py" in names
    assert "nibble_sql/support.py" in names
    stubs = {name.removeprefix("nibble/support/v1/") for name in names if name.startswith("nibble/support/v1/")}
    assert {"ticket_pb2.py", "ticket_pb2.pyi", "ticket_service_pb2_grpc.py", "error_reason_pb2.py"} <= stubs


def test_the_installed_service_starts_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    probe = "import server.app, server.api.server, server.workers.relay; print(server.app.__file__)"
    ran = subprocess.run(
        [sys.executable, "-c", probe],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ran.stdout.strip() == str(tmp_path / "server" / "app" / "__init__.py")
