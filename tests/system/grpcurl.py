"""Calls a method as `grpcurl -plaintext -H 'name: value' target package.Service/Method` does, by reflection alone.

Instead of -plaintext it takes -cacert, -cert and -key, with a file each.

For machines without grpcurl, so that the printed command is run there too: no stub of the service is imported here.
"""

import argparse
from pathlib import Path

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


def main() -> None:
    """Print the answer to an empty request as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-plaintext", action="store_true")
    for name in ("-cacert", "-cert", "-key"):
        parser.add_argument(name, type=Path)
    parser.add_argument("-H", action="append", default=[])
    parser.add_argument("target")
    parser.add_argument("method")
    arguments = parser.parse_args()
    service, method = arguments.method.split("/")
    headers = tuple((name, value) for name, _, value in (header.partition(": ") for header in arguments.H))
    with _channel(arguments) as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        descriptor = pool.FindServiceByName(service).FindMethodByName(method)
        call: grpc.UnaryUnaryMultiCallable[Message, Message] = channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=GetMessageClass(descriptor.output_type).FromString,
        )
        answer = call(GetMessageClass(descriptor.input_type)(), metadata=headers, timeout=10)
    print(MessageToJson(answer, preserving_proto_field_name=True, descriptor_pool=pool))


def _channel(arguments: argparse.Namespace) -> grpc.Channel:
    if arguments.plaintext:
        return grpc.insecure_channel(arguments.target)
    ca, key, cert = (path and path.read_bytes() for path in (arguments.cacert, arguments.key, arguments.cert))
    return grpc.secure_channel(arguments.target, grpc.ssl_channel_credentials(ca, key, cert))


if __name__ == "__main__":
    main()
