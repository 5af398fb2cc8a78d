"""GET /docs in a real browser: Swagger UI, with files that the server itself serves."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from api_support import RunningApp
from console_browser import console_page, running_browser
from playwright.async_api import Browser
from pydantic import SecretStr

FILES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
KEYS = {"api_keys": (SecretStr("r" * 16),)}
ROOT = {"root_path": "/llm"}
ZERO_WIDTH_SPACE = "\u200b"
"""Swagger UI puts it into paths, where a line may break."""


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with running_browser() as browser:
        yield browser


@pytest.mark.parametrize(
    ("changes", "paths"),
    [(KEYS, ("",)), pytest.param(ROOT, ("/llm", ""), marks=pytest.mark.slow)],
)
async def test_the_page_shows_the_operations_and_asks_no_other_host(
    server: RunningApp, browser: Browser, paths: tuple[str, ...]
) -> None:
    async with console_page(browser, server.url) as opened:
        for path in paths:
            await opened.page.goto(f"{server.url}{path}/docs")
            await opened.page.locator(".opblock").first.wait_for(timeout=30_000)
            shown = await opened.page.locator(".opblock-summary-path").all_inner_texts()
            assert "/v1/chat/completions" in [text.replace(ZERO_WIDTH_SPACE, "") for text in shown]
        assert opened.hosts == {urlsplit(server.url).netloc}
        assert opened.log == []


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
