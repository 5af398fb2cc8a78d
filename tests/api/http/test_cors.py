"""Web pages of other sites that call the API."""

from typing import Any

import httpx
import pytest
from api_support import error_of
from raw_client import with_settings

from shared.store.adapters.registry import Registry

CHAT = "/v1/chat/completions"
SITE, OTHER = "https://app.example", "https://evil.example"
PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,idempotency-key",
}


@pytest.fixture
def changes() -> dict[str, Any]:
    return {"cors_origins": (SITE,)}


def allowed(reply: httpx.Response) -> str | None:
    return reply.headers.get("access-control-allow-origin")


async def test_pages_of_a_listed_site_may_send_any_request(http: httpx.AsyncClient) -> None:
    reply = await http.options(CHAT, headers={"Origin": SITE, **PREFLIGHT})
    assert (reply.status_code, allowed(reply)) == (200, SITE)
    assert "idempotency-key" in reply.headers["access-control-allow-headers"]
    assert "DELETE" in reply.headers["access-control-allow-methods"]
    assert "access-control-allow-credentials" not in reply.headers
    refused = await http.options(CHAT, headers={"Origin": OTHER, **PREFLIGHT})
    assert (refused.status_code, allowed(refused)) == (400, None)


async def test_pages_can_read_answers_errors_and_lorikeets_headers(
    http: httpx.AsyncClient, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = await http.get("/v1/models", headers={"Origin": SITE})
    assert allowed(listed) == SITE
    exposed = listed.headers["access-control-expose-headers"]
    for name in ("X-Lorikeet-Job", "X-Lorikeet-Warning", "X-Request-Id", "Retry-After"):
        assert name in exposed
    wrong = await http.post(CHAT, content=b"{", headers={"Origin": SITE})
    assert (wrong.status_code, allowed(wrong)) == (400, SITE)

    async def broken(*_: object, **__: object) -> None:
        raise KeyError("secret")

    monkeypatch.setattr("api.answers.draft.Draft.of", broken)
    body = {"model": "extract", "messages": [{"role": "user", "content": "hi"}]}
    failed = await http.post(CHAT, json=body, headers={"Origin": SITE})
    assert (failed.status_code, allowed(failed)) == (500, SITE)
    assert allowed(await http.get("/v1/models", headers={"Origin": OTHER})) is None


@with_settings()
async def test_by_default_no_page_may_call_the_api(http: httpx.AsyncClient) -> None:
    reply = await http.options(CHAT, headers={"Origin": SITE, **PREFLIGHT})
    assert (reply.status_code, allowed(reply)) == (405, None)
    assert allowed(await http.get("/health", headers={"Origin": SITE})) is None


async def test_only_pages_of_listed_sites_may_manage_adapters(http: httpx.AsyncClient) -> None:
    assert (await http.get("/v1/adapters", headers={"Origin": SITE})).status_code == 200
    refused = await http.get("/v1/adapters", headers={"Origin": OTHER})
    assert error_of(refused)[:2] == (403, "permission_denied")


@with_settings(cors_origins=("*",))
async def test_a_wildcard_lets_no_page_manage_adapters(http: httpx.AsyncClient) -> None:
    assert allowed(await http.get("/health", headers={"Origin": OTHER})) == "*"
    for origin in (OTHER, "null", "*"):
        refused = await http.delete("/v1/adapters/extract", headers={"Origin": origin})
        assert error_of(refused)[:2] == (403, "permission_denied")
