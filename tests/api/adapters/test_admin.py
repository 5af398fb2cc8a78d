"""Which clients may manage adapters."""

import httpx
from api_support import error_of
from raw_client import with_settings

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
VALIDATE = "/v1/adapters/validate"
SQL = {"lora_name": "sql", "lora_path": "/adapters/sql"}
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


@with_settings(host="0.0.0.0", allow_anonymous=True)
async def test_without_keys_adapters_cannot_be_managed_from_the_network(
    http: httpx.AsyncClient,
) -> None:
    for method, url, body in ROUTES:
        reply = await http.request(method, url, json=body)
        assert error_of(reply)[:2] == (403, "permission_denied")
    assert (await http.get("/v1/models")).status_code == 200


async def test_pages_of_other_sites_may_not_manage_adapters(http: httpx.AsyncClient) -> None:
    for method, url, body in ROUTES:
        reply = await http.request(method, url, json=body, headers={"Origin": "http://evil.test"})
        assert error_of(reply)[:2] == (403, "permission_denied")
    own = {"Origin": str(http.base_url).rstrip("/")}
    assert (await http.get("/v1/adapters", headers=own)).status_code == 200
