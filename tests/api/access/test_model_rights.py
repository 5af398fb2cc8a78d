"""Rights of keys with patterns: every form of a model's name counts as the model's own name."""

import itertools
import time
from typing import Any

import httpx
import pytest
from adapter_readers import Reader
from api_support import ADAPTER, BASE, ScriptedWorker, error_of
from key_support import bearer, new_key

from shared.protocol.access.rights import Access, Scope
from shared.protocol.adapters import own_name
from shared.store.access.key_store import KeyStore
from shared.store.adapters.registry import Registry
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

CHAT = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "hi"}]}
FORMS = ("extract", f"{BASE.name}:extract", ADAPTER.version, f"{BASE.name}:{ADAPTER.version}")
"""Forms of an adapter's name that requests may have."""
MATCHES_FORMS_ONLY = ("tiny/*", "[!e]*", "*@*", "*:*", "extract@*", f"{BASE.name}:extract")
"""Patterns that match a form of the name `extract`, but not the name."""


async def test_a_pattern_for_another_form_of_a_name_opens_nothing(
    http: httpx.AsyncClient, registry: Registry, store: KeyStore
) -> None:
    for pattern, form in itertools.product(MATCHES_FORMS_ONLY, FORMS):
        secret, _ = await new_key(store, Scope.INFERENCE, Scope.ADAPTERS, models=(pattern,))
        replies = [
            await http.post(CHAT, json={"model": form, **HI}, headers=bearer(secret)),
            await http.post("/tokenize", json={"model": form, **HI}, headers=bearer(secret)),
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
        body = {"model": form, **HI, "background": True}
        reply = await http.post(CHAT, json=body, headers=bearer(secret))
        assert reply.status_code in (200, 202), reply.text
        assert (await worker.take()).job.version == ADAPTER.version


async def test_a_quarantined_adapter_looks_like_an_unknown_one(
    http: httpx.AsyncClient, registry: Registry, redis: Redis, keys: Keys, store: KeyStore
) -> None:
    await redis.hset(keys.version(ADAPTER.version), "state", "quarantined")  # type: ignore[misc]
    secret, _ = await new_key(store, models=("tiny/*",))
    for form in FORMS:
        reply = await http.post(CHAT, json={"model": form, **HI}, headers=bearer(secret))
        assert error_of(reply)[:2] == (404, "model_not_found")


class TestOnDemand:
    @pytest.fixture
    def changes(self) -> dict[str, Any]:
        return {"adapter_source": "s3://bucket/{name}"}

    async def test_a_name_that_the_key_may_not_use_is_not_looked_up(
        self, http: httpx.AsyncClient, reader: Reader, store: KeyStore
    ) -> None:
        secret, _ = await new_key(store, models=("tiny/*",))
        for model in ("other", f"{BASE.name}:other"):
            reply = await http.post(CHAT, json={"model": model, **HI}, headers=bearer(secret))
            assert error_of(reply)[:2] == (404, "model_not_found")
        assert reader.asked == []


async def test_jobs_and_usage_belong_to_the_model_whatever_the_request_called_it(
    http: httpx.AsyncClient, worker: ScriptedWorker, store: KeyStore
) -> None:
    full, _ = await new_key(store)
    narrow, _ = await new_key(store, models=("tiny/*",))
    for form in FORMS:
        body = {"model": form, **HI, "background": True}
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
