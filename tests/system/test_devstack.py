"""The devstack as a person at a terminal meets it: started, hurt, stopped and started again."""

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import psutil
import psycopg
import pytest
from kafka import KafkaAdminClient

from devstack import orphans, watch
from devstack.errors import StackError
from devstack.part import CHECKOUT, Part, Program
from devstack.ports import Ports
from devstack.stack import PARTS, Stack
from tests.stack_folder import stack_folder

SUPERVISED = tuple(part for part in PARTS if part != "migrate")
WORKERS = 2
SLOWLY = 60
"""Seconds that anything may take on a machine that is busy with other things; no test waits longer than it must."""


class Terminal:
    """`python -m devstack run` with its output in a file."""

    def __init__(self, run_dir: Path, ports: Ports) -> None:
        self.run_dir = run_dir
        self.ports = ports
        self.env = {
            **os.environ,
            "RUN_DIR": str(run_dir),
            "GATEWAY_PORT": str(ports.gateway),
            "GRPC_PORT": str(ports.grpc),
            "KAFKA_PORT": str(ports.kafka),
            "METRICS_PORT": str(ports.metrics),
        }
        self._log = run_dir.parent / f"{run_dir.name}.out"
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Starts the supervisor."""
        with self._log.open("wb") as out:
            self._process = self._devstack("run", "--workers", str(WORKERS), stdout=out, stderr=subprocess.STDOUT)

    def run(self) -> None:
        """Starts the stack and returns when it says that it is up."""
        self.begin()
        wait_for(lambda: "Ctrl-C stops everything." in self.output or self.has_ended(), SLOWLY)
        assert not self.has_ended(), self.output

    def refused(self) -> str:
        """What a `run` that must fail says."""
        process = self._devstack("run", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        output, _ = process.communicate(timeout=SLOWLY)
        assert process.returncode == 1, output
        return str(output)

    def token(self) -> str:
        """What `token` prints for a customer."""
        with self._devstack("token", "--role=customer", stdout=subprocess.PIPE, text=True) as process:
            return str(process.communicate(timeout=SLOWLY)[0]).strip()

    def signal(self, number: signal.Signals) -> int:
        """Signals the supervisor alone; its exit status."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(SLOWLY)

    def end(self) -> None:
        """Leaves nothing running, whatever state a test left the stack in."""
        if not self.has_ended():
            self.signal(signal.SIGTERM)
        orphans.end(orphans.processes_of(self.run_dir), grace=0)

    def has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def head_of(self, part: str) -> int:
        """The process id of the part's own process, which the supervisor started."""
        assert self._process is not None
        started = {child.pid for child in psutil.Process(self._process.pid).children()}
        (head,) = started & {process.pid for process in orphans.processes_of(self.run_dir, part)}
        return head

    def has_said(self, words: str) -> bool:
        return words in self.output

    def printed(self, tool: str) -> str:
        """The command with that tool that the stack printed for pasting."""
        return next(line.strip() for line in self.output.splitlines() if line.strip().startswith(f"{tool} "))

    def request(self, method: str, path: str, token: str, body: object = None) -> tuple[int, dict[str, object]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.ports.gateway, timeout=15)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, json.dumps(body) if body else None, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    @property
    def output(self) -> str:
        return self._log.read_text()

    def _devstack(self, *arguments: str, **streams: Any) -> subprocess.Popen[Any]:  # noqa: ANN401 - Popen's own
        return subprocess.Popen([sys.executable, "-m", "devstack", *arguments], cwd=CHECKOUT, env=self.env, **streams)


def finds_nothing_to_do(guard: watch.Watch) -> bool:
    guard.look()
    return False


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


def open_ticket(terminal: Terminal, token: str) -> str:
    body = {"subject": "Cold soup", "description": "It was hot when it left."}
    status, ticket = terminal.request("POST", "/api/v1/tickets", token, body)
    assert status == 200, ticket
    return str(ticket["id"])


@pytest.fixture(scope="module")
def terminal() -> Iterator[Terminal]:
    with stack_folder() as folder:
        # Longer than the path of a Unix socket may be.
        run_dir = folder / ("long-" * 20)
        started = Terminal(run_dir, Ports.free(WORKERS))
        try:
            started.run()
            yield started
        finally:
            started.end()
            shutil.rmtree(Stack(run_dir, started.ports).postgres.socket_dir, ignore_errors=True)


@pytest.mark.parametrize(("tool", "answer"), [("curl", '"status":"open"'), ("grpcurl", '"status": "open"')])
def test_the_printed_commands_work_when_pasted(
    terminal: Terminal, path_with_grpcurl: str, tool: str, answer: str
) -> None:
    pasted = subprocess.run(
        ["bash", "-c", terminal.printed(tool)],
        cwd=CHECKOUT,
        env={**os.environ, "PATH": path_with_grpcurl},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert answer in pasted.stdout, pasted


def test_the_printed_consumer_shows_the_events_from_the_first_one_on(terminal: Terminal) -> None:
    ticket_id = open_ticket(terminal, terminal.token())
    consumer = subprocess.Popen(
        ["bash", "-c", f"exec {terminal.printed(f'{Path(sys.executable).parent}/kafka-python')}"],
        cwd=CHECKOUT,
        # A line at a time, as at a terminal.
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    # Its output ends when it is killed: a consumer that shows nothing fails here instead of waiting for ever.
    watchdog = threading.Timer(30, consumer.kill)
    watchdog.start()
    assert consumer.stdout is not None
    event = next((json.loads(line) for line in consumer.stdout if ticket_id in line), None)
    watchdog.cancel()
    consumer.kill()
    consumer.communicate()
    assert event is not None
    assert (event["event_type"], event["sequence"]) == ("ticket_created", 1)


@pytest.mark.parametrize(("act", "answer"), [("dead-letters", "no dead letters pending"), ("dead-emails", "no e-mail")])
def test_the_printed_command_of_operators_works_when_pasted(terminal: Terminal, act: str, answer: str) -> None:
    printed = next(line for line in terminal.output.splitlines() if line.startswith("Operators "))
    command = printed.removeprefix("Operators ").partition("   ")[0].replace("dead-letters", act)
    pasted = subprocess.run(
        ["bash", "-c", command], cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False
    )
    assert pasted.stdout.startswith(answer), pasted


def test_a_second_run_in_the_same_folder_is_refused_by_one_line(terminal: Terminal) -> None:
    refusal = r"error: a stack runs in \S+ already \(process \d+\); [^\n]*RUN_DIR[^\n]*\n"
    assert re.fullmatch(refusal, terminal.refused())


def test_a_port_in_use_is_named_before_anything_starts(terminal: Terminal, tmp_path: Path) -> None:
    other = Terminal(tmp_path / "run", terminal.ports)
    port = terminal.ports.gateway
    assert other.refused() == f"error: port {port} (GATEWAY_PORT) is in use; set GATEWAY_PORT to another\n"
    assert not (tmp_path / "run" / "postgres").exists()


@pytest.fixture
def folder() -> Iterator[Path]:
    with stack_folder() as folder:
        yield folder


def test_two_stacks_run_side_by_side(terminal: Terminal, folder: Path) -> None:
    with Stack(folder, Ports.free(), parts=["postgres", "kafka"], durable=False) as other:
        with psycopg.connect(other.dsn) as connection:
            assert connection.execute("SELECT to_regnamespace('admin_service')").fetchone() == (None,)
        for bootstrap in (other.kafka_bootstrap, f"127.0.0.1:{terminal.ports.kafka}"):
            admin = KafkaAdminClient(bootstrap_servers=bootstrap)
            (topic,) = admin.describe_topics(["support.ticket-events.v1"])
            assert len(topic["partitions"]) == 12
            admin.close()
        postgres = other.part("postgres")
        postgres.kill()
        assert not postgres.is_alive()
        postgres.restart()
        psycopg.connect(other.dsn).close()
    assert not orphans.processes_of(folder)


def test_whatever_is_killed_is_named_and_comes_back(terminal: Terminal) -> None:
    token = terminal.token()
    ticket = open_ticket(terminal, token)
    dead = {part: terminal.head_of(part) for part in SUPERVISED}
    for pid in dead.values():
        os.kill(pid, signal.SIGKILL)
    for part in SUPERVISED:
        wait_for(partial(terminal.has_said, f"{part} is ready again"), SLOWLY)
        assert f"{part} was killed by SIGKILL; its log is {terminal.run_dir / 'logs' / part}.log" in terminal.output
        assert terminal.head_of(part) != dead[part]
    assert terminal.request("GET", f"/api/v1/tickets/{ticket}", token)[0] == 200
    open_ticket(terminal, token)


def test_no_process_outlives_a_killed_supervisor_and_the_next_run_goes_on_with_the_data(terminal: Terminal) -> None:
    token = terminal.token()
    ticket = open_ticket(terminal, token)
    terminal.signal(signal.SIGKILL)
    wait_for(lambda: not orphans.processes_of(terminal.run_dir), SLOWLY)
    terminal.run()
    assert terminal.request("GET", f"/api/v1/tickets/{ticket}", token)[0] == 200


POSTGRES_ALONE = """
import sys
from pathlib import Path
from devstack.ports import Ports
from devstack.stack import Stack
stack = Stack(Path(sys.argv[1]), Ports.free(), parts={"postgres"})
stack.start()
print(stack.part("postgres").pid, flush=True)
sys.stdin.read()
"""


def test_leftovers_that_did_not_notice_are_ended_by_the_next_start(folder: Path) -> None:
    command, said = [sys.executable, "-c", POSTGRES_ALONE, str(folder)], list[str]()
    with subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        postgres = psutil.Process(int(first.stdout.readline()))
        # Stopped processes cannot act on the death of the supervisor.
        postgres.suspend()
        first.kill()
    stack = Stack(folder, Ports.free(), parts={"postgres"})
    stack.start(said.append)
    alive = {process.pid for process in orphans.processes_of(folder)}
    stack.stop()
    assert any("of an earlier start that was killed" in line for line in said), said
    assert alive
    assert postgres.pid not in alive


def test_ctrl_c_ends_everything(terminal: Terminal) -> None:
    assert terminal.signal(signal.SIGINT) == 0
    assert not orphans.processes_of(terminal.run_dir)
    terminal.ports.check(WORKERS, SUPERVISED)
    assert "did not stop in time" not in terminal.output


def test_sigterm_ends_a_start_that_is_under_way(terminal: Terminal) -> None:
    terminal.begin()
    wait_for(lambda: "postgres is ready" in terminal.output, SLOWLY)
    assert terminal.signal(signal.SIGTERM) == 0
    assert not orphans.processes_of(terminal.run_dir)


def test_a_part_that_keeps_dying_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "FIRST_PAUSE_SECONDS", 0.01)
    (tmp_path / "logs").mkdir()
    said: list[str] = []
    with ThreadPoolExecutor(1) as forks, ThreadPoolExecutor(1) as pool:
        program = Program("fickle", ["/bin/sh", "-c", "echo so be it; exit 3"], is_ready=lambda: False)
        part = Part(program, tmp_path, forks, Event())
        with pytest.raises(StackError, match="fickle ended with exit code 3"):
            part.start()
        guard = watch.Watch(part, pool, Event(), said.append)
        with pytest.raises(StackError, match=r"fickle died 5 times within 60 s"):
            wait_for(partial(finds_nothing_to_do, guard), SLOWLY)
    assert len(said) == 5
    assert said[-1] == f"fickle ended with exit code 3; its log is {part.log_path}\n    so be it"
