"""Turns the production configuration of Envoy into one for this machine.

Addresses, ports, file paths and the origins of CORS change, nothing else.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devstack.errors import StackError
from devstack.ports import LOOPBACK

Node = Any
"""What YAML holds: a mapping, a list, or a scalar."""

HOSTS = ("api", "notification-api", "analytics-api")
"""Who answers gRPC, by their host names in production."""


@dataclass(frozen=True)
class Here:
    """Where things are on this machine."""

    gateway_port: int
    admin_port: int
    jwks_port: int
    endpoints: Mapping[str, Sequence[int]]
    """The ports of each cluster that answers gRPC, by its name."""
    jwks_file: Path
    descriptors: Path
    page: Path
    strict_fields: Path
    cors_origins: Sequence[str]

    def ports(self) -> Mapping[tuple[str, int], int]:
        """The port that takes the place of each address and port in production, all on loopback."""
        return {
            ("0.0.0.0", 8080): self.gateway_port,  # noqa: S104 - what is looked for, not what is listened on
            (LOOPBACK, 9901): self.admin_port,
            (LOOPBACK, 8081): self.jwks_port,
        }

    def paths(self) -> Mapping[str, Path]:
        """What takes the place of each path in production."""
        return {
            "/etc/envoy/nibble.binpb": self.descriptors,
            "/etc/envoy/strict_fields.lua": self.strict_fields,
            "/etc/envoy/jwks": self.jwks_file.parent,
            "/etc/envoy/docs": self.page,
        }


def localised(production: Node, here: Here) -> Node:
    """A copy of the production configuration for this machine, with one endpoint of a cluster per port.

    StackError when an address or path that must be swapped is missing, or one that is not known is there.
    """
    swap = _Swap(here)
    config = swap.applied_to(production)
    swap.insist_on_completeness()
    for cluster, ports in here.endpoints.items():
        _spread_over_workers(config, cluster, ports)
    _let_in_pages_of(config, here.cors_origins)
    return config


def moved(node: Node, folder: str, to: Path) -> Node:
    """A copy in which every path below `folder`, and `folder` itself, is below `to`."""
    if isinstance(node, dict):
        return {key: moved(value, folder, to) for key, value in node.items()}
    if isinstance(node, list):
        return [moved(item, folder, to) for item in node]
    is_below = isinstance(node, str) and (node == folder or node.startswith(f"{folder}/"))
    return f"{to}{node.removeprefix(folder)}" if is_below else node


class _Swap:
    """Replaces the addresses and paths that it knows, and remembers which ones it met."""

    def __init__(self, here: Here) -> None:
        self._ports = here.ports()
        self._paths = here.paths()
        self._missing: set[object] = {*self._ports, *self._paths}

    def applied_to(self, node: Node) -> Node:
        if isinstance(node, dict):
            if node.keys() == {"address", "port_value"}:
                return self._address(node)
            return {key: self.applied_to(value) for key, value in node.items()}
        if isinstance(node, list):
            return [self.applied_to(item) for item in node]
        return self._path(node) if isinstance(node, str) and node.startswith("/etc/") else node

    def insist_on_completeness(self) -> None:
        if self._missing:
            lost = ", ".join(sorted(map(str, self._missing)))
            raise StackError(f"envoy.yaml no longer has {lost}, which the devstack must swap")

    def _address(self, node: Node) -> Node:
        host, port = node["address"], node["port_value"]
        if host in HOSTS:
            return node
        if (host, port) not in self._ports:
            raise StackError(f"envoy.yaml has the address {host}:{port}, which the devstack does not know")
        self._missing.discard((host, port))
        return {"address": LOOPBACK, "port_value": self._ports[host, port]}

    def _path(self, path: str) -> str:
        if path not in self._paths:
            raise StackError(f"envoy.yaml has the path {path}, which the devstack does not know")
        self._missing.discard(path)
        return str(self._paths[path])


def _spread_over_workers(config: Node, name: str, ports: Sequence[int]) -> None:
    """Puts one endpoint per port in the place of the cluster's own; they differ from the first by their address.

    The cluster takes so many times as many calls at once.
    """
    cluster = _cluster(config, name)
    endpoints = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    model = endpoints[0]
    endpoints[:] = [_at(model, port) for port in ports]
    for limits in cluster["circuit_breakers"]["thresholds"]:
        limits["max_requests"] *= len(ports)


def _at(endpoint: Node, port: int) -> Node:
    copy = deepcopy(endpoint)
    copy["endpoint"]["address"]["socket_address"] = {"address": LOOPBACK, "port_value": port}
    return copy


def _let_in_pages_of(config: Node, origins: Sequence[str]) -> None:
    """Puts these origins in the place of those whose pages may call from a browser."""
    policies = list(_under(config, "envoy.filters.http.cors"))
    if not policies:
        raise StackError("envoy.yaml no longer has a policy for envoy.filters.http.cors")
    for policy in policies:
        policy["allow_origin_string_match"] = [{"exact": origin} for origin in origins]


def _under(node: Node, key: str) -> Iterator[Node]:
    """Every value of that key, wherever it is."""
    for name, child in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if name == key:
            yield child
        yield from _under(child, key)


def _cluster(config: Node, name: str) -> Node:
    try:
        (cluster,) = (c for c in config["static_resources"]["clusters"] if c["name"] == name)
        (_,) = cluster["load_assignment"]["endpoints"]
    except (KeyError, TypeError, ValueError):
        raise StackError(f"envoy.yaml no longer has the cluster {name!r} with one list of endpoints") from None
    return cluster
