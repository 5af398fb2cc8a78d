"""The console, the guide and the documentation of the API: pages, files and the document."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
import jsonschema
import pytest
from api_support import ADAPTER, BASE, RunningApp, ScriptedWorker, error_of
from console_browser import console_page, running_browser
from pydantic import SecretStr
from raw_client import CHAT, with_settings
from starlette.staticfiles import StaticFiles
from translated_jobs import HI

from api.routes.pages import guide
from api.routes.pages.console import DIGEST

SCRIPT = f"/static/{DIGEST}/console.js"
LINK = re.compile(r'(?:src|href)="([^"#]+)"')
"""URL of a file in the page; links to the console's own pages begin with #."""


GUIDE = "/docs/guide/README.html"
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


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
        reply = await http.get(path, headers=BROWSER)
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


@pytest.mark.parametrize("accept", ["application/json", "*/*", ""])
async def test_a_client_that_looks_for_ollama_finds_it_and_a_browser_the_console(
    http: httpx.AsyncClient, accept: str
) -> None:
    found, page = [await http.get("/", headers=h) for h in ({"Accept": accept}, BROWSER)]
    assert (found.status_code, found.text) == (200, "Ollama is running")
    assert (await http.head("/", headers={"Accept": accept})).status_code == 200
    assert page.text.startswith("<!doctype html>")
    assert found.headers["vary"] == page.headers["vary"] == "Accept"


@pytest.mark.parametrize("path", ["/", SCRIPT])
async def test_a_browser_that_has_the_file_gets_no_body(http: httpx.AsyncClient, path: str) -> None:
    first = await http.get(path, headers=BROWSER)
    again = await http.get(path, headers={**BROWSER, "If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_files_of_this_release_are_kept_and_others_are_asked_for_again(
    http: httpx.AsyncClient,
) -> None:
    assert "immutable" in (await http.get(SCRIPT)).headers["cache-control"]
    other = await http.get(SCRIPT.replace(DIGEST, "0" * 12))
    assert other.status_code == 200
    for reply in (other, await http.get("/", headers=BROWSER)):
        assert reply.headers["cache-control"] == "no-cache"


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize(
    "name",
    ["nothing.js", "%2e%2e/app.py", f"{DIGEST}/main.js", "x/%2e%2e", "__init__.py", "..%2Fmain.py"],
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
        page = await direct.get(seen, headers=BROWSER)
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


@pytest.mark.slow
@with_settings(**KEYS)
async def test_the_page_shows_the_operations_and_asks_no_other_host(server: RunningApp) -> None:
    async with (
        running_browser() as browser,
        console_page(browser, server.url) as opened,
    ):
        await opened.page.goto(f"{server.url}/docs")
        await opened.page.locator(".opblock").first.wait_for(timeout=120_000)
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


async def test_every_reference_of_the_openapi_document_resolves(http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    schemas = set(document["components"]["schemas"])
    assert {ref.rpartition("/")[2] for ref in references(document)} == schemas


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*(references(value) for value in node.values()))
    if isinstance(node, list):
        return set().union(*(references(value) for value in node))
    return set()


async def test_jobs_and_lists_follow_the_document(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    document = (await http.get("/openapi.json")).json()
    ids = []
    for url, fields in (
        ("/v1/chat/completions", {"messages": [HI], "logprobs": True}),
        ("/v1/completions", {"prompt": "hi", "service_tier": "flex"}),
    ):
        ids.append(await started(http, url, fields))
        await worker.answer(await worker.take())
    ids.append(await started(http, "/v1/completions", {"prompt": "hi"}))
    for job_id in ids:
        body = (await http.get(f"/v1/jobs/{job_id}")).json()
        validate(document, "JobBody", body)
    assert body["state"] == "queued"
    listed = (await http.get("/v1/jobs")).json()
    validate(document, "JobList", listed)
    assert [job["state"] for job in listed["data"]] == ["queued", "done", "done"]
    for deleted in (False, True):
        reply = (await http.delete(f"/v1/jobs/{ids[2]}")).json()
        validate(document, "DeletedJob", reply)
        assert reply["deleted"] is deleted


async def started(http: httpx.AsyncClient, url: str, fields: dict[str, Any]) -> str:
    """Start a job in the background and return its id."""
    reply = await http.post(url, json={"model": "extract", "background": True, **fields})
    job_id: str = reply.json()["id"]
    return job_id


def validate(document: Any, schema: str, body: Any) -> None:
    """Check that `body` has every field of the schema in the document, with its type."""
    reference = {"$ref": f"#/components/schemas/{schema}", "components": document["components"]}
    jsonschema.validate(body, reference, jsonschema.Draft202012Validator)
    assert body.keys() <= document["components"]["schemas"][schema]["properties"].keys()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_the_headers_and_statuses_of_requests_are_described(
    http: httpx.AsyncClient, path: str
) -> None:
    operation = (await http.get("/openapi.json")).json()["paths"][path]["post"]
    headers = {each["name"] for each in operation["parameters"] if each["in"] == "header"}
    assert headers == {
        *("Idempotency-Key", "X-Lorikeet-On-Disconnect", "X-Lorikeet-Deadline-S", "Prefer")
    }
    responses = operation["responses"]
    assert {"200", "202", "400", "409", "429"} <= responses.keys()
    assert {"Location", "X-Lorikeet-Job", "Idempotent-Replayed"} <= responses["202"][
        "headers"
    ].keys()
    assert "Retry-After" in responses["429"]["headers"]
    assert {"X-Lorikeet-Warning", "Preference-Applied"} <= responses["200"]["headers"].keys()


async def test_the_schemas_of_requests_allow_other_fields(http: httpx.AsyncClient) -> None:
    schemas = (await http.get("/openapi.json")).json()["components"]["schemas"]
    for name in ("ChatCompletionRequest", "CompletionRequest", "UserMessage", "StreamOptions"):
        assert schemas[name]["additionalProperties"] is True
    messages = schemas["ChatCompletionRequest"]["properties"]["messages"]
    assert (messages["type"], messages["minItems"]) == ("array", 1)
    body = {
        "model": "extract",
        "messages": [{"role": role, "content": "x"} for role in ("user", "king")],
    }
    validate({"components": {"schemas": schemas}}, "ChatCompletionRequest", body)


async def test_the_document_has_every_model_name_and_an_example_for_each(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    assert "/openapi.json" in (await http.get("/docs")).text
    document = (await http.get("/openapi.json")).json()
    for name in ("ChatCompletionRequest", "CompletionRequest"):
        properties = document["components"]["schemas"][name]["properties"]
        assert properties["model"]["enum"] == [BASE.name, ADAPTER.name]
    for path in (CHAT, "/v1/completions"):
        content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        assert list(content["examples"]) == [BASE.name, ADAPTER.name]
        example = content["examples"]["extract"]["value"]
        reply, _ = await worker.serve(http.post(path, json=example))
        assert reply.status_code == 200
