"""The doors of the service, REST and gRPC, behind one interface, so that what they answer can be compared."""

import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias

import grpc
import httpx
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from nibble.analytics.v1 import analytics_service_pb2
from nibble.notification.v1 import notification_service_pb2
from nibble.support.v1 import agent_service_pb2, comment_service_pb2, privacy_service_pb2, ticket_service_pb2

Json: TypeAlias = Any
"""A value of proto JSON."""

TIMEOUT = 20.0
OK, CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNAVAILABLE = 0, 1, 4, 8, 14

# How codes become HTTP statuses (google.rpc.Code), and the reasons for which HTTP has a closer status.
HTTP_STATUS = {
    1: 499,
    3: 400,
    4: 504,
    5: 404,
    6: 409,
    7: 403,
    8: 429,
    9: 400,
    10: 409,
    12: 501,
    13: 500,
    14: 503,
    16: 401,
}
CLOSER_HTTP_STATUSES = {"REQUEST_TOO_LARGE": {413, 431}, "METHOD_NOT_ALLOWED": {405}, "UNSUPPORTED_MEDIA_TYPE": {415}}

_SERVICES = {
    "TicketService": ticket_service_pb2.DESCRIPTOR.services_by_name["TicketService"],
    "CommentService": comment_service_pb2.DESCRIPTOR.services_by_name["CommentService"],
    "PrivacyService": privacy_service_pb2.DESCRIPTOR.services_by_name["PrivacyService"],
    "AgentService": agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"],
    "AnalyticsService": analytics_service_pb2.DESCRIPTOR.services_by_name["AnalyticsService"],
    "NotificationService": notification_service_pb2.DESCRIPTOR.services_by_name["NotificationService"],
}


class Binding(NamedTuple):
    """Where a call is found: the gRPC service, and the REST verb and path (contract, section 4)."""

    service: str
    verb: str
    path: str


CALLS = {
    "CreateTicket": Binding("TicketService", "POST", "/api/v1/tickets"),
    "ListTickets": Binding("TicketService", "GET", "/api/v1/tickets"),
    "ListMyTickets": Binding("TicketService", "GET", "/api/v1/tickets/my"),
    "ListAssignedTickets": Binding("TicketService", "GET", "/api/v1/tickets/assigned"),
    "GetTicket": Binding("TicketService", "GET", "/api/v1/tickets/{ticket_id}"),
    "UpdateTicketStatus": Binding("TicketService", "PUT", "/api/v1/tickets/{ticket_id}/status"),
    "AssignTicket": Binding("TicketService", "PUT", "/api/v1/tickets/{ticket_id}/assign"),
    "ListTicketHistory": Binding("TicketService", "GET", "/api/v1/tickets/{ticket_id}/history"),
    "RateTicket": Binding("TicketService", "PUT", "/api/v1/tickets/{ticket_id}/feedback"),
    "GetTicketFeedback": Binding("TicketService", "GET", "/api/v1/tickets/{ticket_id}/feedback"),
    "GetTicketOrder": Binding("TicketService", "GET", "/api/v1/tickets/{ticket_id}/order"),
    "GetTicketRequester": Binding("TicketService", "GET", "/api/v1/tickets/{ticket_id}/requester"),
    "AddComment": Binding("CommentService", "POST", "/api/v1/tickets/{ticket_id}/comments"),
    "ListComments": Binding("CommentService", "GET", "/api/v1/tickets/{ticket_id}/comments"),
    "RevealTicket": Binding("TicketService", "POST", "/api/v1/tickets/{ticket_id}/reveal"),
    "RevealComment": Binding("CommentService", "POST", "/api/v1/tickets/{ticket_id}/comments/{comment_id}/reveal"),
    "ListUnattendedTickets": Binding("TicketService", "GET", "/api/v1/tickets/unattended"),
    "SetAgent": Binding("AgentService", "PUT", "/api/v1/agents/{agent_id}"),
    "GetAgent": Binding("AgentService", "GET", "/api/v1/agents/{agent_id}"),
    "ListAgents": Binding("AgentService", "GET", "/api/v1/agents"),
    "SetAgentAvailability": Binding("AgentService", "PUT", "/api/v1/agents/{agent_id}/availability"),
    "ReassignTickets": Binding("AgentService", "POST", "/api/v1/tickets/reassign"),
}


INBOX_CALLS = {
    "ListNotifications": Binding("NotificationService", "GET", "/api/v1/notifications"),
    "GetUnreadCount": Binding("NotificationService", "GET", "/api/v1/notifications/unread_count"),
    "MarkNotificationsRead": Binding("NotificationService", "PUT", "/api/v1/notifications/read"),
    "StreamNotifications": Binding("NotificationService", "GET", "/api/v1/notifications/stream"),
    "GetNotificationPreferences": Binding("NotificationService", "GET", "/api/v1/notifications/preferences"),
    "UpdateNotificationPreferences": Binding("NotificationService", "PUT", "/api/v1/notifications/preferences"),
}
PRIVACY_CALLS = {
    "ErasePersonalData": Binding("PrivacyService", "POST", "/api/v1/users/{user_id}/erase"),
    "ExportPersonalData": Binding("PrivacyService", "POST", "/api/v1/users/{user_id}/export"),
}
REPORT_CALLS = {"GetSupportMetrics": Binding("AnalyticsService", "GET", "/api/v1/reports/support")}
EVERY_CALL = {**CALLS, **PRIVACY_CALLS, **INBOX_CALLS, **REPORT_CALLS}
"""Those of all services."""


class Caller(NamedTuple):
    """Who calls: a role, and a UUID."""

    role: str
    id: str


class Answer(NamedTuple):
    """What a call came to, in the same form at every door.

    `payload` is the resource in proto JSON, with the proto's own field names; for an error it is the google.rpc.Status.
    `reason` is that of the ErrorInfo, empty for OK and where there is none.
    """

    code: int
    reason: str
    payload: dict[str, Any]

    @property
    def resource(self) -> dict[str, Any]:
        """The payload of a call that went well; AssertionError for one that did not."""
        assert self.code == OK, self
        return self.payload

    @property
    def bad_fields(self) -> list[str]:
        """The fields that the BadRequest names."""
        found = [detail.get("field_violations", []) for detail in self.payload["details"]]
        return [violation["field"] for violations in found for violation in violations]

    @property
    def retry_delay(self) -> str:
        """The delay that the RetryInfo asks for; the empty string where there is none."""
        return "".join(detail.get("retry_delay", "") for detail in self.payload["details"])


Mint = Callable[[Caller], str]
"""Signs a token for a caller."""


class Door(Protocol):
    """Takes any of EVERY_CALL, with the fields of its request by their names in the proto.

    Of a call that answers with a stream, the first message is the answer.
    """

    name: str

    def call(self, call: str, caller: Caller, *, key: str | None = None, **fields: Json) -> Answer:
        """Calls as `caller`, with `key` as idempotency key."""
        ...

    def call_with(self, call: str, headers: Mapping[str, str], **fields: Json) -> Answer:
        """Calls with these headers (metadata), and no others."""
        ...

    def close(self) -> None:
        """Closes the connections."""
        ...


def _headers(token: str, key: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {token}", **({} if key is None else {"idempotency-key": key})}


class Rest:
    """JSON over HTTP, through the gateway. Any thread may call it."""

    name = "REST"

    def __init__(self, url: str, mint: Mint, verify: ssl.SSLContext | bool = True) -> None:
        """Args: url: of the gateway; verify: how to speak TLS with it, where it does."""
        self.http = httpx.Client(base_url=url, timeout=TIMEOUT, trust_env=False, verify=verify)
        self._mint = mint

    def call(self, call: str, caller: Caller, *, key: str | None = None, **fields: Json) -> Answer:
        """See Door."""
        return self.call_with(call, _headers(self._mint(caller), key), **fields)

    def call_with(self, call: str, headers: Mapping[str, str], **fields: Json) -> Answer:
        """See Door."""
        binding = EVERY_CALL[call]
        path = binding.path.format(**fields)
        rest = {name: value for name, value in fields.items() if f"{{{name}}}" not in binding.path}
        try:
            if is_stream(call):
                with self.http.stream("GET", path, params=rest, headers=headers) as response:
                    return first_event_in(response)
            if binding.verb == "GET":
                return answer_in(self.http.get(path, params=rest, headers=headers))
            return answer_in(self.http.request(binding.verb, path, json=rest, headers=headers))
        except httpx.TransportError as error:
            return Answer(UNAVAILABLE, "", {"message": repr(error), "details": []})

    def close(self) -> None:
        """See Door."""
        self.http.close()


def is_stream(call: str) -> bool:
    """Whether the call answers with a stream."""
    return bool(_SERVICES[EVERY_CALL[call].service].methods_by_name[call].server_streaming)


def first_event_in(response: httpx.Response) -> Answer:
    """What the first server-sent event of a response says, or else its error."""
    if response.status_code != 200:
        response.read()
        return answer_in(response)
    return Answer(OK, "", next(events_in(response)))


def events_in(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """The data of each server-sent event, as it arrives; AssertionError for what is no such event."""
    assert response.headers["content-type"] == "text/event-stream"
    text = ""
    for piece in response.iter_text():
        *events, text = (text + piece).split("\n\n")
        for event in events:
            field, _, data = event.partition(": ")
            assert (field, "\n" in data) == ("data", False), event
            yield json.loads(data)
    assert text == ""


def answer_in(response: httpx.Response) -> Answer:
    """What a REST response says; AssertionError when status or `retry-after` do not belong to the error."""
    body = response.json()
    if response.status_code == 200:
        return Answer(OK, "", body)
    assert body.keys() == {"code", "message", "details"}, body
    answer = _error(ParseDict(body, status_pb2.Status()))
    assert response.status_code in CLOSER_HTTP_STATUSES.get(answer.reason, {HTTP_STATUS[answer.code]}), response.text
    assert ("retry-after" in response.headers) is bool(answer.retry_delay), response.headers
    return answer


class Grpc:
    """gRPC, through the gateway or on a worker's own port. Any thread may call it."""

    def __init__(
        self,
        name: str,
        target: str,
        mint: Mint,
        tls: grpc.ChannelCredentials | None = None,
        elsewhere: Mapping[str, str] | None = None,
    ) -> None:
        """Args: target: HOST:PORT; tls: how to speak TLS with it, where it does; elsewhere: of other services."""
        self.name = name
        # A proxy from the environment has no business on loopback; a server that is back is noticed soon.
        options = [("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 500)]

        def open_to(target: str) -> grpc.Channel:
            if tls:
                return grpc.secure_channel(target, tls, options=options)
            return grpc.insecure_channel(target, options=options)

        self.channel = open_to(target)
        self._elsewhere = {service: open_to(where) for service, where in (elsewhere or {}).items()}
        self._mint = mint

    def call(self, call: str, caller: Caller, *, key: str | None = None, **fields: Json) -> Answer:
        """See Door."""
        return self.call_with(call, _headers(self._mint(caller), key), **fields)

    def call_with(self, call: str, headers: Mapping[str, str], **fields: Json) -> Answer:
        """See Door."""
        method = _SERVICES[EVERY_CALL[call].service].methods_by_name[call]
        request_type = GetMessageClass(method.input_type)
        channel = self._elsewhere.get(method.containing_service.name, self.channel)
        make = channel.unary_stream if method.server_streaming else channel.unary_unary
        stub: Any = make(
            f"/{method.containing_service.full_name}/{call}",
            request_serializer=request_type.SerializeToString,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        request = ParseDict(fields, request_type())
        try:
            answer = stub(request, metadata=tuple(headers.items()), timeout=TIMEOUT)
            return Answer(OK, "", _json(_first_of(answer) if method.server_streaming else answer))
        except grpc.RpcError as error:
            return error_in(error)

    def close(self) -> None:
        """See Door."""
        for channel in (self.channel, *self._elsewhere.values()):
            channel.close()


def _first_of(stream: Any) -> Message:  # noqa: ANN401 - an iterator that is a Call too
    """The first message of a stream, which is ended then."""
    first: Message = next(stream)
    stream.cancel()
    return first


def error_in(error: grpc.RpcError) -> Answer:
    """What a failed gRPC call says."""
    return _error(_status_of(error))


def _status_of(error: Any) -> status_pb2.Status:  # noqa: ANN401 - an RpcError that is a Call too
    """The whole status; ValueError when its code or message is not the call's own."""
    return rpc_status.from_call(error) or status_pb2.Status(code=error.code().value[0], message=error.details())


def _error(status: status_pb2.Status) -> Answer:
    info = error_details_pb2.ErrorInfo()
    reasons = [info.reason for detail in status.details if detail.Unpack(info)]
    assert not reasons or info.domain == "support.nibble", status
    return Answer(status.code, reasons[0] if reasons else "", _json(status))


def _json(message: Message) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
