"""A health probe, for containers and for the devstack: asks one API process over gRPC whether it is serving."""

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

PROBE_TIMEOUT = 3.0


def is_serving(target: str, timeout: float = PROBE_TIMEOUT) -> bool:
    """Whether the API at `target` (host:port) answers SERVING within `timeout` seconds."""
    # A proxy from the environment has no business on the way to it.
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
