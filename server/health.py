"""A health probe, for containers and for the devstack: asks one API process over gRPC whether it is serving."""

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from server.tls import Peer

PROBE_TIMEOUT = 3.0


def is_serving(target: str, timeout: float = PROBE_TIMEOUT, peer: Peer | None = None) -> bool:
    """Whether the API at `target` (host:port) answers SERVING within `timeout` seconds; `peer` is for TLS."""
    with _channel(target, peer) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _channel(target: str, peer: Peer | None) -> grpc.Channel:
    # A proxy from the environment has no business on the way to it.
    options: list[tuple[str, int | str]] = [("grpc.enable_http_proxy", 0)]
    if peer is None:
        return grpc.insecure_channel(target, options)
    return grpc.secure_channel(target, peer.credentials, [*options, ("grpc.ssl_target_name_override", peer.name)])
