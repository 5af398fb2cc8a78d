"""A real browser on the console, and what every page of it must satisfy."""

import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright, expect

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
TIMEOUT_MS = 40_000
"""Time in which a page must show what a test expects; machines that run tests may be busy."""
AXE_OPTIONS = {"resultTypes": ["violations"], "preload": False}
"""Preloading would make the page request its style sheets again."""
RECORD_ANNOUNCEMENTS = """
window.announced = [];
new MutationObserver((list) => {
    for (const { target } of list) {
        if (target.getAttribute?.("role") === "status") announced.push(target.textContent);
    }
}).observe(document, { childList: true, subtree: true });
"""
"""Script that keeps in `announced` all that the page announces to screen readers."""
STICKING_OUT = """
() => {
    const { scrollWidth, clientWidth } = document.documentElement;
    if (scrollWidth === clientWidth) return [];
    return [...document.querySelectorAll("main *, header *")]
        .filter((node) => node.getBoundingClientRect().right > clientWidth)
        .map((node) => node.outerHTML.slice(0, 100));
}
"""
Theme = Literal["light", "dark"]


@dataclass
class ConsolePage:
    """A page that records each request and everything in the browser's console log."""

    page: Page
    url: str
    """URL of the front end; the console is at its root."""
    hosts: set[str] = field(default_factory=set)
    log: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    """Regular expressions of lines that the test causes in the log."""

    async def open(self, name: str) -> Page:
        """Open a page of the console, such as `pool`."""
        await self.page.goto(f"{self.url}/#/{name}")
        return self.page

    def expect_log(self, pattern: str) -> None:
        """Accept lines of the log that match, such as the one that chromium logs for a 401."""
        self.expected.append(pattern)

    async def check_accessibility(self) -> None:
        """Fail if axe-core finds anything in what the page shows now."""
        results = await Axe().run(self.page, options=AXE_OPTIONS)
        found = [
            f"{each['id']} ({each['impact']}): {each['help']}: "
            + "; ".join(node["html"][:200] for node in each["nodes"][:3])
            for each in results.response["violations"]
        ]
        assert not found, "\n".join(found)

    async def check_width(self) -> None:
        """Fail if the page is wider than the window, and name what sticks out."""
        assert await self.page.evaluate(STICKING_OUT) == []

    def check(self) -> None:
        """Fail if a request went to another host, or if the log has an unexpected line."""
        assert self.hosts <= {urlsplit(self.url).netloc}
        lines = [
            line for line in self.log if not any(re.search(each, line) for each in self.expected)
        ]
        assert not lines, "\n".join(lines)

    def watch(self) -> None:
        self.page.on("request", self._note_request)
        self.page.on("console", self._note_line)
        self.page.on("pageerror", lambda error: self.log.append(f"error: {error}"))

    def _note_request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob"):
            self.hosts.add(parts.netloc)

    def _note_line(self, message: ConsoleMessage) -> None:
        self.log.append(f"{message.type}: {message.text} ({message.location.get('url', '')})")


OpenPage = Callable[..., Awaitable[ConsolePage]]
"""Type of the fixture `open_page`."""


def browser_path() -> str:
    """Return the path of Chromium; skip the test if there is none."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("`make browser` installs Chromium")
    return found


@asynccontextmanager
async def running_browser() -> AsyncIterator[Browser]:
    """Run Chromium without a window."""
    expect.set_options(timeout=TIMEOUT_MS)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=browser_path(), args=list(FLAGS))
        yield browser
        await browser.close()


@asynccontextmanager
async def console_page(
    browser: Browser, url: str, *, theme: Theme = "light", width: int = 1280, **options: Any
) -> AsyncIterator[ConsolePage]:
    """Open an empty tab with a session of its own. At exit, requests and log are checked."""
    context = await browser.new_context(
        color_scheme=theme, viewport={"width": width, "height": 800}, **options
    )
    opened = ConsolePage(await context.new_page(), url)
    opened.page.set_default_timeout(TIMEOUT_MS)
    opened.watch()
    yield opened
    await context.close()
    opened.check()
