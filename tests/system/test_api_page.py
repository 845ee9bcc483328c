"""The API page as a newcomer meets it, in a real browser, and the files behind it as anybody can ask for them."""

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from google.protobuf.json_format import ParseDict
from google.rpc import status_pb2
from playwright.sync_api import Browser, ViewportSize

from devstack.jars import SWAGGER_UI, read_lock
from tests.system.browser import ApiPage, launched
from tests.system.doors import EVERY_CALL, Caller
from tests.system.stage import Stage
from tests.system.vocabulary import as_customer

BODY = json.dumps({"subject": "Cold soup", "description": "It was hot when it left."})
PHONE = ViewportSize(width=390, height=844)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, stage: Stage) -> Iterator[ApiPage]:
    with closing(browser.new_context()) as context:
        yield ApiPage(context.new_page(), stage.stack.page_url)


class Visit(NamedTuple):
    """What a newcomer did and saw: the answer to a ticket, and what was left in the browser afterwards."""

    customer: Caller
    token: str
    status: str
    body: str
    requests: list[str]
    complaints: list[str]
    kept: str


@pytest.fixture(scope="module")
def visit(browser: Browser, stage: Stage) -> Iterator[Visit]:
    customer = as_customer()
    token = stage.mint(customer)
    with closing(browser.new_context()) as context:
        page = ApiPage(context.new_page(), stage.stack.page_url)
        page.open()
        page.authorize(token)
        status, body = page.try_out("CreateTicket", BODY)
        kept = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])"
        yield Visit(customer, token, status, body, page.requests, page.complaints, page.tab.evaluate(kept))


def test_a_newcomer_creates_a_ticket_on_the_page(visit: Visit, stage: Stage) -> None:
    assert visit.status == "200"
    (row,) = stage.query(
        "SELECT user_id::text, subject FROM admin_service.support_tickets WHERE id = %s", json.loads(visit.body)["id"]
    )
    assert row == (visit.customer.id, "Cold soup")


def test_the_browser_has_nothing_to_complain_of(visit: Visit) -> None:
    assert visit.complaints == []


def test_no_request_leaves_the_gateway(visit: Visit, stage: Stage) -> None:
    ours = f"{stage.stack.gateway_url}/"
    assert [url for url in visit.requests if not url.startswith((ours, "data:"))] == []
    assert f"{ours}api/v1/tickets" in visit.requests


def test_the_browser_keeps_no_token(visit: Visit) -> None:
    assert visit.token not in visit.kept


def test_a_bad_token_is_answered_by_the_error_that_every_caller_gets(page: ApiPage) -> None:
    page.open()
    page.authorize("not-a-token")
    status, body = page.try_out("CreateTicket", BODY)
    error = json.loads(body)
    assert (status, error["code"], error["details"][0]["reason"]) == ("401", 16, "INVALID_TOKEN")


def test_a_token_that_was_pasted_with_its_scheme_is_taken(page: ApiPage, stage: Stage) -> None:
    page.open()
    page.authorize(f"bearer {stage.mint(as_customer())}")
    status, _ = page.try_out("CreateTicket", BODY)
    assert status == "200"


def test_every_call_is_shown_with_a_summary(page: ApiPage) -> None:
    page.open()
    summaries = {call: page.operation(call).locator(".opblock-summary-description").inner_text() for call in EVERY_CALL}
    assert all(summaries.values())
    assert page.tab.locator(".opblock").count() == len(EVERY_CALL)


def test_a_link_to_a_call_opens_it(page: ApiPage) -> None:
    page.open("#/TicketService/GetTicket")
    page.operation("GetTicket").get_by_role("button", name="Try it out").wait_for()


def test_the_page_fits_a_phone(browser: Browser, stage: Stage) -> None:
    with closing(browser.new_context(viewport=PHONE)) as context:
        page = ApiPage(context.new_page(), stage.stack.page_url)
        page.open("#/TicketService/CreateTicket")
        page.operation("CreateTicket").get_by_role("button", name="Try it out").wait_for()
        assert page.tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_a_script_that_was_smuggled_into_the_page_does_not_run(page: ApiPage) -> None:
    page.open()
    page.tab.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.smuggled = true'}))"
    )
    assert page.tab.evaluate("window.smuggled") is None
    assert any("Content Security Policy" in complaint for complaint in page.complaints)


# --- the files, without a browser ---


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def ask(stage: Stage, method: str, path: str) -> Reply:
    """A request whose path is sent as it is."""
    with closing(http.client.HTTPConnection("127.0.0.1", stage.stack.ports.gateway, timeout=20)) as connection:
        connection.request(method, path)
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, headers, response.read())


FILES = {
    "": "text/html; charset=utf-8",
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui-bundle.js.LICENSE.txt": "text/plain; charset=utf-8",
    "favicon-32x32.png": "image/png",
    "openapi.yaml": "application/yaml",
}


@pytest.mark.parametrize(("name", "content_type"), FILES.items())
def test_a_file_of_the_page_comes_whole_with_its_type_and_its_limits(
    stage: Stage, name: str, content_type: str
) -> None:
    reply = ask(stage, "GET", f"/docs/{name}")
    served = stage.stack.run_dir / "gateway/docs" / (name or "index.html")
    assert (reply.status, reply.body) == (200, served.read_bytes())
    assert reply.headers["content-type"] == content_type
    assert reply.headers["cache-control"] == "no-cache"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["referrer-policy"] == "no-referrer"
    policy = reply.headers["content-security-policy"]
    assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"} <= set(policy.split("; "))
    assert "unsafe" not in policy
    head = ask(stage, "HEAD", f"/docs/{name}")
    assert (head.status, head.headers["content-length"], head.body) == (200, str(len(reply.body)), b"")


def test_the_document_is_the_one_that_was_generated(stage: Stage) -> None:
    document = Path(__file__).parents[2] / "generated/openapi.yaml"
    assert ask(stage, "GET", "/docs/openapi.yaml").body == document.read_bytes()


@pytest.mark.parametrize("name", ["swagger-ui.css", "swagger-ui-bundle.js"])
def test_only_what_is_asked_for_by_its_version_is_kept_by_browsers(stage: Stage, name: str) -> None:
    version = SWAGGER_UI.version(read_lock(SWAGGER_UI.lock_file))
    assert ask(stage, "GET", f"/docs/{name}?{version}").headers["cache-control"] == "public, max-age=86400"
    assert ask(stage, "GET", f"/docs/{name}?{version}.1").headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", ["/", "/docs", "/docs?x=1"])
def test_who_comes_without_a_path_is_shown_the_way(stage: Stage, path: str) -> None:
    reply = ask(stage, "GET", path)
    assert (reply.status, reply.headers["location"]) == (302, "docs/")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/docs", "/docs/", "/docs/openapi.yaml", "/docs/nothing"])
def test_the_page_can_only_be_read(stage: Stage, method: str, path: str) -> None:
    reply = ask(stage, method, path)
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")
    assert reason_of(reply) == "METHOD_NOT_ALLOWED"


@pytest.mark.parametrize(
    "path",
    [
        "/docs/nothing",
        "/docs/page.js/",
        "/docsx",
        "/docs/../envoy.yaml",
        "/docs/%2e%2e/envoy.yaml",
        "/docs/%2E%2E/%2E%2E/identity/signing-key.pem",
        "/docs/%252e%252e/envoy.yaml",
        "/docs/page.js%3f",
        "/docs/%ff",
    ],
)
def test_there_is_nothing_but_the_page(stage: Stage, path: str) -> None:
    reply = ask(stage, "GET", path)
    assert (reply.status, reason_of(reply)) == (404, "UNKNOWN_PATH")


@pytest.mark.parametrize("path", ["/docs/..%2fenvoy.yaml", "/docs/%2e%2e%2fenvoy.yaml", "/docs/..%5cenvoy.yaml"])
def test_an_escaped_slash_is_refused(stage: Stage, path: str) -> None:
    reply = ask(stage, "GET", path)
    assert (reply.status, reason_of(reply)) == (400, "MALFORMED_REQUEST")


def test_what_else_lies_in_the_folder_is_not_served(stage: Stage) -> None:
    folder = stage.stack.run_dir / "gateway/docs"
    secret = next((stage.stack.run_dir / "identity").glob("*"))
    link = folder / "link.txt"
    link.symlink_to(secret)
    try:
        assert ask(stage, "GET", "/docs/link.txt").status == 404
    finally:
        link.unlink()


def reason_of(reply: Reply) -> str:
    """The reason of an error; it must have the shape that every error has."""
    body = json.loads(reply.body)
    assert body.keys() == {"code", "message", "details"}
    ParseDict(body, status_pb2.Status())
    return str(body["details"][0]["reason"])
