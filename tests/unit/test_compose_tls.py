"""What docker-compose.tls.yml promises, on top of docker-compose.yml."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from compose_spec import PyCompose

from devstack.tls import SERVER_NAMES, Tls
from server.settings import APIS, Role, read_settings
from tests.unit.test_compose import CHECKOUT, SERVICES, Node, resolved

OVERRIDE = resolved("docker-compose.tls.yml")["services"]
TLS = Tls(Path(".run/tls"), mutual=True)
"""What `make keys TLS=1` makes."""


def merged(name: str) -> Node:
    """The service as compose sees it: mappings merge, a mount takes the place of one with the same target."""
    base, more = SERVICES[name], OVERRIDE[name]
    mounts = {mount["target"]: mount for mount in [*base["volumes"], *more["volumes"]]}
    environment = {**base.get("environment", {}), **more.get("environment", {})}
    healthcheck = {**base["healthcheck"], **more.get("healthcheck", {})}
    rest = {"volumes": list(mounts.values()), "environment": environment, "healthcheck": healthcheck}
    return {**base, **more, **rest}


def mounts_of(name: str) -> Mapping[str, Node]:
    return {mount["target"]: mount for mount in merged(name)["volumes"]}


def test_both_files_together_follow_the_compose_specification() -> None:
    together = {"services": {**SERVICES, **{name: merged(name) for name in OVERRIDE}}}
    together["volumes"] = resolved()["volumes"]
    PyCompose.from_yaml(yaml.safe_dump(together)).to_spec()


def test_every_role_that_speaks_tls_and_none_besides_is_changed() -> None:
    assert OVERRIDE.keys() == {*APIS, "envoy"}


@pytest.mark.parametrize("name", APIS)
def test_a_server_finds_its_files_where_they_are_mounted(name: str) -> None:
    environment = {key: str(value) for key, value in merged(name)["environment"].items()}
    settings = read_settings(Role(name), environment)
    made = {path.name for path in TLS.files}
    for path in (settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file):
        assert path is not None
        assert str(path.parent) == "/etc/nibble/tls"
        assert path.name in made


@pytest.mark.parametrize("config", ["envoy-tls", "envoy-mtls"])
def test_envoy_finds_its_files_where_they_are_mounted(config: str) -> None:
    override = resolved("docker-compose.tls.yml", ENVOY_CONFIG=config)["services"]["envoy"]["volumes"]
    (source,) = (mount["source"] for mount in override if mount["target"] == "/etc/envoy/envoy.yaml")
    text = (CHECKOUT / source).read_text()
    secrets = set(re.findall(r"/etc/envoy/sds/([\w.-]+)", text))
    assert secrets <= {path.name for path in (CHECKOUT / mounts_of("envoy")["/etc/envoy/sds"]["source"]).iterdir()}
    assert ("client-ca.yaml" in secrets) == (config == "envoy-mtls")
    made = {path.name for path in TLS.files}
    for name in secrets:
        wanted = re.findall(r"/etc/envoy/tls/([\w.-]+)", (CHECKOUT / "gateway" / "sds" / name).read_text())
        assert wanted
        assert set(wanted) <= made


def test_certificates_are_mounted_by_the_folder_that_make_keys_writes() -> None:
    elsewhere = resolved("docker-compose.tls.yml", RUN_DIR="/elsewhere")["services"]
    for name, target in (*((name, "/etc/nibble/tls") for name in APIS), ("envoy", "/etc/envoy/tls")):
        assert mounts_of(name)[target]["source"] == f"./{TLS.folder}"
        (source,) = (mount["source"] for mount in elsewhere[name]["volumes"] if mount["target"] == target)
        assert source == "/elsewhere/tls"


def test_a_missing_mount_is_an_error_and_nothing_that_is_mounted_can_be_written() -> None:
    mounts = [mount for service in OVERRIDE.values() for mount in service["volumes"]]
    assert all(mount["bind"] == {"create_host_path": False} and mount["read_only"] for mount in mounts)


def test_whoever_needs_a_key_runs_as_its_owner() -> None:
    services = resolved("docker-compose.tls.yml", HOST_UID="12345")["services"]
    assert {services[name]["user"] for name in APIS} == {services["envoy"]["environment"]["ENVOY_UID"]} == {"12345"}


def test_the_names_that_envoy_insists_on_are_the_services_and_are_in_their_certificate() -> None:
    for variant in ("envoy-tls", "envoy-mtls"):
        text = (CHECKOUT / f"generated/{variant}.yaml").read_text()
        assert set(re.findall(r"san_type: DNS\s+matcher:\s+exact: (\S+)", text)) == set(OVERRIDE) - {"envoy"}
    assert set(OVERRIDE) - {"envoy"} <= {*SERVER_NAMES} & {*SERVICES}
