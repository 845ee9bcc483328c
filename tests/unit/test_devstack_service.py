"""How the devstack runs each role of the service: with which environment, after what, and on which ports."""

import stat
import subprocess
from pathlib import Path

import pytest

from devstack import service
from devstack.part import Program
from devstack.ports import BEHIND_THE_API, MEASURED_AFTER_THE_API, Ports
from devstack.stack import PARTS
from server.settings import BY_HAND, Role

WORKERS = 2
ENV = {"GRPC_PORT": "50051", "METRICS_PORT": "9464", "API_WORKERS": "2", "SMTP_HOST": "127.0.0.1"}
PROGRAMS = {program.name: program for program in service.programs(ENV, Ports(), WORKERS)}


def offset(program: Program, setting: str) -> int:
    """How far a program's port is from the stack's first of that kind."""
    return int(program.env[setting]) - int(ENV[setting])


def test_every_role_is_a_part_that_is_run_by_its_own_command() -> None:
    assert PROGRAMS.keys() == {role.value for role in Role if role not in BY_HAND}
    assert all(program.command[3] == name for name, program in PROGRAMS.items())


def test_every_role_is_a_part_of_the_stack() -> None:
    assert PROGRAMS.keys() <= set(PARTS)


def test_no_two_roles_share_a_port() -> None:
    beside = [PROGRAMS[name] for name in BEHIND_THE_API]
    assert [offset(program, "GRPC_PORT") for program in beside] == [WORKERS, WORKERS + 1]
    assert all(program.env["API_WORKERS"] == "1" for program in beside)
    measured = [PROGRAMS[name] for name in MEASURED_AFTER_THE_API]
    assert [offset(program, "METRICS_PORT") for program in measured] == list(range(WORKERS, WORKERS + len(measured)))


@pytest.mark.parametrize("name", ["relay", "notifier", "analyst"])
def test_who_lives_on_events_waits_for_kafka_and_for_no_stand_in(name: str) -> None:
    assert PROGRAMS[name].needs == ["migrate", "kafka"]


def test_the_sweeper_waits_for_the_tables_alone() -> None:
    assert PROGRAMS["sweeper"].needs == ["migrate"]


def test_whoever_has_work_to_finish_is_stopped_before_what_it_stands_on() -> None:
    assert {name for name, program in PROGRAMS.items() if not program.drains} == {"migrate"}


def test_the_operators_command_has_the_settings_of_the_stack_wherever_it_is_called(tmp_path: Path) -> None:
    command = tmp_path / "server"
    env = {"PYTHONPATH": service.python_path(None), "DATABASE_URL": "no'thing $(at) all"}
    service.write_command(command, env)
    called = subprocess.run(
        [command, "dead-emails", "list"], cwd=tmp_path, env={}, capture_output=True, text=True, check=False
    )
    assert (called.returncode, called.stderr) == (
        2,
        "server dead-emails: DATABASE_URL must be a PostgreSQL URL or connection string\n",
    )
    # It holds secrets.
    assert stat.S_IMODE(command.stat().st_mode) == 0o700
