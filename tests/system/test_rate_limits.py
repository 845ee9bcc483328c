"""How much one caller may ask for: one bucket for each, over both doors, known by the token and nothing else."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from devstack.gateway import CORS_ORIGINS
from tests.system.doors import OK, RESOURCE_EXHAUSTED, Answer, Caller, Grpc, Rest
from tests.system.side_gateway import Node, side_gateway
from tests.system.stage import Stage
from tests.system.vocabulary import as_agent, as_customer, as_service, new_id

BURST = {"customer": 5, "support_agent": 7, "service": 9}
REMEMBERED = 3


def hourly(config: Node) -> None:
    """Small buckets that do not fill while a test runs, for few callers."""
    limits = the_limits(config)
    limits["max_dynamic_descriptors"] = REMEMBERED
    for descriptor in limits["descriptors"]:
        burst = BURST.get(descriptor["entries"][0]["value"], 100)
        descriptor["token_bucket"] = {"max_tokens": burst, "tokens_per_fill": burst, "fill_interval": "3600s"}


def the_limits(config: Node) -> Node:
    (gateway,) = (it for it in config["static_resources"]["listeners"] if it["name"] == "gateway")
    filters = gateway["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    (limits,) = (it["typed_config"] for it in filters if it["name"] == "envoy.filters.http.local_ratelimit")
    return limits


class Doors:
    """Both doors of such a gateway."""

    def __init__(self, stage: Stage, port: int, cleanup: ExitStack) -> None:
        self.rest = Rest(f"http://127.0.0.1:{port}", stage.mint)
        self.grpc = Grpc("gRPC", f"127.0.0.1:{port}", stage.mint)
        for door in (self.rest, self.grpc):
            cleanup.callback(door.close)

    def asked(self, caller: Caller, times: int) -> list[Answer]:
        """As many calls, at the doors by turns."""
        return [(self.rest, self.grpc)[i % 2].call("ListMyTickets", caller) for i in range(times)]


@contextmanager
def limited_doors(stage: Stage, folder: Path) -> Iterator[Doors]:
    with side_gateway(stage, folder, hourly) as port, ExitStack() as cleanup:
        yield Doors(stage, port, cleanup)


@pytest.fixture(scope="module")
def doors(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with limited_doors(stage, tmp_path_factory.mktemp("limited")) as doors:
        yield doors


def codes(answers: list[Answer]) -> list[int]:
    return [answer.code for answer in answers]


@pytest.mark.parametrize("caller", [as_customer(), as_agent(), as_service()], ids=lambda caller: caller.role)
def test_a_caller_has_one_bucket_for_both_doors_and_all_threads(doors: Doors, caller: Caller) -> None:
    burst = BURST[caller.role]
    answers = doors.asked(caller, burst + 4)
    assert codes(answers) == [OK] * burst + [RESOURCE_EXHAUSTED] * 4


def test_whoever_is_limited_is_told_so_and_when_to_try_again(doors: Doors) -> None:
    caller = as_customer()
    *_, over_rest, over_grpc = doors.asked(caller, 8)
    for answer in (over_rest, over_grpc):
        assert (answer.reason, answer.retry_delay) == ("RATE_LIMITED", "1s")
        assert answer.payload["message"]

    response = doors.rest.http.get("/api/v1/tickets/my", headers=bearer(doors, caller))
    assert (response.status_code, response.headers["retry-after"]) == (429, "1")


def test_a_page_can_read_that_it_calls_too_often(doors: Doors) -> None:
    caller, origin = as_customer(), CORS_ORIGINS[0]
    doors.asked(caller, 5)
    response = doors.rest.http.get("/api/v1/tickets/my", headers={**bearer(doors, caller), "origin": origin})
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (429, origin)


def bearer(doors: Doors, caller: Caller) -> dict[str, str]:
    return {"authorization": f"Bearer {doors.rest._mint(caller)}"}


def test_others_are_served_while_one_is_limited(doors: Doors) -> None:
    assert codes(doors.asked(as_customer(), 6))[-1] == RESOURCE_EXHAUSTED
    assert codes(doors.asked(as_customer(), 1)) == [OK]


def test_no_header_gives_a_caller_another_bucket(doors: Doors) -> None:
    caller = as_customer()
    doors.asked(caller, 5)
    for name in ("x-user-id", "x-forwarded-for", "x-role", "x-envoy-ratelimited", "x-request-id", "user-agent"):
        response = doors.rest.http.get("/api/v1/tickets/my", headers={**bearer(doors, caller), name: new_id()})
        assert response.status_code == 429, name


def test_another_token_of_the_same_caller_opens_the_same_bucket(stage: Stage, doors: Doors) -> None:
    caller = as_customer()
    doors.asked(caller, 5)
    response = call_with(doors, stage.stack.mint_token(caller.role, caller.id))
    assert response.status_code == 429


def call_with(doors: Doors, token: str) -> httpx.Response:
    return doors.rest.http.get("/api/v1/tickets/my", headers={"authorization": f"Bearer {token}"})


def test_a_bad_token_uses_up_nobodys_bucket(stage: Stage, doors: Doors) -> None:
    caller = as_customer()
    head, claims, signature = stage.mint(caller).split(".")
    forged = ".".join([head, claims, signature[::-1]])
    assert {call_with(doors, forged).status_code for _ in range(20)} == {401}
    assert codes(doors.asked(caller, 5)) == [OK] * 5


def test_refused_requests_count_as_well(doors: Doors) -> None:
    caller = as_customer()
    for _ in range(5):
        assert doors.rest.http.get("/api/v1/tickets/my?colour=red", headers=bearer(doors, caller)).status_code == 400
    assert codes(doors.asked(caller, 1)) == [RESOURCE_EXHAUSTED]


def test_the_caller_who_has_been_quiet_longest_is_forgotten_first(doors: Doors) -> None:
    busy, quiet, *others = (as_customer() for _ in range(REMEMBERED + 1))
    for caller in (busy, quiet):
        doors.asked(caller, 5)
    for other in others:
        assert codes(doors.asked(busy, 1)) == [RESOURCE_EXHAUSTED]
        doors.asked(other, 1)

    assert codes(doors.asked(busy, 1)) == [RESOURCE_EXHAUSTED]
    assert codes(doors.asked(quiet, 1)) == [OK]


def test_the_limits_that_run_let_a_burst_through(stage: Stage) -> None:
    customer: Any = as_customer()
    assert codes([stage.rest.call("ListMyTickets", customer) for _ in range(60)]) == [OK] * 60
