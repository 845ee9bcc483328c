"""The configurations of Envoy for TLS: envoy.yaml and a socket for each side of each connection, nothing else."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from devstack.envoy_config import Here, localised, moved
from devstack.gateway import MUTUAL_TLS_CONFIG, PRODUCTION_CONFIG, SECRETS, TLS_CONFIG
from devstack.tls import SERVER_NAMES
from protos import envoy_tls

Node = Any
"""What YAML holds: a mapping, a list, or a scalar."""

VARIANTS = pytest.mark.parametrize("variant", [TLS_CONFIG, MUTUAL_TLS_CONFIG], ids=lambda path: path.stem)


def load(path: Path) -> Node:
    return yaml.safe_load(path.read_text())


def gateway_of(config: Node) -> Node:
    (gateway,) = (listener for listener in config["static_resources"]["listeners"] if listener["name"] == "gateway")
    (chain,) = gateway["filter_chains"]
    return chain


HOSTS = {"api": "api", "notification": "notification-api", "analytics": "analytics-api"}
"""Where each cluster's servers are, which is whom their certificate must name."""


def servers_of(config: Node) -> list[Node]:
    return [cluster for cluster in config["static_resources"]["clusters"] if cluster["name"] in HOSTS]


def places_of(config: Node) -> list[Node]:
    return [gateway_of(config), *servers_of(config)]


@VARIANTS
def test_only_the_sockets_of_the_gateway_and_of_the_servers_are_added(variant: Path) -> None:
    config = load(variant)
    for place in places_of(config):
        del place["transport_socket"]
    assert config == load(PRODUCTION_CONFIG)


@VARIANTS
def test_nothing_older_than_tls_1_2_is_spoken_on_either_side(variant: Path) -> None:
    config = load(variant)
    for place in places_of(config):
        params = place["transport_socket"]["typed_config"]["common_tls_context"]["tls_params"]
        assert params["tls_minimum_protocol_version"] == "TLSv1_2"


@VARIANTS
def test_each_server_shows_a_certificate_for_its_own_host(variant: Path) -> None:
    for cluster in servers_of(load(variant)):
        host = HOSTS[cluster["name"]]
        (endpoint, *_) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
        assert endpoint["endpoint"]["address"]["socket_address"]["address"] == host
        socket = cluster["transport_socket"]["typed_config"]
        context = socket["common_tls_context"]["combined_validation_context"]["default_validation_context"]
        assert context["match_typed_subject_alt_names"] == [{"san_type": "DNS", "matcher": {"exact": host}}]
        assert socket["sni"] == host
        assert host in SERVER_NAMES


@pytest.mark.parametrize(("variant", "required"), [(TLS_CONFIG, False), (MUTUAL_TLS_CONFIG, True)])
def test_callers_need_a_certificate_in_one_of_them(variant: Path, required: bool) -> None:
    context = gateway_of(load(variant))["transport_socket"]["typed_config"]
    assert context.get("require_client_certificate", False) is required
    assert ("validation_context_sds_secret_config" in context["common_tls_context"]) is required


@VARIANTS
def test_what_callers_say_of_a_certificate_goes_no_further(variant: Path) -> None:
    manager = gateway_of(load(variant))["filters"][0]["typed_config"]
    assert manager["forward_client_cert_details"] == "SANITIZE"


def test_every_secret_is_named_like_its_file_and_its_folder_is_watched() -> None:
    for file in SECRETS.iterdir():
        (secret,) = load(file)["resources"]
        assert secret["name"] == file.stem
        (content,) = (secret[kind] for kind in ("tls_certificate", "validation_context") if kind in secret)
        assert content["watched_directory"] == {"path": "/etc/envoy/tls"}


def test_a_listener_that_is_gone_is_an_error() -> None:
    plain = PRODUCTION_CONFIG.read_text().replace("- name: gateway", "- name: door")
    with pytest.raises(KeyError, match="gateway"):
        envoy_tls.texts(plain, (SECRETS.parent / "tls.yaml").read_text())


@VARIANTS
def test_the_devstack_swaps_addresses_and_paths_only(variant: Path) -> None:
    here = Here(
        gateway_port=1001,
        admin_port=1002,
        jwks_port=1003,
        endpoints={"api": [2001], "notification": [2002], "analytics": [2003]},
        jwks_file=Path("/here/identity/jwks.json"),
        descriptors=Path("/here/nibble.binpb"),
        page=Path("/here/docs"),
        strict_fields=Path("/here/strict_fields.lua"),
        cors_origins=["http://localhost:3000"],
    )
    production = load(variant)
    config = localised(moved(production, "/etc/envoy/sds", Path("/here/sds")), here)
    for there, place in zip(places_of(production), places_of(config), strict=True):
        before, after = there["transport_socket"], place["transport_socket"]
        assert yaml.safe_dump(after).replace("/here/sds/", "/etc/envoy/sds/") == yaml.safe_dump(before)


def test_a_folder_is_moved_with_all_in_it_and_its_namesakes_are_not() -> None:
    node = {"a": ["/etc/x", "/etc/x/y.pem", "/etc/xy", "x", 1], "b": {"c": "/etc/x/z"}}
    before = deepcopy(node)
    assert moved(node, "/etc/x", Path("/to")) == {
        "a": ["/to", "/to/y.pem", "/etc/xy", "x", 1],
        "b": {"c": "/to/z"},
    }
    assert node == before
