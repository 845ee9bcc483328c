"""A real browser that shows the API page, and what it saw while it did."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, Locator, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
"""What Chromium is called on the systems that have it."""

_MISSING = "there is no Chromium; `apt-get install chromium` as root, or set CHROMIUM to where one is"
_ARGUMENTS = [
    "--no-sandbox",  # it refuses to be root otherwise
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    # Pages of other origins are made up by the tests, and so on no network; they may ask what listens on loopback.
    "--disable-features=LocalNetworkAccessChecks",
    # Nothing but the gateway can be reached, whatever the page or the browser asks for.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


def chromium() -> str:
    """The path of the browser. Where there is none the test is skipped, under CI it fails."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(_MISSING)
    return str(found)


@contextmanager
def launched() -> Iterator[Browser]:
    """The browser. Its driver holds an event loop in this thread, so no asynchronous test may run meanwhile."""
    path = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        yield browser
        browser.close()


@dataclass
class ApiPage:
    """The API page in a tab of its own."""

    tab: Page
    url: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tab.set_default_timeout(20_000)
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.on("console", lambda message: self._hear(message.type, message.text))
        self.tab.on("pageerror", lambda error: self._hear("error", str(error)))

    def open(self, fragment: str = "") -> None:
        """Loads the page, and waits until the calls are shown."""
        self.tab.goto(self.url + fragment)
        self.tab.locator(".opblock").first.wait_for()

    def authorize(self, token: str) -> None:
        """Gives the token to the page as a person does."""
        self.tab.get_by_role("button", name="Authorize").click()
        dialog = self.tab.locator(".modal-ux")
        dialog.get_by_role("textbox").fill(token)
        dialog.get_by_role("button", name="Apply credentials").click()
        dialog.locator(".modal-btn", has_text="Close").click()

    def operation(self, call: str) -> Locator:
        """The block of a call, by its name in the proto."""
        return self.tab.locator(f".opblock[id$='-{call}']")

    def try_out(self, call: str, body: str) -> tuple[str, str]:
        """Opens the call, sends the body, and reads the status and the body that the page shows as the answer."""
        block = self.operation(call)
        block.locator(".opblock-summary-control").click()
        block.get_by_role("button", name="Try it out").click()
        block.locator("textarea.body-param__text").fill(body)
        block.get_by_role("button", name="Execute").click()
        answer = block.locator(".live-responses-table tbody tr.response")
        status = answer.locator(".response-col_status").inner_text()
        return status.split()[0], answer.locator(".highlight-code pre").first.inner_text()

    def _hear(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text)
