"""The console, the guide and the documentation of the API: their pages and files."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from api_support import RunningApp, error_of
from console_browser import console_page, running_browser
from pydantic import SecretStr
from raw_client import with_settings
from starlette.staticfiles import StaticFiles

from api.routes.pages import guide

SCRIPT = "/static/main.js"
LINK = re.compile(r'(?:src|href)="([^"#]+)"')
"""URL of a file in the page; links to the console's own pages begin with #."""


GUIDE = "/docs/guide/README.html"


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "README.html").write_text("<title>Lorikeet</title>")
    monkeypatch.setattr(guide, "_files", StaticFiles(directory=tmp_path))


@pytest.fixture
def not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guide, "_files", StaticFiles(directory=tmp_path / "no", check_dir=False))


@pytest.mark.usefixtures("built")
async def test_pages_and_their_files_have_strict_headers(http: httpx.AsyncClient) -> None:
    for path, kind in (("/", "text/html"), (SCRIPT, "text/javascript"), (GUIDE, "text/html")):
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
    assert (await http.get(GUIDE)).text == "<title>Lorikeet</title>"


async def test_a_browser_that_has_the_file_gets_no_body(http: httpx.AsyncClient) -> None:
    first = await http.get(SCRIPT)
    assert first.headers["cache-control"] == "no-cache"
    again = await http.get(SCRIPT, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize(
    "name", ["nothing.js", "%2e%2e/app.py", "lib", "__init__.py", "..%2Fmain.py"]
)
async def test_other_files_are_not_found(http: httpx.AsyncClient, name: str) -> None:
    for folder in ("/static", "/docs/guide", "/docs"):
        assert error_of(await http.get(f"{folder}/{name}")) == (404, "unknown_url", None)


@pytest.mark.usefixtures("not_built")
async def test_without_the_site_of_the_guide_its_urls_are_unknown(http: httpx.AsyncClient) -> None:
    for path in ("/docs/guide", GUIDE):
        assert error_of(await http.get(path)) == (404, "unknown_url", None)


@pytest.mark.usefixtures("built")
@with_settings(api_keys=(SecretStr("admin:" + "k" * 20),))
async def test_pages_need_no_key(direct: httpx.AsyncClient) -> None:
    for path in ("/", SCRIPT, GUIDE):
        assert (await direct.get(path)).status_code == 200
    assert (await direct.get("/v1/pool")).status_code == 401


@pytest.mark.usefixtures("built")
@with_settings(root_path="/llm")
async def test_below_a_root_path_the_guides_first_page_is_found(direct: httpx.AsyncClient) -> None:
    for asked in ("/docs/guide", "/docs/guide/", "/llm/docs/guide"):
        reply = await direct.get(asked)
        assert (reply.status_code, reply.headers["location"]) == (307, f"/llm{GUIDE}")
        assert (await direct.get(reply.headers["location"])).status_code == 200


@with_settings(root_path="/llm")
async def test_below_a_root_path_the_page_finds_its_files(direct: httpx.AsyncClient) -> None:
    files = set()
    for seen in ("/llm", "/llm/", "/"):  # a proxy may remove the root path
        page = await direct.get(seen)
        assert page.status_code == 200
        assert page.headers["content-security-policy"]
        links = LINK.findall(page.text)
        files |= {urljoin(shown, path) for shown in ("/llm", "/llm/") for path in links}
    assert f"/llm{SCRIPT}" in files
    for path in files:
        assert path.startswith("/llm/static/")
        for asked in (path, path.removeprefix("/llm")):
            assert (await direct.get(asked)).status_code == 200


FILES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
KEYS = {"api_keys": (SecretStr("r" * 16),)}
ROOT = {"root_path": "/llm"}
ZERO_WIDTH_SPACE = "\u200b"
"""Swagger UI puts it into paths, where a line may break."""


@with_settings(**KEYS)
async def test_the_page_shows_the_operations_and_asks_no_other_host(server: RunningApp) -> None:
    async with (
        running_browser() as browser,
        console_page(browser, server.url) as opened,
    ):
        await opened.page.goto(f"{server.url}/docs")
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
