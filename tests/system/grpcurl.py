"""Calls a method as `grpcurl -plaintext -H 'name: value' target package.Service/Method` does, by reflection alone.

For machines without grpcurl, so that the printed command is run there too: no stub of the service is imported here.
"""

import argparse

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


def main() -> None:
    """Print the answer to an empty request as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-plaintext", action="store_true", required=True)
    parser.add_argument("-H", action="append", default=[])
    parser.add_argument("target")
    parser.add_argument("method")
    arguments = parser.parse_args()
    service, method = arguments.method.split("/")
    headers = tuple((name, value) for name, _, value in (header.partition(": ") for header in arguments.H))
    with grpc.insecure_channel(arguments.target) as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        descriptor = pool.FindServiceByName(service).FindMethodByName(method)
        call: grpc.UnaryUnaryMultiCallable[Message, Message] = channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=GetMessageClass(descriptor.output_type).FromString,
        )
        answer = call(GetMessageClass(descriptor.input_type)(), metadata=headers, timeout=10)
    print(MessageToJson(answer, preserving_proto_field_name=True, descriptor_pool=pool))


if __name__ == "__main__":
    main()
