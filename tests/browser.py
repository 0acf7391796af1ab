"""A real browser, Debian's chromium, as Playwright drives it: what tests of pages share."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

DESKTOP = {"viewport": {"width": 1280, "height": 860}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
SMALL_PHONE = {"viewport": {"width": 320, "height": 568}, "has_touch": True, "is_mobile": True}
_TIMEOUT_MS = 10_000
UNSAFE_HOST = "unsafe.test"
"""This machine by a name that browsers do not trust."""


@contextmanager
def opened_browser(program: str, *, camera: Path | None = None) -> Iterator[Browser]:
    """Yield a browser whose camera sees `camera`, a file of JPEGs in a row, for ever.

    Leave it before another test runs an event loop: Playwright keeps one running in this thread.
    """
    flags = [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--host-resolver-rules=MAP {UNSAFE_HOST} 127.0.0.1",
    ]
    if camera is not None:
        flags.append(f"--use-file-for-fake-video-capture={camera}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        yield browser
        browser.close()


class Visit:
    """A page of a service in a context of its own, with all that went wrong and all that was asked."""

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.url = url
        self.context = browser.new_context(**options)
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(_TIMEOUT_MS)
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(url)

    def _hear(self, message: ConsoleMessage) -> None:
        # A browser notes each answer of status 400 and above; whether those are meant to come, a test says itself.
        if message.type in {"error", "warning"} and not message.text.startswith("Failed to load resource"):
            self.complaints.append(message.text)

    def wait_for(self, state: str) -> None:
        self.page.wait_for_selector(f'body[data-state="{state}"]')

    def violations(self) -> list[str]:
        """Return what axe finds, a line for each element."""
        if self.page.evaluate("typeof axe") == "undefined":
            self.page.evaluate(Axe().axe_script)
        found = self.page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
        return [f"{each['id']}: {node['html']} {node['failureSummary']}" for each in found for node in each["nodes"]]

    @property
    def hosts(self) -> set[str]:
        return {urlsplit(asked).netloc for asked in self.asked if not asked.startswith("blob:")}

    @property
    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))
