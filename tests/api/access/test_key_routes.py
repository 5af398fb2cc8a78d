"""/v1/keys: creating, listing and revoking keys, and the ways into and out of a closed pool."""

from typing import Any

import httpx
import pytest
from api_support import error_of, running_app
from key_support import bearer, new_key
from pydantic import SecretStr
from raw_client import with_settings

from shared.protocol.access.rights import KeyLimits, Scope
from shared.settings import ApiSettings
from shared.store.access import key_store
from shared.store.access.key_store import KeyStore
from shared.store.adapters.audit_log import Changes
from shared.store.adapters.registry import Registry
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

URL = "/v1/keys"
LIMITS = {
    "requests_per_minute": 1,
    "tokens_per_minute": 2,
    "requests_per_day": 3,
    "tokens_per_day": 4,
}
ADMIN_KEY = "admin-" + "a" * 20


@pytest.fixture(autouse=True)
def no_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let front ends read the keys for every request, instead of every two seconds."""
    monkeypatch.setattr("api.access.stored_keys.MAX_AGE_S", 0)


async def create(http: httpx.AsyncClient, secret: str | None = None, **body: Any) -> dict[str, Any]:
    headers = bearer(secret) if secret else {}
    reply = await http.post(URL, json={"tenant": "red", **body}, headers=headers)
    assert reply.status_code == 201, reply.text
    created: dict[str, Any] = reply.json()
    return created


async def test_the_first_key_of_an_open_pool_is_an_administrators(
    direct: httpx.AsyncClient, store: KeyStore
) -> None:
    first = await create(direct)
    assert set(first["scopes"]) == set(Scope)
    assert error_of(await direct.post(URL, json={"tenant": "red"}))[0] == 401
    second = await create(direct, first["secret"])
    assert second["scopes"] == [Scope.INFERENCE]
    access = await store.find(second["secret"])
    assert access is not None
    assert (access.tenant, access.scopes, access.models) == ("red", {Scope.INFERENCE}, ("*",))


async def test_a_first_key_that_cannot_manage_keys_needs_a_confirmation(
    direct: httpx.AsyncClient, store: KeyStore
) -> None:
    body = {"tenant": "red", "scopes": ["inference"]}
    reply = await direct.post(URL, json=body)
    assert error_of(reply) == (409, "key_conflict", "scopes")
    assert "nobody could manage keys" in reply.text
    assert await store.all() == []
    assert (await direct.get("/v1/models")).status_code == 200
    assert (await create(direct, scopes=["inference"], allow_lockout=True))["scopes"] == [
        "inference"
    ]


async def test_the_list_has_everything_but_secrets(direct: httpx.AsyncClient) -> None:
    first = await create(direct)
    body = {"models": ["sql-*", "base"], "limits": LIMITS, "expires_days": 5}
    created = await create(direct, first["secret"], scopes=["inference", "adapters"], **body)
    reply = await direct.get(URL, headers=bearer(first["secret"]))
    assert reply.json()["object"] == "list"
    assert [key["id"] for key in reply.json()["data"]] == [first["id"], created["id"]]
    shown = reply.json()["data"][1]
    assert {**shown, "secret": created["secret"]} == created
    assert shown["scopes"] == ["adapters", "inference"]
    assert (shown["models"], shown["limits"]) == (["sql-*", "base"], LIMITS)
    assert shown["expires_at"] == shown["created_at"] + 5 * 86_400
    assert (shown["state"], shown["revoked_at"]) == ("valid", None)
    for key in (first, created):
        assert key["secret"].split("-", 2)[2] not in reply.text


async def test_a_revoked_key_is_refused_and_listed_as_revoked(
    direct: httpx.AsyncClient, redis: Redis, keys: Keys
) -> None:
    first = await create(direct)
    other = await create(direct, first["secret"], expires_days=1)
    headers = bearer(first["secret"])
    for _ in range(2):
        revoked = (await direct.delete(f"{URL}/{other['id']}", headers=headers)).json()
        assert revoked["state"] == "revoked"
        assert revoked["revoked_at"] >= revoked["created_at"]
    assert (await direct.get("/v1/models", headers=bearer(other["secret"]))).status_code == 401
    reply = await direct.delete(f"{URL}/nothing", headers=headers)
    assert error_of(reply) == (404, "key_not_found", None)
    await redis.hset(keys.access_key(first["id"]), "expires_ms", 1)  # type: ignore[misc]
    (expired, _) = [key["state"] for key in await listed(KeyStore(redis, keys), direct)]
    assert expired == "expired"


async def listed(store: KeyStore, http: httpx.AsyncClient) -> list[dict[str, Any]]:
    """Return the keys as a new administrator sees them, without this administrator's."""
    secret, key_id = await new_key(store, Scope.ADMIN)
    data = (await http.get(URL, headers=bearer(secret))).json()["data"]
    return [key for key in data if key["id"] != key_id]


async def test_the_last_key_that_can_manage_keys_is_revoked_only_on_purpose(
    direct: httpx.AsyncClient, store: KeyStore
) -> None:
    first = await create(direct)
    url, headers = f"{URL}/{first['id']}", bearer(first["secret"])
    reply = await direct.delete(url, headers=headers)
    assert error_of(reply)[:2] == (409, "key_conflict")
    other = await create(direct, first["secret"], scopes=["admin"])
    await store.revoke(other["id"])
    assert (await direct.delete(url, headers=headers)).status_code == 409  # the other is invalid
    revoked = await direct.delete(url, headers=headers, params={"allow_lockout": "true"})
    assert revoked.json()["state"] == "revoked"


async def test_a_pool_is_opened_again_by_one_request(
    direct: httpx.AsyncClient, redis: Redis, keys: Keys
) -> None:
    first = await create(direct)
    await create(direct, first["secret"])
    headers = bearer(first["secret"])
    reply = await direct.delete(URL, headers=headers)
    assert error_of(reply) == (400, "invalid_value", "opens_pool")
    assert (await direct.get("/v1/models")).status_code == 401
    opened = await direct.delete(URL, headers=headers, params={"opens_pool": "true"})
    assert [key["state"] for key in opened.json()["data"]] == ["revoked", "revoked"]
    assert (await direct.get("/v1/models")).status_code == 200
    again = await create(direct)  # the first key of the open pool
    assert set(again["scopes"]) == set(Scope)
    assert (await direct.get("/v1/models")).status_code == 401
    changes = await Changes(redis, keys).newest(
        9, before=None, wanted=lambda each: not each.adapter
    )
    assert [(each.action, each.by) for each in changes] == [
        ("key_created", "default"),
        ("keys_opened", f"red/{first['id']}"),
        *[("key_revoked", f"red/{first['id']}")] * 2,
        ("key_created", f"red/{first['id']}"),
        ("key_created", "default"),
    ]


async def test_a_pool_whose_redis_lost_the_keys_stays_closed(
    direct: httpx.AsyncClient, redis: Redis, keys: Keys
) -> None:
    await create(direct)
    assert (await direct.get("/v1/models")).status_code == 401
    await redis.delete(keys.access_keys)
    assert (await direct.get("/v1/models")).status_code == 401


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "tenant"),
        ({"tenant": "a b"}, "tenant"),
        ({"tenant": "a:b"}, "tenant"),
        ({"tenant": "a\n"}, "tenant"),
        ({"tenant": "red", "models": ["a b"]}, "models[0]"),
        ({"tenant": "red", "models": []}, "models"),
        ({"tenant": "red", "models": ["a"]}, "models"),  # the first key sees all models
        ({"tenant": "red", "models": ["a"], "scopes": ["metrics"]}, "models"),
        ({"tenant": "red", "scopes": []}, "scopes"),
        ({"tenant": "red", "scopes": ["root"]}, "scopes[0]"),
        ({"tenant": "red", "limits": {"requests_per_day": 0}}, "limits.requests_per_day"),
        ({"tenant": "red", "limits": {"request_per_day": 1}}, "limits.request_per_day"),
        ({"tenant": "red", "expires_days": 0}, "expires_days"),
        ({"tenant": "red", "expires": 1}, "expires"),
    ],
)
async def test_an_invalid_body_creates_nothing(
    direct: httpx.AsyncClient, store: KeyStore, body: dict[str, Any], param: str
) -> None:
    status, _, named = error_of(await direct.post(URL, json=body))
    assert (status, named) == (400, param)
    assert await store.demanded() is None


@with_settings(api_keys=(SecretStr(f"admin:{ADMIN_KEY}"),))
async def test_an_administrator_of_the_settings_creates_ordinary_keys_and_revokes_any(
    direct: httpx.AsyncClient, store: KeyStore
) -> None:
    created = await create(direct, ADMIN_KEY)
    assert created["scopes"] == ["inference"]
    _, key_id = await new_key(store, Scope.ADMIN)
    reply = await direct.delete(f"{URL}/{key_id}", headers=bearer(ADMIN_KEY))
    assert reply.status_code == 200


@with_settings(metrics_key=SecretStr(ADMIN_KEY))
async def test_the_metrics_key_cannot_manage_keys(direct: httpx.AsyncClient) -> None:
    for method in ("GET", "POST", "DELETE"):
        reply = await direct.request(method, URL, headers=bearer(ADMIN_KEY))
        assert error_of(reply)[:2] == (403, "permission_denied")


@with_settings(host="0.0.0.0", allow_anonymous=True)
async def test_the_network_cannot_create_the_first_key(direct: httpx.AsyncClient) -> None:
    reply = await direct.post(URL, json={"tenant": "red"})
    assert error_of(reply)[:2] == (403, "permission_denied")
    assert "--api-key admin:KEY" in reply.text


async def test_at_the_limit_a_new_key_replaces_the_oldest_invalid_one(
    direct: httpx.AsyncClient, store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_store, "MAX_KEYS", 3)
    first = await create(direct)
    _, old = await new_key(store)
    _, kept = await new_key(store)
    reply = await direct.post(URL, json={"tenant": "red"}, headers=bearer(first["secret"]))
    assert error_of(reply)[:2] == (400, "quota_exceeded")
    await store.revoke(old)
    created = await create(direct, first["secret"])
    assert [key.id for key in await store.all()] == [first["id"], kept, created["id"]]


async def test_keys_of_a_further_pool_are_those_of_the_front_end(
    settings: ApiSettings, registry: Registry, store: KeyStore
) -> None:
    changed = settings.model_copy(update={"further_pools": (f"{settings.pool}-2",)})
    async with (
        running_app(changed) as app,
        httpx.AsyncClient(base_url=f"{app.url}/pools/{settings.pool}-2", timeout=60) as http,
    ):
        created = await create(http, limits=LIMITS)
    (key,) = await store.all()
    assert (key.id, key.limits) == (created["id"], KeyLimits(**LIMITS))
