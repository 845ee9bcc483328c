"""What the devstack changes in envoy.yaml, and that it changes nothing else."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from devstack.envoy_config import Here, localised
from devstack.errors import StackError
from devstack.gateway import CORS_ORIGINS, PRODUCTION_CONFIG, cors_origins

Node = Any
HERE = Here(
    gateway_port=1001,
    admin_port=1002,
    jwks_port=1003,
    endpoints={"api": [2001, 2002, 2003], "notification": [3001], "analytics": [4001]},
    jwks_file=Path("/run-dir/identity/jwks.json"),
    descriptors=Path("/checkout/generated/nibble.binpb"),
    page=Path("/run-dir/gateway/docs"),
    strict_fields=Path("/checkout/gateway/strict_fields.lua"),
    cors_origins=["http://localhost:3000", "http://localhost:5173"],
)


@pytest.fixture(scope="module")
def production() -> Node:
    return yaml.safe_load(PRODUCTION_CONFIG.read_text())


def leaves(node: Node, path: tuple[object, ...] = ()) -> Iterator[tuple[tuple[object, ...], object]]:
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else None
    if children is None:
        yield path, node
        return
    for key, child in children:
        yield from leaves(child, (*path, key))


def cluster_of(config: Node, name: str) -> Node:
    (cluster,) = (c for c in config["static_resources"]["clusters"] if c["name"] == name)
    return cluster


def endpoints_of(config: Node, name: str) -> list[Node]:
    endpoints: list[Node] = cluster_of(config, name)["load_assignment"]["endpoints"][0]["lb_endpoints"]
    return endpoints


def most_calls(config: Node, name: str) -> list[int]:
    """How many a cluster takes at once, by priority."""
    return [limits["max_requests"] for limits in cluster_of(config, name)["circuit_breakers"]["thresholds"]]


def cors_policy(config: Node) -> Node:
    (policy,) = (
        host["typed_per_filter_config"]["envoy.filters.http.cors"]
        for listener in config["static_resources"]["listeners"]
        for host in listener["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"]
        if "typed_per_filter_config" in host
    )
    return policy


def without_endpoints_and_origins(config: Node) -> dict[tuple[object, ...], object]:
    copy = deepcopy(config)
    for name in HERE.endpoints:
        endpoints_of(copy, name).clear()
    cors_policy(copy)["allow_origin_string_match"].clear()
    return dict(leaves(copy))


def test_nothing_but_addresses_ports_paths_and_origins_differs(production: Node) -> None:
    before = without_endpoints_and_origins(production)
    after = without_endpoints_and_origins(localised(production, HERE))
    assert before.keys() == after.keys()
    differing = {path for path in before if before[path] != after[path]}
    for path in differing:
        is_address = path[-2:] in {("socket_address", "address"), ("socket_address", "port_value")}
        assert is_address or path[-1] == "max_requests" or str(before[path]).startswith("/etc/envoy/"), path
    assert differing


def test_everything_listens_on_loopback_and_speaks_to_loopback(production: Node) -> None:
    found = dict(leaves(localised(production, HERE)))
    addresses = {value for path, value in found.items() if path[-2:] == ("socket_address", "address")}
    ports = {value for path, value in found.items() if path[-2:] == ("socket_address", "port_value")}
    assert addresses == {"127.0.0.1"}
    assert ports == {1001, 1002, 1003, 2001, 2002, 2003, 3001, 4001}


def test_no_path_of_the_container_is_left(production: Node) -> None:
    values = {str(value) for _, value in leaves(localised(production, HERE))}
    assert {"/run-dir/identity", "/checkout/generated/nibble.binpb", "/run-dir/gateway/docs"} <= values
    assert not any(value.startswith("/etc/") for value in values)


@pytest.mark.parametrize("name", HERE.endpoints)
def test_each_process_is_an_endpoint_like_the_first_in_production(production: Node, name: str) -> None:
    model = deepcopy(endpoints_of(production, name)[0])
    endpoints = endpoints_of(localised(production, HERE), name)
    for endpoint, port in zip(endpoints, HERE.endpoints[name], strict=True):
        model["endpoint"]["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
        assert endpoint == model


@pytest.mark.parametrize("name", HERE.endpoints)
def test_a_cluster_takes_as_many_calls_as_all_its_processes_together(production: Node, name: str) -> None:
    of_one, of_all = most_calls(production, name), most_calls(localised(production, HERE), name)
    assert of_all == [limit * len(HERE.endpoints[name]) for limit in of_one]


def test_pages_of_the_given_origins_may_call_and_no_others(production: Node) -> None:
    policy = cors_policy(localised(production, HERE))
    assert policy["allow_origin_string_match"] == [{"exact": origin} for origin in HERE.cors_origins]


def test_origins_come_from_the_environment_or_are_those_of_development_servers() -> None:
    assert cors_origins({}) == cors_origins({"CORS_ORIGINS": ""}) == CORS_ORIGINS
    assert cors_origins({"CORS_ORIGINS": "https://a.example, http://b:1"}) == ["https://a.example", "http://b:1"]


@pytest.mark.parametrize("origins", ["*", "https://a.example/", "a.example", "https://a.example,,http://b", "null"])
def test_what_is_no_origin_is_refused(origins: str) -> None:
    with pytest.raises(StackError, match="CORS_ORIGINS has"):
        cors_origins({"CORS_ORIGINS": origins})


def test_the_production_configuration_itself_is_left_alone(production: Node) -> None:
    before = deepcopy(production)
    localised(production, HERE)
    assert production == before


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("/etc/envoy/nibble.binpb", "/etc/envoy/other.binpb", "path /etc/envoy/other.binpb"),
        ("port_value: 9901", "port_value: 9902", "address 127.0.0.1:9902"),
        ("/etc/envoy/jwks", "relative", "no longer has /etc/envoy/jwks"),
        ("- name: api", "- name: backend", "no longer has the cluster 'api'"),
        ("- name: analytics", "- name: figures", "no longer has the cluster 'analytics'"),
        ("address: notification-api", "address: inbox", "address inbox:50051"),
        ("envoy.filters.http.cors:", "envoy.filters.http.corps:", "no longer has a policy for envoy.filters.http.cors"),
    ],
)
def test_a_change_that_the_devstack_does_not_know_fails_loudly(old: str, new: str, complaint: str) -> None:
    text = PRODUCTION_CONFIG.read_text()
    assert old in text
    with pytest.raises(StackError, match=complaint):
        localised(yaml.safe_load(text.replace(old, new)), HERE)
