"""Which clients may manage adapters."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from api_support import error_of, running_app
from pydantic import SecretStr

from shared.settings import ApiSettings
from shared.store.adapters.registry import Registry

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
VALIDATE = "/v1/adapters/validate"
SQL = {"lora_name": "sql", "lora_path": "/adapters/sql"}
ADMIN, RED = "admin-" + "a" * 20, "red-" + "r" * 20
ROUTES = [
    ("POST", LOAD, SQL),
    ("POST", UNLOAD, {"lora_name": "extract"}),
    ("POST", VALIDATE, {"lora_path": "/x"}),
    ("GET", "/v1/adapters", None),
    ("POST", "/v1/adapters?name=sql", None),
    ("POST", "/pause?mode=keep", None),
    ("POST", "/resume", None),
    ("POST", "/v1/adapters/extract/rollback", None),
    ("DELETE", "/v1/adapters/extract", None),
]


@asynccontextmanager
async def http_of(settings: ApiSettings, **changes: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        running_app(settings.model_copy(update=changes)) as app,
        httpx.AsyncClient(base_url=app.url) as http,
    ):
        yield http


async def test_with_keys_only_the_tenant_admin_may_manage_adapters(
    settings: ApiSettings, registry: Registry
) -> None:
    keys = tuple(SecretStr(word) for word in (f"admin:{ADMIN}", f"red:{RED}"))
    async with http_of(settings, api_keys=keys) as http:
        for method, url, body in ROUTES:
            assert (await http.request(method, url, json=body)).status_code == 401
            red = {"Authorization": f"Bearer {RED}"}
            reply = await http.request(method, url, json=body, headers=red)
            assert error_of(reply)[:2] == (403, "permission_denied")
        admin = {"Authorization": f"Bearer {ADMIN}"}
        assert (await http.get("/v1/adapters", headers=admin)).status_code == 200
        assert (await http.delete("/v1/adapters/extract", headers=admin)).status_code == 200


async def test_without_keys_adapters_cannot_be_managed_from_the_network(
    settings: ApiSettings, registry: Registry
) -> None:
    async with http_of(settings, host="0.0.0.0", allow_anonymous=True) as http:
        for method, url, body in ROUTES:
            reply = await http.request(method, url, json=body)
            assert error_of(reply)[:2] == (403, "permission_denied")
        assert (await http.get("/v1/models")).status_code == 200


async def test_pages_of_other_sites_may_not_manage_adapters(
    http: httpx.AsyncClient, registry: Registry
) -> None:
    for method, url, body in ROUTES:
        reply = await http.request(method, url, json=body, headers={"Origin": "http://evil.test"})
        assert error_of(reply)[:2] == (403, "permission_denied")
    own = {"Origin": str(http.base_url).rstrip("/")}
    assert (await http.get("/v1/adapters", headers=own)).status_code == 200
