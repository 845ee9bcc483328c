"""A service error as the status that gRPC callers see, with `google.rpc` details (contract, section 6)."""

import math

import grpc
from google.protobuf import any_pb2, duration_pb2, message
from google.rpc import error_details_pb2, status_pb2

from server.errors import ServiceError

DOMAIN = "support.nibble"
DETAILS_KEY = "grpc-status-details-bin"
RETRY_KEY = "retry-after"

CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def details_of(error: ServiceError) -> list[message.Message]:
    """ErrorInfo always; BadRequest with the bad fields; RetryInfo where waiting helps."""
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.facts)
    details: list[message.Message] = [info]
    if error.violations:
        violations = [{"field": v.field, "description": v.description} for v in error.violations]
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    if error.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return details


def trailing_metadata(error: ServiceError) -> tuple[tuple[str, str | bytes], ...]:
    """The trailer that carries the whole `google.rpc.Status` and, where waiting helps, HTTP's `retry-after`.

    The gateway hands the second on to REST callers as a header: proxies and HTTP clients know it, and no RetryInfo.
    """
    status = status_pb2.Status(code=error.code, message=error.message)
    for detail in details_of(error):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    details = (DETAILS_KEY, status.SerializeToString())
    return (details,) if error.retry_after is None else (details, (RETRY_KEY, str(math.ceil(error.retry_after))))
