"""The gRPC server of one process: its services, health and reflection on one port."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from server.api.boundary import Boundary, Method, StreamMethod, decoder, refuse_unknown

# What the last answers get to reach their callers.
FLUSH_SECONDS = 0.3

Methods = Mapping[str, Method | StreamMethod]
"""The calls of a service by their names in the proto, which says which of them answer with a stream."""


class Service(NamedTuple):
    """A service of the protos, and what does its work."""

    descriptor: ServiceDescriptor
    methods: Methods


class Endpoint(NamedTuple):
    """Where a server listens and how large a request it takes, in bytes; without `credentials` it speaks no TLS.

    `most_waiting` calls may have come without being looked at so far. Of more than that gRPC itself refuses a growing
    share, of twice as many all: CANCELLED, without details, which costs next to nothing where a refusal with details
    would cost a third of a call.
    """

    host: str
    port: int
    max_request_bytes: int
    most_waiting: int
    credentials: grpc.ServerCredentials | None = None


class ApiServer:
    """A started or stopped gRPC server, and the health that it reports."""

    def __init__(self, services: Sequence[Service], boundary: Boundary, endpoint: Endpoint) -> None:
        """Binds the port.

        Raises:
            RuntimeError: the port is taken.
        """
        self._server = grpc.aio.server(options=_options(endpoint))
        self._health = health.aio.HealthServicer()
        self._boundary = boundary
        self._names = [service.descriptor.full_name for service in services]
        for service in services:
            self._server.add_generic_rpc_handlers((_handlers(service, boundary, endpoint.max_request_bytes),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection([*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server)
        self._server.add_generic_rpc_handlers((_UnknownMethods(),))
        address = f"{endpoint.host}:{endpoint.port}"
        if endpoint.credentials is None:
            self._server.add_insecure_port(address)
        else:
            self._server.add_secure_port(address, endpoint.credentials)

    async def start(self) -> None:
        """Start to answer; health stays NOT_SERVING until `report_health`."""
        await self.report_health(serving=False)
        await self._server.start()

    async def report_health(self, *, serving: bool) -> None:
        """Tell the health service's callers whether to send calls here."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *self._names):
            await self._health.set(name, status)

    async def stop(self, delay: float, grace: float) -> None:
        """Report NOT_SERVING, after `delay` seconds take no more calls, and give those in flight `grace` seconds.

        The delay is for gateways, which send calls until their next health check; those are answered as ever.

        It takes no longer than they do: somebody who watches the health service would hold gRPC's own stop to the end.
        """
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(delay)
        stopping = asyncio.create_task(self._server.stop(grace))
        await self._boundary.drain(max(0.0, grace - FLUSH_SECONDS))
        await self._server.stop(FLUSH_SECONDS)
        await stopping


def _options(endpoint: Endpoint) -> list[tuple[str, int]]:
    return [
        # gRPC's own refusal has no details; it is for what is too much even to be looked at.
        ("grpc.max_receive_message_length", 4 * endpoint.max_request_bytes),
        # The gateway takes 16 KiB of headers; above its soft limit gRPC refuses a growing share of calls at random.
        ("grpc.max_metadata_size", 32_768),
        ("grpc.absolute_max_metadata_size", 65_536),
        # Far more than any caller needs at once, and as much as many who only hold on to what they opened may have.
        ("grpc.max_concurrent_streams", 1_000),
        ("grpc.max_allowed_incoming_connections", 1_000),
        # One call is taken at each turn of the event loop. By default 1,000 wait, and are answered when it is too late.
        ("grpc.server.max_pending_requests", endpoint.most_waiting),
        ("grpc.server.max_pending_requests_hard_limit", 2 * endpoint.most_waiting),
        # Whoever opens a connection and does not go on with the handshake loses it; the default is two minutes.
        ("grpc.server_handshake_timeout_ms", 10_000),
        # Longer than the gateway keeps a connection without calls, so that it is the one that closes it.
        ("grpc.max_connection_idle_ms", 600_000),
        # A peer that is gone without a word is noticed.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Two processes on one port would share it unseen; a port that is taken is an error.
        ("grpc.so_reuseport", 0),
    ]


class _UnknownMethods(grpc.GenericRpcHandler):
    """Answers what no handler before it knows, in the form of every other error."""

    def service(self, _details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, Message]":
        return grpc.stream_unary_rpc_method_handler(refuse_unknown)


def _handlers(service: Service, boundary: Boundary, max_bytes: int) -> grpc.GenericRpcHandler:
    """A handler for every call of the proto; a call without a method is a KeyError at start."""
    handlers = {
        method.name: _handler(method, service.methods[method.name], boundary, max_bytes)
        for method in service.descriptor.methods
    }
    return grpc.method_handlers_generic_handler(service.descriptor.full_name, handlers)


def _handler(
    method: MethodDescriptor, work: Method | StreamMethod, boundary: Boundary, max_bytes: int
) -> "grpc.RpcMethodHandler[Any, Any]":
    """Takes a stream of requests and reads one.

    That is the same on the wire; but of a call with one request gRPC tells nobody before its request is there, and
    waits for ever where none is sent.
    """
    call = f"{method.containing_service.name}.{method.name}"
    decode = decoder(GetMessageClass(method.input_type), max_bytes)
    encode = GetMessageClass(method.output_type).SerializeToString
    if method.server_streaming:
        stream = boundary.wrap_stream(call, cast("StreamMethod", work))
        return grpc.stream_stream_rpc_method_handler(stream, decode, encode)
    return grpc.stream_unary_rpc_method_handler(boundary.wrap(call, cast("Method", work)), decode, encode)
