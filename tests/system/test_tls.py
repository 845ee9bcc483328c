"""TLS on both doors: the whole system with `TLS=1`, then again, on the same data, with `TLS=mutual`."""

import functools
import os
import socket
import ssl
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import grpc
import httpx
import pytest
import trustme
import yaml
from cryptography import x509

from devstack.console import text
from devstack.identity import write_private
from devstack.part import CHECKOUT
from devstack.ports import LOOPBACK, Ports
from devstack.service import http_status
from devstack.stack import Stack
from devstack.tls import SERVER_NAMES, Tls
from server.__main__ import main
from tests.stack_folder import stack_folder
from tests.system.doors import OK, UNAVAILABLE, Caller, Door, Grpc, Mint, Rest
from tests.system.stage import Stage
from tests.system.vocabulary import as_customer, eventually, open_ticket

UNAUTHENTICATED = 16
WORKERS = 2
WITHOUT_KAFKA = ("postgres", "migrate", "api", "gateway")
AUTHORITY, STRANGER = trustme.CA(), trustme.CA()
LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class House:
    """A stack that speaks TLS, and its certificates."""

    stack: Stack
    tls: Tls
    mint: Mint

    @property
    def gateway(self) -> tuple[str, int]:
        return LOOPBACK, self.stack.ports.gateway

    @property
    def own_port(self) -> tuple[str, int]:
        return LOOPBACK, self.stack.ports.grpc

    def rest(self, context: ssl.SSLContext | None = None) -> Rest:
        return Rest(self.stack.gateway_url, self.mint, context or self.tls.context())

    def grpc_at(self, address: tuple[str, int], credentials: grpc.ChannelCredentials | None = None) -> Grpc:
        host, port = address
        return Grpc("gRPC", f"{host}:{port}", self.mint, credentials or self.tls.peer().credentials)

    def doors(self) -> list[Door]:
        return [self.rest(), self.grpc_at(self.gateway), self.grpc_at(self.own_port)]


def install(tls: Tls, authority: trustme.CA, names: tuple[str, ...] = SERVER_NAMES) -> None:
    """Writes a whole set of files, each moved over the one before."""
    write_pair(tls.server, authority.issue_cert(*names))
    write_pair(tls.client, authority.issue_cert("client"))
    for file in (tls.client_ca, tls.ca):
        write_private(file, authority.cert_pem.bytes())


def write_pair(pair: tuple[Path, Path], leaf: trustme.LeafCert) -> None:
    write_private(pair[0], leaf.cert_chain_pems[0].bytes())
    write_private(pair[1], leaf.private_key_pem.bytes())


ONCE = pytest.mark.parametrize("house", [False], indirect=True, ids=["TLS=1"], scope="module")
"""For what callers' certificates have no part in."""


@pytest.fixture(scope="module")
def run_dir() -> Iterator[Path]:
    with stack_folder() as folder:
        yield folder


@pytest.fixture(scope="module", params=[False, True], ids=["TLS=1", "TLS=mutual"])
def house(run_dir: Path, request: pytest.FixtureRequest) -> Iterator[House]:
    tls = Tls(run_dir / "tls", mutual=request.param)
    # In the place of those that the stack would make, so that more can be issued here.
    install(tls, AUTHORITY)
    with Stack(run_dir, Ports.free(WORKERS), workers=WORKERS, parts=WITHOUT_KAFKA, durable=False, tls=tls) as stack:
        identity = stack.identity

        @functools.cache
        def mint(caller: Caller) -> str:
            return identity.mint_token(caller.role, caller.id)

        yield House(stack, tls, mint)


def test_a_ticket_that_is_opened_at_one_door_is_read_at_every_other(house: House) -> None:
    customer = as_customer()
    doors = house.doors()
    for door in doors:
        ticket = open_ticket(door, customer)
        for other in doors:
            assert other.call("GetTicket", customer, ticket_id=ticket["id"]).resource["id"] == ticket["id"]
    for door in doors:
        door.close()


def test_a_certificate_identifies_nobody(house: House) -> None:
    for door in house.doors():
        answer = door.call_with("ListMyTickets", {"x-forwarded-client-cert": "By=api;Subject=agent"})
        assert answer.code == UNAUTHENTICATED
        door.close()


class Presented:
    """What a caller shows: nothing, or a pair that somebody issued."""

    def __init__(self, folder: Path, leaf: trustme.LeafCert | None) -> None:
        self.pair = (folder / "cert.pem", folder / "key.pem") if leaf else None
        if leaf and self.pair:
            write_pair(self.pair, leaf)

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        AUTHORITY.configure_trust(context)
        if self.pair:
            context.load_cert_chain(*self.pair)
        return context

    def credentials(self, trusting: trustme.CA = AUTHORITY) -> grpc.ChannelCredentials:
        certificate, key = (path.read_bytes() for path in self.pair) if self.pair else (None, None)
        return grpc.ssl_channel_credentials(trusting.cert_pem.bytes(), key, certificate)


CALLERS: Mapping[str, Callable[[], trustme.LeafCert | None]] = {
    "good": lambda: AUTHORITY.issue_cert("caller"),
    "none": lambda: None,
    "of another authority": lambda: STRANGER.issue_cert("caller"),
    "expired": lambda: AUTHORITY.issue_cert("caller", not_before=LONG_AGO.replace(year=2000), not_after=LONG_AGO),
}


@pytest.mark.parametrize("caller", CALLERS)
def test_a_door_that_asks_for_certificates_opens_to_good_ones_only(house: House, tmp_path: Path, caller: str) -> None:
    presented = Presented(tmp_path, CALLERS[caller]())
    own_port = house.grpc_at(house.own_port, presented.credentials())
    through_the_gateway: list[Door] = [
        house.rest(presented.context()),
        house.grpc_at(house.gateway, presented.credentials()),
    ]
    assert_opens(own_port, caller == "good")
    for door in through_the_gateway:
        # A door that does not ask does not look at what it is shown.
        assert_opens(door, caller == "good" or not house.tls.mutual)


def assert_opens(door: Door, opens: bool) -> None:
    answer = door.call("ListMyTickets", as_customer())
    door.close()
    assert answer.code == (OK if opens else UNAVAILABLE), answer
    # Refused by the handshake, not by somebody behind the door.
    assert opens or not answer.reason


@ONCE
def test_a_caller_that_trusts_another_authority_does_not_come_in(house: House) -> None:
    context = ssl.create_default_context()
    STRANGER.configure_trust(context)
    with closing(house.rest(context)) as rest, pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        rest.http.get("/healthz")
    for address in (house.gateway, house.own_port):
        stranger = grpc.ssl_channel_credentials(STRANGER.cert_pem.bytes())
        assert_opens(house.grpc_at(address, stranger), opens=False)


def test_plain_text_is_refused_and_does_no_harm(house: House) -> None:
    for host, port in (house.gateway, house.own_port):
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://{host}:{port}/healthz", trust_env=False, timeout=5)
        assert_opens(Grpc("plain", f"{host}:{port}", house.mint), opens=False)
    for door in house.doors():
        assert_opens(door, opens=True)


@ONCE
def test_tls_at_a_plain_door_is_refused_and_does_no_harm(house: House, stage: Stage) -> None:
    for port in (stage.stack.ports.gateway, stage.stack.ports.grpc):
        assert_opens(house.grpc_at((LOOPBACK, port)), opens=False)
    for door in stage.doors:
        assert door.call("ListMyTickets", as_customer()).code == OK


def handshake(
    house: House,
    address: tuple[str, int],
    *,
    at_most: ssl.TLSVersion | None = None,
    ciphers: str = "ALL",
    alpn: tuple[str, ...] = ("h2",),
) -> tuple[str | None, str | None]:
    """The version and the protocol that were agreed on; an OSError where there was no agreement."""
    context = house.tls.context()
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if at_most is not None:
        # So that a client refuses nothing that it is asked to try.
        context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, at_most
    with socket.create_connection(address, 5) as raw, context.wrap_socket(raw, server_hostname="localhost") as wrapped:
        return wrapped.version(), wrapped.selected_alpn_protocol()


@ONCE
@pytest.mark.parametrize("door", ["gateway", "own_port"])
def test_nothing_older_than_tls_1_2_is_spoken(house: House, door: str) -> None:
    address = getattr(house, door)
    for old in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        with pytest.raises(OSError, match=r"TLSV1_ALERT_PROTOCOL_VERSION|UNEXPECTED_EOF"):
            handshake(house, address, at_most=old)
    assert handshake(house, address, at_most=ssl.TLSVersion.TLSv1_2) == ("TLSv1.2", "h2")
    assert handshake(house, address) == ("TLSv1.3", "h2")


@ONCE
@pytest.mark.parametrize("door", ["gateway", "own_port"])
def test_no_cipher_without_authenticated_encryption_is_spoken(house: House, door: str) -> None:
    outdated = "ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES128-SHA256:NULL-SHA"
    speak = partial(handshake, house, getattr(house, door), at_most=ssl.TLSVersion.TLSv1_2)
    with pytest.raises(OSError, match=r"HANDSHAKE_FAILURE|UNEXPECTED_EOF"):
        speak(ciphers=outdated)
    assert speak(ciphers=f"{outdated}:ECDHE-ECDSA-AES128-GCM-SHA256") == ("TLSv1.2", "h2")


@pytest.mark.parametrize(("offered", "agreed"), [(("h2", "http/1.1"), "h2"), (("http/1.1",), "http/1.1"), ((), None)])
def test_the_gateway_speaks_the_http_that_the_caller_offers(
    house: House, offered: tuple[str, ...], agreed: str | None
) -> None:
    assert handshake(house, house.gateway, alpn=offered)[1] == agreed


@pytest.mark.parametrize(("option", "version"), [("--http2", "2"), ("--http1.1", "1.1"), ("--no-alpn", "1.1")])
def test_rest_is_served_by_http_2_and_by_http_1_1(house: House, option: str, version: str) -> None:
    token = house.mint(as_customer())
    printed = paste(
        f"curl -sS {option} -w ' %{{http_version}}' {house.tls.curl_options()} "
        f"-H 'Authorization: Bearer {token}' {house.stack.gateway_url}/api/v1/tickets/my"
    )
    assert printed == f'{{"tickets":[],"next_page_token":""}} {version}'


def paste(command: str, path: str = os.environ["PATH"]) -> str:
    """What a command prints, errors too."""
    pasted = subprocess.run(
        ["bash", "-c", command],
        cwd=CHECKOUT,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return pasted.stdout


def test_the_printed_commands_work_when_pasted(house: House, path_with_grpcurl: str) -> None:
    commands = [line.strip() for line in text(house.stack).splitlines()]
    (curl,) = (line for line in commands if line.startswith("curl "))
    (grpcurl,) = (line for line in commands if line.startswith("grpcurl "))
    assert '"status":"open"' in paste(curl)
    assert '"status": "open"' in paste(grpcurl, path_with_grpcurl)


def probe(house: House, patch: pytest.MonkeyPatch, changes: Mapping[str, str]) -> int:
    """The exit code of the container's probe, in the environment that the server has but for those changes."""
    for name, value in {**house.stack.service_env(), **changes}.items():
        patch.setenv(name, value)
    return main(["health"])


@ONCE
def test_the_probe_of_the_container_speaks_tls(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for worker in range(WORKERS):
        assert probe(house, monkeypatch, {"GRPC_PORT": str(house.stack.ports.grpc + worker)}) == 0
    other = Presented(tmp_path, AUTHORITY.issue_cert("probe")).pair
    assert other is not None
    shown = {"TLS_PROBE_CERT_FILE": str(other[0]), "TLS_PROBE_KEY_FILE": str(other[1])}
    assert probe(house, monkeypatch, shown) == 0


@ONCE
@pytest.mark.parametrize(
    "lacking",
    [
        {"TLS_CLIENT_CA_FILE": ""},
        {"TLS_CERT_FILE": "", "TLS_KEY_FILE": "", "TLS_CLIENT_CA_FILE": ""},
        {"TLS_PROBE_CERT_FILE": "/nowhere.pem", "TLS_PROBE_KEY_FILE": "/nowhere.pem"},
        {"GRPC_PORT": "1"},
    ],
    ids=["certificate", "TLS", "files", "server"],
)
def test_the_probe_of_the_container_fails_without(
    house: House, monkeypatch: pytest.MonkeyPatch, lacking: dict[str, str]
) -> None:
    assert probe(house, monkeypatch, lacking) == 1


def gateway_probe(house: House) -> int:
    """The exit code of the probe that docker-compose.tls.yml gives Envoy, with Envoy's port here."""
    compose = yaml.safe_load((CHECKOUT / "docker-compose.tls.yml").read_text())
    program, *arguments, script = compose["services"]["envoy"]["healthcheck"]["test"][1:]
    here = yaml.safe_load((house.stack.run_dir / "gateway" / "envoy.yaml").read_text())
    port = here["admin"]["address"]["socket_address"]["port_value"]
    command = [program, *arguments, script.replace("/9901", f"/{port}")]
    return subprocess.run(command, timeout=10, check=False).returncode


@ONCE
def test_a_file_that_is_of_no_use_is_named_before_the_port_opens(house: House, tmp_path: Path) -> None:
    strangers = Presented(tmp_path, STRANGER.issue_cert("api")).pair
    assert strangers is not None
    # The port is taken by the API that runs: opening it would fail, too, and be the complaint.
    env = {**os.environ, **house.stack.service_env(), "API_WORKERS": "1", "METRICS_PORT": "0"}
    command = [sys.executable, "-m", "server", "api"]
    env["TLS_KEY_FILE"] = str(strangers[1])
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    complaint = "server api: TLS_KEY_FILE does not match the first certificate in TLS_CERT_FILE\n"
    assert (ended.returncode, ended.stderr) == (2, complaint)


def serial_at(house: House, address: tuple[str, int]) -> int:
    """Which certificate is shown there."""
    context = house.tls.context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(address, 5) as raw, context.wrap_socket(raw) as wrapped:
        shown = wrapped.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown).serial_number


def serial_of(file: Path) -> int:
    return x509.load_pem_x509_certificate(file.read_bytes()).serial_number


def shows(house: House, address: tuple[str, int], serial: int) -> bool:
    return serial_at(house, address) == serial


@ONCE
def test_half_a_renewal_changes_nothing_and_the_other_half_completes_it(house: House) -> None:
    before = serial_of(house.tls.server[0])
    renewed = AUTHORITY.issue_cert(*SERVER_NAMES)
    write_private(house.tls.server[0], renewed.cert_chain_pems[0].bytes())
    for address in (house.gateway, house.own_port):
        assert serial_at(house, address) == before
    write_private(house.tls.server[1], renewed.private_key_pem.bytes())
    for address in (house.gateway, house.own_port):
        eventually(partial(shows, house, address, serial_of(house.tls.server[0])))


@ONCE
def test_no_handshake_fails_while_certificates_are_renewed(house: House) -> None:
    def call(_number: int) -> int:
        with closing(house.grpc_at(house.own_port)) as door:
            return door.call("ListMyTickets", as_customer()).code

    with ThreadPoolExecutor(4) as callers:
        answers = [callers.submit(call, number) for number in range(60)]
        while not all(answer.done() for answer in answers):
            write_pair(house.tls.server, AUTHORITY.issue_cert(*SERVER_NAMES))
    assert {answer.result() for answer in answers} == {OK}


def test_another_authority_takes_over_while_calls_go_on(house: House, tmp_path: Path) -> None:
    vouched_for_by_the_old_one = Presented(tmp_path, AUTHORITY.issue_cert("caller"))
    with closing(house.rest()) as rest:
        assert rest.call("ListMyTickets", as_customer()).code == OK
        install(house.tls, STRANGER)
        for address in (house.gateway, house.own_port):
            eventually(partial(shows, house, address, serial_of(house.tls.server[0])))
        # On the connection that was there before.
        assert rest.call("ListMyTickets", as_customer()).code == OK
    for door in house.doors():
        assert_opens(door, opens=True)
    late = vouched_for_by_the_old_one.credentials(trusting=STRANGER)
    assert_opens(house.grpc_at(house.own_port, late), opens=False)
    assert_opens(house.grpc_at(house.gateway, late), opens=not house.tls.mutual)


@ONCE
def test_envoy_does_not_speak_with_a_server_of_another_name(house: House) -> None:
    install(house.tls, AUTHORITY, SERVER_NAMES[1:])
    # Envoy keeps the connections that it has; to a server that is started anew it needs others.
    house.stack.part("api").restart()
    health = partial(http_status, house.stack.ports.gateway, "/healthz", house.tls)
    eventually(lambda: health() == 503, within=40)
    assert gateway_probe(house) == 1
    with closing(house.rest()) as rest:
        assert rest.call("ListMyTickets", as_customer()).code == UNAVAILABLE
    assert_opens(house.grpc_at(house.own_port), opens=True)
    install(house.tls, AUTHORITY)
    eventually(lambda: health() == 200, within=40)
    assert gateway_probe(house) == 0
