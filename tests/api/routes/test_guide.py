"""The documentation's site at /docs/guide."""

from pathlib import Path

import httpx
import pytest
from api_support import client_of, error_of
from pydantic import SecretStr
from starlette.staticfiles import StaticFiles

from api.app import create_app
from api.routes.pages import guide
from shared.settings import ApiSettings

PAGE = "/docs/guide/README.html"


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "README.html").write_text("<title>Lorikeet</title>")
    monkeypatch.setattr(guide, "_files", StaticFiles(directory=tmp_path))


@pytest.fixture
def not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guide, "_files", StaticFiles(directory=tmp_path / "no", check_dir=False))


@pytest.mark.usefixtures("built")
async def test_a_page_has_strict_headers(http: httpx.AsyncClient) -> None:
    reply = await http.get(PAGE)
    assert (reply.status_code, reply.text) == (200, "<title>Lorikeet</title>")
    assert "default-src 'self'" in reply.headers["content-security-policy"]
    assert "unsafe" not in reply.headers["content-security-policy"]
    assert reply.headers["x-content-type-options"] == "nosniff"


@pytest.mark.usefixtures("built")
async def test_a_page_needs_no_key(settings: ApiSettings) -> None:
    given = {"api_keys": (SecretStr("admin:" + "k" * 20),)}
    async with client_of(create_app(settings.model_copy(update=given))) as http:
        assert (await http.get(PAGE)).status_code == 200


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("asked", ["/docs/guide", "/docs/guide/", "/llm/docs/guide"])
async def test_the_first_page_is_found_below_a_root_path(settings: ApiSettings, asked: str) -> None:
    given = {"root_path": "/llm"}
    async with client_of(create_app(settings.model_copy(update=given))) as http:
        reply = await http.get(asked)
        assert (reply.status_code, reply.headers["location"]) == (307, f"/llm{PAGE}")
        assert (await http.get(reply.headers["location"])).status_code == 200


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("path", ["nothing.html", "%2e%2e/app.py"])
async def test_other_files_are_not_found(http: httpx.AsyncClient, path: str) -> None:
    assert error_of(await http.get(f"/docs/guide/{path}")) == (404, "unknown_url", None)


@pytest.mark.usefixtures("not_built")
@pytest.mark.parametrize("path", ["/docs/guide", PAGE])
async def test_without_the_site_its_urls_are_unknown(http: httpx.AsyncClient, path: str) -> None:
    assert error_of(await http.get(path)) == (404, "unknown_url", None)
