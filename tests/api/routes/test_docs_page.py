"""GET /docs in a real browser: Swagger UI, with files that the server itself serves."""

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from api_support import RunningApp
from playwright.async_api import Page, async_playwright
from pydantic import SecretStr

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FILES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
KEYS = {"api_keys": (SecretStr("r" * 16),)}
ROOT = {"root_path": "/llm"}
ZERO_WIDTH_SPACE = "\u200b"
"""Swagger UI puts it into paths, where a line may break."""


@dataclass
class Browser:
    """A page of a browser, with everything it asked for and complained about."""

    page: Page
    hosts: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium on the PATH")
    switches = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    async with async_playwright() as play:
        chromium = await play.chromium.launch(executable_path=CHROMIUM, args=switches)
        opened = Browser(await chromium.new_page())
        opened.page.on("request", lambda request: opened.hosts.add(urlsplit(request.url).netloc))
        opened.page.on("pageerror", lambda error: opened.errors.append(str(error)))
        opened.page.on(
            "console",
            lambda line: opened.errors.append(line.text) if line.type == "error" else None,
        )
        yield opened
        await chromium.close()


@pytest.mark.parametrize(("changes", "path"), [({}, ""), (KEYS, ""), (ROOT, "/llm"), (ROOT, "")])
async def test_the_page_shows_the_operations_and_asks_no_other_host(
    server: RunningApp, browser: Browser, path: str
) -> None:
    await browser.page.goto(f"{server.url}{path}/docs")
    await browser.page.locator(".opblock").first.wait_for(timeout=30_000)
    shown = await browser.page.locator(".opblock-summary-path").all_inner_texts()
    assert "/v1/chat/completions" in [text.replace(ZERO_WIDTH_SPACE, "") for text in shown]
    assert browser.hosts == {urlsplit(server.url).netloc}
    assert browser.errors == []


@pytest.mark.parametrize("changes", [KEYS, ROOT])
async def test_the_files_have_a_type_and_may_be_cached(
    http: httpx.AsyncClient, changes: dict[str, Any]
) -> None:
    page = await http.get("/docs")
    for name, kind in FILES.items():
        assert f"{changes.get('root_path', '')}/docs/{name}" in page.text
        reply = await http.get(f"/docs/{name}")
        assert reply.headers["content-type"].partition(";")[0] == kind
        assert reply.headers["cache-control"] == "public, max-age=86400"
        again = await http.get(f"/docs/{name}", headers={"If-None-Match": reply.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


async def test_other_files_of_the_package_are_not_served(http: httpx.AsyncClient) -> None:
    for path in ("/docs/__init__.py", "/docs/..%2Fmain.py", "/docs/nothing.js"):
        assert (await http.get(path)).status_code == 404
