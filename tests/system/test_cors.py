"""Whose pages may call from a browser, and what they get to see."""

import httpx
import pytest

from devstack.gateway import CORS_ORIGINS
from tests.system.stage import Stage
from tests.system.vocabulary import as_agent, as_customer

KNOWN, UNKNOWN = CORS_ORIGINS[0], "https://evil.example"
TICKET = "/api/v1/tickets/0192f0c1-2345-7abc-8def-0123456789ab"


def cors_headers(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name.startswith("access-control-")}


def preflight(stage: Stage, origin: str, path: str, method: str) -> httpx.Response:
    """What a browser asks before it sends a token: without one."""
    wish = {"access-control-request-method": method, "access-control-request-headers": "authorization,content-type"}
    return stage.rest.http.options(path, headers={"origin": origin, **wish})


def words(text: str) -> set[str]:
    return set(text.split(", "))


@pytest.mark.parametrize("origin", CORS_ORIGINS)
def test_a_preflight_of_a_known_origin_is_answered_without_a_token(stage: Stage, origin: str) -> None:
    for path, method in {"/api/v1/tickets": "POST", TICKET: "GET", f"{TICKET}/status": "PUT"}.items():
        response = preflight(stage, origin, path, method)
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == origin
        assert words(response.headers["access-control-allow-methods"]) == {"GET", "POST", "PUT"}
        allowed = words(response.headers["access-control-allow-headers"])
        assert allowed == {"authorization", "content-type", "idempotency-key"}
        assert int(response.headers["access-control-max-age"]) > 0


@pytest.mark.parametrize(
    "origin", [UNKNOWN, "null", f"{KNOWN}.evil.example", KNOWN.replace("http", "https"), f"{KNOWN}/"]
)
def test_an_unknown_origin_learns_nothing(stage: Stage, origin: str) -> None:
    token = {"authorization": f"Bearer {stage.mint(as_customer())}"}
    asked = preflight(stage, origin, TICKET, "GET")
    called = stage.rest.http.get("/api/v1/tickets/my", headers={"origin": origin, **token})

    assert (asked.status_code, called.status_code) == (401, 200)
    assert cors_headers(asked) == cors_headers(called) == {}


def test_a_preflight_with_a_token_from_an_unknown_origin_reaches_no_worker(stage: Stage) -> None:
    headers = {
        "origin": UNKNOWN,
        "access-control-request-method": "GET",
        "authorization": f"Bearer {stage.mint(as_agent())}",
    }
    response = stage.rest.http.options(TICKET, headers=headers)
    assert (response.status_code, cors_headers(response)) == (404, {})


ANSWERS = {
    200: ("GET", "/api/v1/tickets/my", b""),
    400: ("GET", "/api/v1/tickets/my?colour=red", b""),
    404: ("GET", TICKET, b""),
    413: ("POST", "/api/v1/tickets", b" " * (1 << 20) + b"{}"),
}


@pytest.mark.parametrize("status", ANSWERS)
def test_a_page_of_a_known_origin_can_read_the_answer_errors_too(stage: Stage, status: int) -> None:
    method, path, body = ANSWERS[status]
    headers = {"authorization": f"Bearer {stage.mint(as_agent())}", "content-type": "application/json", "origin": KNOWN}
    response = stage.rest.http.request(method, path, content=body, headers=headers)

    assert response.status_code == status
    assert response.headers["access-control-allow-origin"] == KNOWN
    assert {"x-request-id", "retry-after"} <= words(response.headers["access-control-expose-headers"])


def test_a_page_can_read_that_its_token_is_missing(stage: Stage) -> None:
    response = stage.rest.http.get("/api/v1/tickets/my", headers={"origin": KNOWN})
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (401, KNOWN)


def test_no_page_is_let_in_with_what_the_browser_adds_by_itself(stage: Stage) -> None:
    answers = [preflight(stage, KNOWN, TICKET, "GET"), stage.rest.http.get("/healthz", headers={"origin": KNOWN})]
    assert not [answer for answer in answers if "access-control-allow-credentials" in answer.headers]


def test_caches_are_told_that_the_origin_makes_a_difference(stage: Stage) -> None:
    token = {"authorization": f"Bearer {stage.mint(as_customer())}"}
    for origin in ({}, {"origin": KNOWN}, {"origin": UNKNOWN}):
        response = stage.rest.http.get("/api/v1/tickets/my", headers={**token, **origin})
        assert "origin" in words(response.headers["vary"])
