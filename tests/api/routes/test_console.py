"""The console's page and files."""

import re
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from api_support import error_of, running_app
from console_browser import console_page, running_browser
from playwright.async_api import Route, expect
from pydantic import SecretStr
from raw_client import with_settings

from shared.settings import ApiSettings

FILE = "/static/main.js"
LINK = re.compile(r'(?:src|href)="([^"#]+)"')
"""URL of a file in the page; links to the console's own pages begin with #."""


async def test_the_page_and_its_files_have_strict_headers(http: httpx.AsyncClient) -> None:
    for path, kind in (("/", "text/html"), (FILE, "text/javascript")):
        reply = await http.get(path)
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith(kind)
        policy = reply.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "no-referrer"
        assert (await http.head(path)).status_code == 200


async def test_a_browser_that_has_the_file_gets_no_body(http: httpx.AsyncClient) -> None:
    first = await http.get(FILE)
    assert first.headers["cache-control"] == "no-cache"
    again = await http.get(FILE, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", ["/static/nothing.js", "/static/%2e%2e/app.py", "/static/lib"])
async def test_other_paths_are_not_found(http: httpx.AsyncClient, path: str) -> None:
    assert error_of(await http.get(path)) == (404, "unknown_url", None)


@with_settings(api_keys=(SecretStr("admin:" + "k" * 20),))
async def test_the_page_needs_no_key(direct: httpx.AsyncClient) -> None:
    for path in ("/", FILE):
        assert (await direct.get(path)).status_code == 200
    assert (await direct.get("/v1/pool")).status_code == 401


@with_settings(root_path="/llm")
async def test_below_a_root_path_the_page_finds_its_files(direct: httpx.AsyncClient) -> None:
    files = set()
    for seen in ("/llm", "/llm/", "/"):  # a proxy may remove the root path
        page = await direct.get(seen)
        assert page.status_code == 200
        assert page.headers["content-security-policy"]
        links = LINK.findall(page.text)
        files |= {urljoin(shown, path) for shown in ("/llm", "/llm/") for path in links}
    assert f"/llm{FILE}" in files
    for path in files:
        assert path.startswith("/llm/static/")
        for asked in (path, path.removeprefix("/llm")):
            assert (await direct.get(asked)).status_code == 200


@pytest.mark.slow
async def test_a_browser_shows_the_console_of_a_proxy_that_removes_the_root_path(
    settings: ApiSettings,
) -> None:
    async def proxy(route: Route) -> None:
        url = urlsplit(route.request.url)
        if url.path == "/llm" or url.path.startswith("/llm/"):
            await route.continue_(url=url._replace(path=url.path.removeprefix("/llm")).geturl())
        else:
            await route.fulfill(status=404)

    given = settings.model_copy(update={"root_path": "/llm"})
    async with (
        running_app(given) as running,
        running_browser() as browser,
        console_page(browser, running.url) as console,
    ):
        await console.page.route("**/*", proxy)
        await console.page.goto(f"{running.url}/llm#/pool")
        await expect(console.page.get_by_text("No worker is in the pool.")).to_be_visible()
