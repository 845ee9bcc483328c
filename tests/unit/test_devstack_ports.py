"""Which ports a stack takes, and how it says that it cannot have them."""

import socket
import subprocess
import sys
from contextlib import closing

import pytest

from devstack.errors import StackError
from devstack.part import CHECKOUT
from devstack.ports import MEASURED_AFTER_THE_API, Ports, free_port

PARTS = ("postgres", "kafka", "migrate", "api", *MEASURED_AFTER_THE_API, "gateway")


def test_unset_and_empty_settings_mean_the_usual_ports() -> None:
    assert Ports.from_env({"KAFKA_PORT": ""}) == Ports(gateway=8080, grpc=50051, kafka=9092, metrics=9464)


def test_each_setting_moves_its_own_port() -> None:
    env = {"GATEWAY_PORT": "1", "GRPC_PORT": "2", "KAFKA_PORT": "3", "METRICS_PORT": "65535"}
    assert Ports.from_env(env) == Ports(gateway=1, grpc=2, kafka=3, metrics=65535)


@pytest.mark.parametrize("text", ["0", "65536", "-1", "http", "80.0", " "])
def test_what_is_no_port_number_is_refused_by_name(text: str) -> None:
    with pytest.raises(StackError, match=r"^GRPC_PORT is"):
        Ports.from_env({"GRPC_PORT": text})


def test_every_worker_has_its_ports_and_the_other_parts_follow() -> None:
    claims = dict(Ports().claims(2, PARTS))
    assert claims == {
        "GATEWAY_PORT": 8080,
        "KAFKA_PORT": 9092,
        "GRPC_PORT": 50051,
        "GRPC_PORT + 1": 50052,
        "GRPC_PORT + 2": Ports().grpc_of("notification-api", 2),
        "GRPC_PORT + 3": Ports().grpc_of("analytics-api", 2),
        "METRICS_PORT": 9464,
        "METRICS_PORT + 1": 9465,
        "METRICS_PORT + 2": Ports().metrics_of("relay", 2),
        "METRICS_PORT + 3": Ports().metrics_of("notifier", 2),
        "METRICS_PORT + 4": Ports().metrics_of("notification-api", 2),
        "METRICS_PORT + 5": Ports().metrics_of("analyst", 2),
        "METRICS_PORT + 6": Ports().metrics_of("analytics-api", 2),
        "METRICS_PORT + 7": Ports().metrics_of("sweeper", 2),
    }
    assert claims["GRPC_PORT + 3"] == 50054
    assert claims["METRICS_PORT + 7"] == 9471


def test_a_part_keeps_its_ports_when_others_are_left_out() -> None:
    claims = dict(Ports().claims(1, ["api", "analytics-api"]))
    assert claims == {"GRPC_PORT": 50051, "GRPC_PORT + 2": 50053, "METRICS_PORT": 9464, "METRICS_PORT + 5": 9469}


def test_the_readme_s_second_checkout_takes_no_port_of_the_first() -> None:
    second = {"GATEWAY_PORT": "8081", "GRPC_PORT": "50061", "KAFKA_PORT": "9093", "METRICS_PORT": "9474"}
    first = {port for _, port in Ports.from_env({}).claims(4, PARTS)}
    assert first.isdisjoint(port for _, port in Ports.from_env(second).claims(4, PARTS))


def test_a_part_that_is_left_out_claims_no_port() -> None:
    assert dict(Ports().claims(1, ["postgres", "kafka"])) == {"KAFKA_PORT": 9092}


def test_a_port_that_two_settings_name_is_refused() -> None:
    with pytest.raises(StackError, match=r"port 9465 is both GRPC_PORT and METRICS_PORT \+ 1; set one"):
        Ports(grpc=9464 + 1).check(1, ["relay", "api"])


def test_a_port_with_a_listener_is_refused_by_number_and_setting() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(StackError) as refusal:
            Ports(kafka=port).check(1, ["kafka"])
    assert str(refusal.value) == f"port {port} (KAFKA_PORT) is in use; set KAFKA_PORT to another"
    Ports(kafka=port).check(1, ["kafka"])


def test_free_ports_do_not_overlap() -> None:
    Ports.free(workers=8).check(8, PARTS)


def test_no_port_is_handed_out_twice() -> None:
    blocks = [Ports.free(workers=2) for _ in range(50)]
    ports = [port for block in blocks for _, port in block.claims(2, PARTS)] + [free_port() for _ in range(200)]
    assert len(ports) == len(set(ports))


def test_what_one_process_was_given_no_other_gets_before_it_ends() -> None:
    # A choice of few, so that two that do not know of each other would meet.
    draw = "from devstack import ports; ports._CHOICE = range(31_000, 31_040); print(ports.free_port(), flush=True)"
    ask = f"{draw}; [print(ports.free_port(), flush=True) for _ in range(7)]; input()"
    command = [sys.executable, "-c", ask]
    with (
        subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as one,
        subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other,
    ):
        given = [str(process.stdout and process.stdout.readline()) for process in (one, other) for _ in range(8)]
        for process in (one, other):
            process.communicate("\n")
    assert len(set(given)) == 16, given
