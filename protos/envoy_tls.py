"""Envoy's configurations for TLS: envoy.yaml, with the sockets of gateway/tls.yaml in their places."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import yaml

from protos.yaml_text import dumped

Node = Any
"""What YAML holds: a mapping, a list, or a scalar."""

_HEAD = "# Written by `make generate` from envoy.yaml, whose comments explain it, and gateway/tls.yaml.\n\n"


def texts(plain: str, tls: str) -> dict[str, str]:
    """Each configuration that `tls` describes, by its name; KeyError for a listener or cluster that `plain` lacks."""
    config = yaml.safe_load(plain)
    return {name: _HEAD + dumped(_with_sockets(config, sockets)) for name, sockets in yaml.safe_load(tls).items()}


def _with_sockets(plain: Node, sockets: Mapping[str, Mapping[str, Node]]) -> Node:
    config = deepcopy(plain)
    resources = config["static_resources"]
    listeners = {listener["name"]: listener for listener in resources["listeners"]}
    clusters = {cluster["name"]: cluster for cluster in resources["clusters"]}
    for name, socket in sockets["listeners"].items():
        for chain in listeners[name]["filter_chains"]:
            chain["transport_socket"] = socket
    for name, socket in sockets["clusters"].items():
        clusters[name]["transport_socket"] = socket
    return config
