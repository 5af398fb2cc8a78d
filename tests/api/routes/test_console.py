"""The console's page and files."""

import httpx
import pytest
from api_support import client_of, error_of
from pydantic import SecretStr

from api.app import create_app
from shared.settings import ApiSettings

FILE = "/static/main.js"


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


async def test_the_page_needs_no_key(settings: ApiSettings) -> None:
    given = {"api_keys": (SecretStr("admin:" + "k" * 20),)}
    async with client_of(create_app(settings.model_copy(update=given))) as http:
        for path in ("/", FILE):
            assert (await http.get(path)).status_code == 200
        assert (await http.get("/v1/pool")).status_code == 401


async def test_below_a_root_path_the_page_is_at_a_path_that_ends_with_a_slash(
    settings: ApiSettings,
) -> None:
    given = {"root_path": "/llm"}
    async with client_of(create_app(settings.model_copy(update=given))) as http:
        reply = await http.get("/llm")
        assert (reply.status_code, reply.headers["location"]) == (307, "/llm/")
        for path in ("/llm/", "/", f"/llm{FILE}", FILE):
            assert (await http.get(path)).status_code == 200
