"""What the gateway hands on of what a caller sends: seen by a stand-in for a worker that writes down what it gets."""

from collections.abc import Iterator
from concurrent import futures
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from devstack.ports import LOOPBACK
from tests.system.doors import OK, Grpc, Rest
from tests.system.side_gateway import Node, side_gateway
from tests.system.stage import Stage
from tests.system.vocabulary import as_customer, as_supervisor, new_id


class Scribe(grpc.GenericRpcHandler):
    """Answers every call with an empty message, and keeps the metadata."""

    def __init__(self) -> None:
        self.metadata: list[dict[str, Any]] = []

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        """See grpc.GenericRpcHandler."""
        if "health" in str(handler_call_details.method):
            return None
        self.metadata.append({str(name): value for name, value in handler_call_details.invocation_metadata})
        return grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"")


@contextmanager
def stand_in(scribe: Scribe) -> Iterator[int]:
    """The port of a server that passes the gateway's health check and leaves the rest to the scribe."""
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[scribe])
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"{LOOPBACK}:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait()


@pytest.fixture(scope="module")
def scribe() -> Scribe:
    return Scribe()


@pytest.fixture(scope="module")
def gateway(stage: Stage, scribe: Scribe, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of a gateway before the stand-in."""
    folder: Path = tmp_path_factory.mktemp("scribe")
    with stand_in(scribe) as worker:

        def lead_to_the_stand_in(config: Node) -> None:
            (cluster,) = (it for it in config["static_resources"]["clusters"] if it["name"] == "api")
            (locality,) = cluster["load_assignment"]["endpoints"]
            del locality["lb_endpoints"][1:]
            locality["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["port_value"] = worker

        with side_gateway(stage, folder, lead_to_the_stand_in) as port:
            yield f"{LOOPBACK}:{port}"


DISTRUSTED = {
    "my_key": "1",
    "idempotency_key": "1",
    "x-user-id": new_id(),
    "x-user-role": "support_supervisor",
    "x-role": "support_supervisor",
    "x-envoy-retry-on": "5xx",
    "x-envoy-upstream-rq-timeout-ms": "1",
    "cookie": "a=b",
}


def sent_over_rest(stage: Stage, gateway: str, headers: dict[str, str]) -> None:
    rest = Rest(f"http://{gateway}", stage.mint)
    with closing(rest):
        assert rest.call_with("ListMyTickets", headers).code == OK


def sent_over_grpc(stage: Stage, gateway: str, headers: dict[str, str]) -> None:
    door = Grpc("gRPC", gateway, stage.mint)
    with closing(door):
        assert door.call_with("ListMyTickets", headers).code == OK


@pytest.mark.parametrize("send", [sent_over_rest, sent_over_grpc])
def test_what_is_not_believed_is_not_handed_on(stage: Stage, scribe: Scribe, gateway: str, send: Any) -> None:  # noqa: ANN401
    token = f"Bearer {stage.mint(as_customer())}"
    send(stage, gateway, {"authorization": token, "idempotency-key": "k", **DISTRUSTED})

    got = scribe.metadata[-1]
    assert not got.keys() & DISTRUSTED.keys()
    assert (got["authorization"], got["idempotency-key"]) == (token, "k")


@pytest.mark.parametrize("send", [sent_over_rest, sent_over_grpc])
def test_every_call_gets_a_request_id_that_the_caller_did_not_choose(
    stage: Stage,
    scribe: Scribe,
    gateway: str,
    send: Any,  # noqa: ANN401
) -> None:
    chosen = new_id()
    send(stage, gateway, {"authorization": f"Bearer {stage.mint(as_customer())}", "x-request-id": chosen})
    assert scribe.metadata[-1]["x-request-id"] != chosen


def test_a_caller_over_rest_cannot_steer_grpc(stage: Stage, scribe: Scribe, gateway: str) -> None:
    headers = {"grpc-timeout": "1n", "grpc-encoding": "gzip", "trace-bin": "not base64!"}
    sent_over_rest(stage, gateway, {"authorization": f"Bearer {stage.mint(as_supervisor())}", **headers})

    got = scribe.metadata[-1]
    assert "trace-bin" not in got
    assert "grpc-encoding" not in got
