"""A gateway that is short of connections or memory: it says so, lives on, and serves again."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import httpx
import pytest

from devstack.ports import LOOPBACK
from tests.system.doors import OK, RESOURCE_EXHAUSTED, Answer, Caller, Door, Grpc, Rest
from tests.system.side_gateway import Node, side_gateway
from tests.system.stage import Stage
from tests.system.vocabulary import as_customer, eventually

MOST_CONNECTIONS = 6
FIXED_HEAP, INJECTED = "envoy.resource_monitors.fixed_heap", "envoy.resource_monitors.injected_resource"


# --- connections ---


def few_connections(config: Node) -> None:
    (monitor,) = (it for it in config["overload_manager"]["resource_monitors"] if "max_connections" in it["name"])
    monitor["typed_config"]["max_active_downstream_connections"] = MOST_CONNECTIONS


def few_connections_however_idle(config: Node) -> None:
    few_connections(config)
    manager = config["overload_manager"]
    manager["actions"] = [action for action in manager["actions"] if "reduce_timeouts" not in action["name"]]


def is_answered(connection: socket.socket) -> bool:
    try:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: gateway\r\n\r\n")
        return connection.recv(4096).startswith(b"HTTP/1.1 200")
    except ConnectionError:
        return False


def test_connections_beyond_the_limit_are_closed_and_the_others_served(stage: Stage, tmp_path: Path) -> None:
    with side_gateway(stage, tmp_path, few_connections_however_idle) as port, ExitStack() as open_ones:
        served: list[socket.socket] = []
        # A connection that has just been closed is counted for a moment.
        eventually(lambda: len(served) == MOST_CONNECTIONS or keep_one_more(port, served, open_ones))

        assert not any(one_more_is_answered(port) for _ in range(10))
        assert all(is_answered(connection) for connection in served)

        open_ones.close()
        eventually(lambda: one_more_is_answered(port))


def test_where_connections_run_short_idle_ones_make_room(stage: Stage, tmp_path: Path) -> None:
    with side_gateway(stage, tmp_path, few_connections) as port, ExitStack() as open_ones:
        served: list[socket.socket] = []
        eventually(lambda: len(served) == MOST_CONNECTIONS or keep_one_more(port, served, open_ones))
        eventually(lambda: one_more_is_answered(port), 20)


def keep_one_more(port: int, served: list[socket.socket], open_ones: ExitStack) -> bool:
    """Opens a connection and keeps it among the served ones if it is one; never done, so that it is called again."""
    connection = open_ones.enter_context(closing(socket.create_connection((LOOPBACK, port), timeout=10)))
    if is_answered(connection):
        served.append(connection)
    return False


def one_more_is_answered(port: int) -> bool:
    with closing(socket.create_connection((LOOPBACK, port), timeout=10)) as connection:
        return is_answered(connection)


# --- memory ---


class Pressure:
    """What an Envoy takes for its memory in use, as a share of what it may use."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "pressure"
        self.set_to(0.1)

    def set_to(self, share: float) -> None:
        """Replaces the file, which is what the monitor watches for."""
        draft = self.file.with_suffix(".draft")
        draft.write_text(str(share))
        draft.rename(self.file)

    def takes_the_place_of_memory(self, config: Node) -> None:
        """A change for side_gateway: every action on memory acts on this instead."""
        manager = config["overload_manager"]
        kind = "type.googleapis.com/envoy.extensions.resource_monitors.injected_resource.v3.InjectedResourceConfig"
        monitor = {"name": INJECTED, "typed_config": {"@type": kind, "filename": os.fspath(self.file)}}
        manager["resource_monitors"].append(monitor)
        for trigger in (trigger for action in manager["actions"] for trigger in action["triggers"]):
            trigger["name"] = INJECTED if trigger["name"] == FIXED_HEAP else trigger["name"]


@pytest.fixture
def pressure(tmp_path: Path) -> Pressure:
    (tmp_path / "pressed").mkdir()
    return Pressure(tmp_path / "pressed")


@pytest.fixture
def pressed_port(stage: Stage, tmp_path: Path, pressure: Pressure) -> Iterator[int]:
    with side_gateway(stage, tmp_path, pressure.takes_the_place_of_memory) as port:
        yield port


def test_short_of_memory_it_answers_as_it_answers_any_overload(
    stage: Stage, pressure: Pressure, pressed_port: int
) -> None:
    caller = as_customer()
    rest, grpc = (
        Rest(f"http://{LOOPBACK}:{pressed_port}", stage.mint),
        Grpc("gRPC", f"{LOOPBACK}:{pressed_port}", stage.mint),
    )
    with closing(rest), closing(grpc):
        assert [door.call("ListMyTickets", caller).code for door in (rest, grpc)] == [OK, OK]

        pressure.set_to(0.96)
        for door in (rest, grpc):
            answer = eventually(partial(refusal_of, door, caller))
            assert (answer.code, answer.reason, answer.retry_delay) == (RESOURCE_EXHAUSTED, "OVERLOADED", "1s")
        assert rest.http.get("/api/v1/tickets/my").headers["retry-after"] == "1"

        pressure.set_to(0.1)
        eventually(lambda: all(door.call("ListMyTickets", caller).code == OK for door in (rest, grpc)))


def refusal_of(door: Door, caller: Caller) -> Answer | None:
    answer = door.call("ListMyTickets", caller)
    return answer if answer.code != OK else None


def test_at_the_end_of_its_memory_it_takes_no_connection_and_lives_on(pressure: Pressure, pressed_port: int) -> None:
    pressure.set_to(0.99)
    eventually(lambda: not is_served(pressed_port))
    pressure.set_to(0.1)
    eventually(lambda: is_served(pressed_port))


def is_served(port: int) -> bool:
    try:
        return httpx.get(f"http://{LOOPBACK}:{port}/healthz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
