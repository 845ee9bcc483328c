"""What a worker offers on its own port beside the calls: health and reflection, without a token."""

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from devstack.service import is_serving
from tests.system.stage import Stage

SERVICES = {"nibble.support.v1.TicketService", "nibble.support.v1.CommentService"}


def test_health_names_each_service_as_serving(stage: Stage) -> None:
    health = health_pb2_grpc.HealthStub(stage.own_port.channel)
    for service in ("", *SERVICES):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_every_worker_is_healthy_on_a_port_of_its_own(stage: Stage) -> None:
    assert len(set(stage.stack.grpc_targets)) == stage.stack.workers
    assert all(is_serving(stage.stack.ports.grpc + number) for number in range(stage.stack.workers))


def test_reflection_tells_a_caller_all_it_needs_to_make_a_request(stage: Stage) -> None:
    database = ProtoReflectionDescriptorDatabase(stage.own_port.channel)
    assert set(database.get_services()) >= SERVICES

    service = DescriptorPool(database).FindServiceByName("nibble.support.v1.TicketService")
    request = GetMessageClass(service.methods_by_name["CreateTicket"].input_type)(
        subject="Cold soup", priority="urgent"
    )
    assert request.SerializeToString()
