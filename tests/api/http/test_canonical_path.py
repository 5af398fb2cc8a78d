"""Trailing slashes, and a root path behind a proxy."""

from typing import Any

import httpx
import pytest
from api_support import ScriptedWorker, error_of
from key_support import bearer
from pydantic import SecretStr
from raw_client import with_settings

from api.http.canonical_path import canonical_path

BODY = {"model": "extract", "messages": [{"role": "user", "content": "hi"}], "background": True}
CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("path", "root", "expected"),
    [
        ("/", "/llm", "/"),
        ("/llm", "/llm", "/"),
        ("/llm/", "/llm", "/"),
        ("/llm/v1/models", "/llm", "/v1/models"),
        ("/llm/llm/v1", "/llm", "/llm/v1"),
        ("/llmx/v1", "/llm", "/llmx/v1"),
        ("/v1/models//", "/llm", "/v1/models"),
        ("//llm/v1", "/llm", "//llm/v1"),
        ("/llm/v1/", "", "/llm/v1"),
    ],
)
def test_the_root_path_and_trailing_slashes_are_removed(
    path: str, root: str, expected: str
) -> None:
    assert canonical_path(path, root) == expected


async def test_a_trailing_slash_changes_nothing(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    assert (await http.post(f"{CHAT}/", json=BODY)).status_code == 202
    assert (await http.get("/v1/models/")).json() == (await http.get("/v1/models")).json()
    assert error_of(await http.get(f"{CHAT}/"))[0] == 405


@pytest.fixture
def changes() -> dict[str, Any]:
    return {"root_path": "/llm"}


async def test_routes_work_with_and_without_the_root_path(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    for root in ("", "/llm"):
        reply = await http.post(f"{root}{CHAT}", json=BODY)
        assert reply.headers["location"] == f"/llm/v1/jobs/{reply.json()['id']}"
        assert (await http.get(f"{root}/health")).status_code == 200
    assert error_of(await http.get("/other/v1/models"))[:2] == (404, "unknown_url")


async def test_the_documentation_names_the_root_path(http: httpx.AsyncClient) -> None:
    assert "'/llm/openapi.json'" in (await http.get("/llm/docs")).text
    document = (await http.get("/llm/openapi.json")).json()
    assert document["servers"] == [{"url": "/llm"}]
    assert "](/llm/v1/models)" in document["info"]["description"]


@with_settings(root_path="/llm", api_keys=(SecretStr("red:" + "r" * 20),))
async def test_keys_are_checked_below_the_root_path(direct: httpx.AsyncClient) -> None:
    red = bearer("r" * 20)
    assert (await direct.get("/llm/v1/models")).status_code == 401
    assert (await direct.get("/llm/v1/models", headers=red)).status_code == 200
    assert (await direct.get("/llm/metrics", headers=red)).status_code == 403
    assert (await direct.get("/llm/health")).status_code == 200
