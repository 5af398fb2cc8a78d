"""Stored keys on running front ends, and the models that they open."""

import asyncio
import itertools
import time
from datetime import UTC, datetime
from typing import Any

import anthropic
import httpx
import pytest
from adapter_readers import Reader
from api_support import ADAPTER, BASE, ScriptedWorker, client_of, error_of
from key_support import bearer, new_key
from pydantic import SecretStr
from raw_client import BODY, CHAT, with_settings

from api.access import stored_keys
from api.access.stored_keys import MAX_AGE_S, StoredKeys
from api.app import create_app
from shared.protocol.access.rights import Access, Scope
from shared.protocol.adapters import own_name
from shared.settings import ApiSettings
from shared.store.access.key_store import KeyStore
from shared.store.adapters.registry import Registry
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

STATIC = "blue-" + "b" * 20
BUSY_S = 30.0
"""Time in seconds that requests themselves may take on a busy machine."""
UNREACHABLE = "redis://127.0.0.1:1/0"


async def status_becomes(http: httpx.AsyncClient, status: int, headers: Any = None) -> float:
    """Ask until the status is as expected, and return the seconds that this took."""
    start = time.monotonic()
    while (await http.get("/v1/models", headers=headers)).status_code != status:
        assert time.monotonic() - start < 60
        await asyncio.sleep(0.05)
    return time.monotonic() - start


@pytest.mark.slow
async def test_from_the_first_stored_key_on_front_ends_demand_one(
    http: httpx.AsyncClient, other: httpx.AsyncClient, store: KeyStore
) -> None:
    assert (await http.get("/v1/models")).status_code == 200
    secret, key_id = await new_key(store)
    for client in (http, other):
        assert await status_becomes(client, 401) < MAX_AGE_S + BUSY_S
        assert (await client.get("/v1/models", headers=bearer(secret))).status_code == 200
    await store.revoke(key_id)
    for client in (http, other):
        assert await status_becomes(client, 401, bearer(secret)) < MAX_AGE_S + BUSY_S
    assert (await http.get("/v1/models")).status_code == 401  # not open again without valid keys


async def test_a_revoked_key_enqueues_nothing_even_while_a_front_end_remembers_it(
    http: httpx.AsyncClient, store: KeyStore, redis: Redis, keys: Keys
) -> None:
    secret, key_id = await new_key(store)
    assert (await http.get("/v1/models", headers=bearer(secret))).status_code == 200
    await store.revoke(key_id)
    reply = await http.post(CHAT, json=BODY, headers=bearer(secret))
    assert error_of(reply)[:2] == (401, "invalid_api_key")
    assert not await redis.exists(keys.due)


@with_settings(api_keys=(SecretStr(f"blue:{STATIC}"), SecretStr(f"admin:{STATIC}admin")))
async def test_keys_of_the_settings_keep_their_rights_beside_stored_ones(
    direct: httpx.AsyncClient, store: KeyStore
) -> None:
    secret, _ = await new_key(store, Scope.METRICS)
    cases = [
        *((path, f"{STATIC}admin", 200) for path in ("/v1/adapters", "/v1/pool", "/metrics")),
        *((path, STATIC, 403) for path in ("/v1/adapters", "/v1/pool", "/metrics")),
        *(("/v1/pool/events", STATIC, 403), ("/v1/models", STATIC, 200)),
        *(("/metrics", secret, 200), ("/v1/models", secret, 403)),
    ]
    for path, sent, status in cases:
        assert (await direct.get(path, headers=bearer(sent))).status_code == status, path


async def test_without_redis_no_stored_key_is_accepted(settings: ApiSettings) -> None:
    cases = {"require_keys": True}, {"api_keys": (SecretStr(STATIC),)}, {}
    secret = "lk-" + "0" * 12 + "-" + "x" * 43
    for changes in cases:
        changed = settings.model_copy(update={"redis_url": UNREACHABLE, **changes})
        async with client_of(create_app(changed)) as http:
            for path in ("/v1/models", "/metrics", "/v1/usage", "/v1/pool"):
                reply = await http.get(path, headers=bearer(secret))
                assert error_of(reply)[:2] == (503, "service_unavailable")
            assert (await http.get("/health", headers=bearer(secret))).status_code == 200
            assert (await http.get("/ready", headers=bearer(secret))).status_code == 503
    async with client_of(create_app(changed)) as http:
        assert (await http.get("/metrics")).status_code == 200  # says that Redis is away
        for path in ("/v1/jobs", "/v1/pool"):
            assert error_of(await http.get(path)) == (503, "service_unavailable", None)


async def test_guessed_keys_displace_no_valid_one(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_keys, "MAX_KEYS", 4)
    remembered = StoredKeys(store)
    secret, _ = await new_key(store)
    assert await remembered.access_of(secret)
    for number in range(20):
        assert await remembered.access_of(f"lk-{number:012x}-{'x' * 43}") is None
    assert (len(remembered._known), len(remembered._unknown)) == (1, 4)


async def test_a_key_sees_and_uses_only_the_models_of_its_patterns(
    http: httpx.AsyncClient, worker: ScriptedWorker, store: KeyStore
) -> None:
    secret, _ = await new_key(store, Scope.INFERENCE, Scope.ADAPTERS, models=("tiny/*",))
    other, _ = await new_key(store, Scope.INFERENCE, Scope.ADAPTERS, models=("ext*", "z"))
    headers = bearer(secret)
    listed = (await http.get("/v1/models", headers=headers)).json()["data"]
    assert [card["id"] for card in listed] == [BASE.name]
    listed = (await http.get("/v1/models", headers=bearer(other))).json()["data"]
    assert [card["id"] for card in listed] == [ADAPTER.name]
    assert (await http.get("/server_info", headers=bearer(other))).status_code == 404
    assert (await http.get("/v1/adapters", headers=headers)).json()["data"] == []
    document = (await http.get("/openapi.json", headers=headers)).json()
    names = document["components"]["schemas"]["ChatCompletionRequest"]["properties"]["model"]
    assert names["enum"] == [BASE.name]


NAMED = [
    ("POST", CHAT, BODY),
    ("POST", "/v1/completions", {"model": "extract", "prompt": "hi"}),
    ("POST", "/v1/embeddings", {"model": "extract", "input": "hi"}),
    ("POST", "/v1/responses", {"model": "extract", "input": "hi"}),
    ("POST", "/v1/responses/input_tokens", {"model": "extract", "input": "hi"}),
    ("POST", "/v1/messages", {**BODY, "max_tokens": 4}),
    ("POST", "/v1/messages/count_tokens", BODY),
    ("POST", "/api/chat", BODY),
    ("POST", "/api/generate", {"model": "extract", "prompt": "hi"}),
    ("POST", "/api/embed", {"model": "extract", "input": "hi"}),
    ("POST", "/api/embeddings", {"model": "extract", "prompt": "hi"}),
    *(("POST", f"/api/{name}", {"model": "extract"}) for name in ("chat", "show", "pull")),
    ("POST", "/tokenize", {"model": "extract", "prompt": "hi"}),
    ("POST", "/detokenize", {"model": "extract", "tokens": [1]}),
    ("GET", "/v1/models/extract", None),
    ("GET", "/v1/adapters/extract", None),
    ("DELETE", "/v1/adapters/extract", None),
    ("POST", "/v1/adapters/extract/rollback", None),
    ("POST", "/v1/unload_lora_adapter", {"lora_name": "extract"}),
]
"""Every route that names a model which must exist."""


async def test_a_model_that_is_not_allowed_looks_like_one_that_does_not_exist(
    http: httpx.AsyncClient, registry: Registry, store: KeyStore
) -> None:
    scopes = Scope.INFERENCE, Scope.ADAPTERS
    secret, _ = await new_key(store, *scopes, models=("tiny/*",))
    full, _ = await new_key(store, *scopes)
    for method, path, body in NAMED:
        refused = await http.request(method, path, json=body, headers=bearer(secret))
        assert (path, refused.status_code) == (path, 404)
        unknown = {k: "nothing" if v == "extract" else v for k, v in (body or {}).items()}
        other_path = path.replace("extract", "nothing")
        missing = await http.request(method, other_path, json=unknown, headers=bearer(full))
        assert refused.text.replace("extract", "nothing") == missing.text
    assert await registry.adapter("extract") is not None


async def test_a_new_name_outside_the_patterns_cannot_be_loaded(
    http: httpx.AsyncClient, store: KeyStore
) -> None:
    secret, _ = await new_key(store, Scope.ADAPTERS, models=("sql-*",))
    for path, body in (
        ("/v1/load_lora_adapter", {"lora_name": "other", "lora_path": "/x"}),
        ("/v1/adapters/validate", {"lora_name": "other", "lora_path": "/x"}),
        ("/v1/adapters?name=other", None),
    ):
        reply = await http.post(path, json=body, headers=bearer(secret))
        assert error_of(reply)[:2] == (404, "model_not_found")


async def test_answers_state_the_limits_and_what_is_left_of_them(
    http: httpx.AsyncClient, worker: ScriptedWorker, store: KeyStore
) -> None:
    secret, _ = await new_key(store, requests_per_day=10, tokens_per_day=1000)
    for form in ({}, {"stream": True}):
        body = {**BODY, **form, "max_tokens": 100}
        reply, _ = await worker.serve(http.post(CHAT, json=body, headers=bearer(secret)))
    headers = reply.headers
    assert headers["x-ratelimit-limit-requests"] == "10"
    assert headers["x-ratelimit-remaining-requests"] == "8"
    assert headers["x-ratelimit-limit-tokens"] == "1000"
    # The first answer was charged with the five tokens of its usage, the second still is with 100.
    assert 880 < int(headers["x-ratelimit-remaining-tokens"]) < 900
    assert headers["x-ratelimit-reset-tokens"].endswith("s")


async def test_answers_of_anthropics_api_have_its_headers(
    http: httpx.AsyncClient, worker: ScriptedWorker, store: KeyStore
) -> None:
    secret, _ = await new_key(store, requests_per_day=10, tokens_per_day=1000)
    message = {"model": BODY["model"], "max_tokens": 100, "messages": BODY["messages"]}
    async with anthropic.AsyncAnthropic(api_key=secret, base_url=str(http.base_url)) as client:
        sent = client.messages.with_raw_response.create(**message)
        reply, _ = await worker.serve(sent)
        headers, parsed = reply.headers, await reply.parse()
    assert parsed._request_id == headers["x-request-id"] == headers["request-id"]
    assert headers["anthropic-ratelimit-requests-limit"] == "10"
    assert headers["anthropic-ratelimit-requests-remaining"] == "9"
    assert headers["anthropic-ratelimit-tokens-limit"] == "1000"
    reset = datetime.fromisoformat(headers["anthropic-ratelimit-tokens-reset"])
    assert reset > datetime.now(UTC)
    chat, _ = await worker.serve(http.post(CHAT, json=BODY, headers=bearer(secret)))
    assert not any(name.startswith("anthropic-") for name in chat.headers)


async def test_a_request_that_no_window_can_hold_says_so_and_is_not_retried(
    http: httpx.AsyncClient, store: KeyStore
) -> None:
    secret, _ = await new_key(store, tokens_per_minute=50)
    reply = await http.post(CHAT, json={**BODY, "max_tokens": 100}, headers=bearer(secret))
    assert error_of(reply)[:2] == (429, "rate_limit_exceeded")
    assert reply.headers["x-should-retry"] == "false"
    assert "too large" in reply.json()["error"]["message"]


@with_settings(host="0.0.0.0", require_keys=True)
async def test_a_server_on_the_network_can_have_stored_keys_only(
    http: httpx.AsyncClient, store: KeyStore
) -> None:
    secret, _ = await new_key(store, Scope.ADAPTERS)
    assert (await http.get("/v1/models")).status_code == 401
    assert (await http.get("/v1/adapters", headers=bearer(secret))).status_code == 200


FORMS = ("extract", f"{BASE.name}:extract", ADAPTER.version, f"{BASE.name}:{ADAPTER.version}")
"""Forms of an adapter's name that requests may have."""
MATCHES_FORMS_ONLY = ("tiny/*", "[!e]*", "*@*", "*:*", "extract@*", f"{BASE.name}:extract")
"""Patterns that match a form of the name `extract`, but not the name."""


async def test_a_pattern_for_another_form_of_a_name_opens_nothing(
    http: httpx.AsyncClient, store: KeyStore
) -> None:
    for pattern, form in itertools.product(MATCHES_FORMS_ONLY, FORMS):
        secret, _ = await new_key(store, Scope.INFERENCE, Scope.ADAPTERS, models=(pattern,))
        replies = [
            await http.post(CHAT, json={**BODY, "model": form}, headers=bearer(secret)),
            await http.post("/tokenize", json={**BODY, "model": form}, headers=bearer(secret)),
            await http.get(f"/v1/models/{form}", headers=bearer(secret)),
            await http.get(f"/v1/adapters/{form}", headers=bearer(secret)),
        ]
        assert [reply.status_code for reply in replies] == [404] * 4, (pattern, form)
        assert error_of(replies[0])[1:] == ("model_not_found", "model")


async def test_a_pattern_for_the_name_opens_every_form(
    http: httpx.AsyncClient, worker: ScriptedWorker, store: KeyStore
) -> None:
    secret, _ = await new_key(store, models=("extract",))
    for form in FORMS:
        body = {**BODY, "model": form, "background": True}
        reply = await http.post(CHAT, json=body, headers=bearer(secret))
        assert reply.status_code in (200, 202), reply.text
        assert (await worker.take()).job.version == ADAPTER.version


async def test_a_quarantined_adapter_looks_like_an_unknown_one(
    http: httpx.AsyncClient, redis: Redis, keys: Keys, store: KeyStore
) -> None:
    await redis.hset(keys.version(ADAPTER.version), "state", "quarantined")  # type: ignore[misc]
    secret, _ = await new_key(store, models=("tiny/*",))
    for form in FORMS:
        reply = await http.post(CHAT, json={**BODY, "model": form}, headers=bearer(secret))
        assert error_of(reply)[:2] == (404, "model_not_found")


@with_settings(adapter_source="s3://bucket/{name}")
async def test_a_name_that_the_key_may_not_use_is_not_looked_up(
    http: httpx.AsyncClient, reader: Reader, store: KeyStore
) -> None:
    secret, _ = await new_key(store, models=("tiny/*",))
    for model in ("other", f"{BASE.name}:other"):
        reply = await http.post(CHAT, json={**BODY, "model": model}, headers=bearer(secret))
        assert error_of(reply)[:2] == (404, "model_not_found")
    assert reader.asked == []


async def test_jobs_and_usage_belong_to_the_model_whatever_the_request_called_it(
    http: httpx.AsyncClient, worker: ScriptedWorker, store: KeyStore
) -> None:
    full, _ = await new_key(store)
    narrow, _ = await new_key(store, models=("tiny/*",))
    for form in FORMS:
        body = {**BODY, "model": form, "background": True}
        job = (await http.post(CHAT, json=body, headers=bearer(full))).json()["id"]
        await worker.answer(await worker.take())
        for path in (f"/v1/jobs/{job}", f"/v1/responses/{job}", f"/v1/jobs/{job}/stream"):
            assert (await http.get(path, headers=bearer(narrow))).status_code == 404, path
    for secret, num in ((full, len(FORMS)), (narrow, 0)):
        listed = (await http.get("/v1/jobs", headers=bearer(secret))).json()["data"]
        assert len(listed) == num
    rows = (await http.get("/v1/usage?group_by=model", headers=bearer(full))).json()["data"]
    assert [(row["model"], row["requests"]) for row in rows] == [("extract", len(FORMS))]
    assert (await http.get("/v1/usage", headers=bearer(narrow))).json()["data"] == []


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (BASE.name, BASE.name),
        (BASE.version, BASE.name),
        *((form, "extract") for form in FORMS),
        ("other:extract", "extract"),
        ("", ""),
    ],
)
def test_the_own_name_of_each_form(model: str, name: str) -> None:
    assert own_name(model, BASE) == name


@pytest.mark.parametrize("pattern", ["*a*a*a*b", "[!b]*[!b]*c", "*?*?*?x", "a*a*a*a*"])
def test_matching_takes_linear_time(pattern: str) -> None:
    access = Access(tenant="red", scopes=frozenset(), models=(pattern,))

    def cpu_s(num_chars: int) -> float:
        started_s = time.process_time()
        access.allows("a" * num_chars)
        return time.process_time() - started_s

    # Quadratic matching would take hours for as many characters as the largest body has.
    assert min(cpu_s(1_000_000) for _ in range(3)) < 1.0
