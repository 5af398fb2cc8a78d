"""Candidates: which version answers whose requests, and copies for shadows."""

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from adapter_readers import Reader
from api_support import ADAPTER, ScriptedWorker, error_of, paged
from key_support import bearer, new_key
from queue_support import eventually

from ops.control.shadow_comparison import ShadowComparison
from shared.protocol.access.rights import Scope
from shared.protocol.ids import AdapterVersion
from shared.protocol.job_filter import JobFilter
from shared.protocol.jobs import ClaimedJob, JobState
from shared.store.access.key_store import KeyStore
from shared.store.adapters.candidates import SHADOW_TENANT
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.job_lists import JobLists
from shared.store.views.pool_views import PoolViews

NAME, CURRENT = ADAPTER.name, ADAPTER.version
CANDIDATE = f"{NAME}@{'3' * 12}"
URL = f"/v1/adapters/{NAME}/candidate"
SOURCE = "/adapters/3"
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}]}
FORMS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {**CHAT, "user": "u"}),
    ("/v1/chat/completions", {**CHAT, "safety_identifier": "u"}),
    ("/v1/completions", {"prompt": "x", "user": "u"}),
    ("/v1/responses", {"input": "x", "user": "u"}),
    ("/v1/messages", {**CHAT, "max_tokens": 9, "metadata": {"user_id": "u"}}),
    ("/v1/embeddings", {"input": "x", "user": "u"}),
]


@pytest.fixture
async def trial(http: httpx.AsyncClient, reader: Reader) -> Reader:
    """The candidate answers a tenth of the requests."""
    reply = await http.put(URL, json={"source": SOURCE, "percent": 10})
    assert reply.status_code == 200, reply.text
    return reader


async def version_of(
    http: httpx.AsyncClient, redis: Redis, keys: Keys, path: str, body: Mapping[str, Any]
) -> str:
    """Return the version of the job that answers a request."""
    sent = {"model": NAME, **body, "background": True}
    reply = await http.post(path, json=sent)
    assert reply.status_code in (200, 202), reply.text
    job = reply.headers["x-lorikeet-job"]
    version: bytes = await redis.hget(f"{keys.prefix}job:{job}", "version")  # type: ignore[misc]
    return version.decode()


async def test_every_api_names_the_user(
    http: httpx.AsyncClient, trial: Reader, redis: Redis, keys: Keys
) -> None:
    assert (await http.put(URL, json={"percent": 50})).status_code == 200
    for path, body in FORMS:
        found = {await version_of(http, redis, keys, path, body) for _ in range(8)}
        assert len(found) == 1, f"a random side would change within eight requests: {path}"


async def test_requests_without_a_user_are_spread_at_random(
    http: httpx.AsyncClient, trial: Reader, redis: Redis, keys: Keys
) -> None:
    await http.put(URL, json={"percent": 50})
    found = [
        await version_of(http, redis, keys, "/v1/completions", {"prompt": "x"}) for _ in range(40)
    ]
    assert set(found) == {CURRENT, CANDIDATE}


async def test_a_candidate_is_shown_widened_promoted_and_rolled_back(
    http: httpx.AsyncClient, trial: Reader
) -> None:
    shown = (await http.get(f"/v1/adapters/{NAME}")).json()
    assert shown["version"] == CURRENT
    candidate = shown["candidate"]
    shown = [candidate[name] for name in ("version", "mode", "percent")]
    assert shown == [CANDIDATE, "canary", 10]
    widened = (await http.put(URL, json={"percent": 12.5})).json()["candidate"]
    assert (widened["percent"], widened["since_ms"]) == (12.5, candidate["since_ms"])
    other = await http.post(f"{URL}/promote?version={NAME}@444444444444")
    assert error_of(other)[:2] == (409, "adapter_conflict")
    promoted = (await http.post(f"{URL}/promote?version={CANDIDATE}")).json()
    assert (promoted["version"], promoted["candidate"]) == (CANDIDATE, None)
    rolled_back = (await http.post(f"/v1/adapters/{NAME}/rollback")).json()
    assert rolled_back["version"] == CURRENT
    again = await http.put(URL, json={"version": CANDIDATE, "percent": 1})
    assert again.json()["candidate"]["version"] == CANDIDATE
    other = await http.delete(f"{URL}?version={NAME}@444444444444")
    assert error_of(other)[:2] == (409, "adapter_conflict")
    dropped = await http.delete(f"{URL}?version={CANDIDATE}")
    assert (dropped.status_code, dropped.json()["candidate"]) == (200, None)
    assert error_of(await http.delete(URL))[:2] == (409, "adapter_conflict")
    assert error_of(await http.get(URL))[:2] == (409, "adapter_conflict")
    incidents = (await http.get("/v1/pool")).json()["incidents"]
    assert [each["text"] for each in incidents if each["kind"].startswith("adapter_")] == [
        f"{CANDIDATE} is no longer tried out",
        f"{CANDIDATE} is tried out: canary of 1 % of the requests",
        f"{CURRENT} is current again after a rollback",
        f"{CANDIDATE} replaced the version before it",
        f"{CANDIDATE} is tried out: canary of 12.5 % of the requests",
        f"{CANDIDATE} is tried out: canary of 10 % of the requests",
    ]


async def test_a_sent_adapter_becomes_a_candidate(http: httpx.AsyncClient, reader: Reader) -> None:
    query = f"name={NAME}&candidate=true&source={SOURCE}"
    reply = await http.post(f"/v1/adapters?{query}")
    assert reply.status_code == 200, reply.text
    body = reply.json()
    assert (body["version"], body["candidate"]["version"]) == (CURRENT, CANDIDATE)
    assert body["candidate"]["percent"] == 0
    assert (await http.delete(URL)).status_code == 200
    for percent in ("10", "2.5"):
        reply = await http.post(f"/v1/adapters?name={NAME}&canary={percent}&source={SOURCE}")
        assert reply.status_code == 200, reply.text
        candidate = reply.json()["candidate"]
        found = [candidate[name] for name in ("version", "mode", "percent")]
        assert found == [CANDIDATE, "canary", float(percent)]
    for percent in ("101", "-1", "nan", "x", ""):
        reply = await http.post(f"/v1/adapters?name={NAME}&canary={percent}&source={SOURCE}")
        assert error_of(reply)[::2] == (400, "canary"), percent
    unknown = await http.post(f"/v1/adapters?name=new&candidate=true&source={SOURCE}")
    assert error_of(unknown)[:2] == (404, "model_not_found")


async def test_a_candidate_is_compared_since_it_was_set(
    http: httpx.AsyncClient, reader: Reader, redis: Redis, keys: Keys
) -> None:
    counts = {"requests": 5, "tokens": 50, "failed": 1, "answered": 4, "answer_ms": 8000}
    await redis.hset(keys.version(CURRENT), mapping=counts)  # type: ignore[misc]
    await http.put(URL, json={"source": SOURCE, "percent": 10})
    for name, number in {"requests": 2, "tokens": 20, "answered": 2, "answer_ms": 1000}.items():
        await redis.hincrby(keys.version(CURRENT), name, number)  # type: ignore[misc]
    unused = {"requests": 0, "tokens": 0, "failed": 0, "mean_answer_s": None}
    used = {"requests": 2, "tokens": 20, "failed": 0, "mean_answer_s": 0.5}
    assert (await http.get(URL)).json()["compared"] == [
        {"version": CANDIDATE, **unused},
        {"version": CURRENT, **used},
    ]
    shown = (await http.get(f"/v1/adapters/{NAME}")).json()
    assert shown["requests"] == 7, "the list counts since each version was loaded"


async def test_bad_requests_name_the_field(http: httpx.AsyncClient, reader: Reader) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "percent"),
        ({"percent": 101}, "percent"),
        ({"percent": -1}, "percent"),
        ({"percent": 5, "mode": "blue"}, "mode"),
        ({"percent": 5, "source": SOURCE, "version": CURRENT}, "version"),
        ({"percent": 5, "unknown": 1}, "unknown"),
    ]
    for body, param in cases:
        status, _, named = error_of(await http.put(URL, json=body))
        assert (status, named) == (400, param), body
    assert reader.asked == []


async def test_candidates_of_unknown_names_are_not_read(
    http: httpx.AsyncClient, reader: Reader
) -> None:
    body = {"source": SOURCE, "percent": 5}
    reply = await http.put("/v1/adapters/none/candidate", json=body)
    assert error_of(reply)[:2] == (404, "model_not_found")
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/promote")):
        reply = await http.request(method, f"/v1/adapters/none/candidate{path}")
        assert error_of(reply)[:2] == (404, "model_not_found")
    assert reader.asked == []


async def shadowed(http: httpx.AsyncClient, worker: ScriptedWorker, texts: tuple[str, str]) -> None:
    """Answer a request and its copy with these texts."""
    body = {"model": NAME, "prompt": "x", "seed": 5, "user": "u"}
    request = asyncio.create_task(http.post("/v1/completions", json=body))
    worker.residents = (CURRENT, AdapterVersion(CANDIDATE))
    jobs: dict[str, ClaimedJob] = {}
    while len(jobs) < 2:
        claimed = await worker.take()
        jobs[claimed.job.version] = claimed
    original, copy = jobs[CURRENT], jobs[CANDIDATE]
    assert (copy.job.tenant, copy.job.is_preemptible) == (SHADOW_TENANT, True)
    assert copy.job.sampling == original.job.sampling
    assert copy.job.prompts == original.job.prompts
    await worker.answer(original, texts[0])
    await worker.answer(copy, texts[1])
    reply = await request
    assert reply.json()["choices"][0]["text"] == texts[0]


async def test_a_shadow_computes_copies_whose_answers_are_compared(
    http: httpx.AsyncClient, reader: Reader, store: KeyStore, redis: Redis, keys: Keys
) -> None:
    reply = await http.put(URL, json={"source": SOURCE, "mode": "shadow", "percent": 100})
    assert reply.status_code == 200, reply.text
    for texts in (("good", "good"), ("one two", "one three")):
        await shadowed(http, reader.worker, texts)
    comparison = ShadowComparison(redis, keys)

    async def are_compared() -> bool:
        await comparison.step()
        return bool((await http.get(URL)).json()["agreement"]["pairs"] == 2)

    await eventually(are_compared)
    body = (await http.get(URL)).json()
    agreement = body["agreement"]
    assert (agreement["equal"], agreement["failed"], agreement["similarity"]) == (1, 0, 0.75)
    (pair,) = body["differing"]
    assert (pair["current_text"], pair["candidate_text"]) == ("one two", "one three")
    assert (pair["similarity"], pair["error"]) == (0.5, None)
    assert await redis.zcard(keys.shadows) == 0
    usage = (await http.get("/v1/usage?group_by=tenant")).json()["data"]
    found = {row["tenant"]: row["requests"] for row in usage}
    assert found == {"default": 2, SHADOW_TENANT: 2}, "copies aren't charged to the client"
    listed = (await http.get("/v1/jobs")).json()["data"]
    assert len(listed) == 2, "clients don't see copies"
    for scopes, text in (((Scope.ADAPTERS,), None), ((Scope.ADAPTERS, Scope.INFERENCE), "one two")):
        secret, _ = await new_key(store, *scopes, tenant="default")
        (pair,) = (await http.get(URL, headers=bearer(secret))).json()["differing"]
        assert pair["current_text"] == text, "answers need the scope `inference`"


async def test_batches_embeddings_and_repeated_requests_have_no_copies(
    http: httpx.AsyncClient, reader: Reader, redis: Redis, keys: Keys
) -> None:
    await http.put(URL, json={"source": SOURCE, "mode": "shadow", "percent": 100})
    embedding = {"model": NAME, "input": "x", "background": True}
    assert (await http.post("/v1/embeddings", json=embedding)).status_code in (200, 202)
    once = {"Idempotency-Key": "k"}
    body = {"model": NAME, "prompt": "x", "background": True}
    for _ in range(3):
        await http.post("/v1/completions", json=body, headers=once)

    async def num_copies() -> int:
        return int(await redis.zcard(keys.jobs(SHADOW_TENANT)))

    await eventually(num_copies)
    await asyncio.sleep(0.2)  # further copies would be enqueued by now
    assert await num_copies() == 1
    lists = JobLists(redis, keys, PoolViews(redis, keys))
    page = await lists.page(JobFilter(tenant=SHADOW_TENANT), limit=10)
    assert page is not None
    assert [job.state for job in page.jobs] == [JobState.QUEUED]


async def test_a_pinned_adapter_says_so(http: httpx.AsyncClient, reader: Reader) -> None:
    url = f"/v1/adapters/{NAME}/pin"
    assert (await http.put(url, json={"min_replicas": 2})).json()["min_replicas"] == 2
    assert (await http.get(f"/v1/adapters/{NAME}")).json()["min_replicas"] == 2
    assert (await http.delete(url)).json()["min_replicas"] == 0
    assert (await http.get("/v1/adapters")).json()["data"][0]["min_replicas"] == 0
    assert error_of(await http.put(url, json={"min_replicas": 0}))[0] == 400
    assert error_of(await http.put("/v1/adapters/none/pin", json={}))[0] == 404


async def test_the_audit_log_has_pages(http: httpx.AsyncClient, trial: Reader) -> None:
    await http.put(URL, json={"percent": 20})
    await http.put(f"/v1/adapters/{NAME}/pin", json={})
    changes = await paged(http, "/v1/audit_log", 2, params={"adapter": NAME})
    actions = [change["action"] for change in changes]
    assert actions == ["pinned", *["candidate_set"] * 2, "loaded"]
    oldest = changes[-1]
    assert (oldest["by"], oldest["from"], oldest["to"]) == (".worker", None, CURRENT)
    for query, param in (("limit=0", "limit"), ("after=x", "after"), ("colour=1", "colour")):
        assert (error_of(await http.get(f"/v1/audit_log?{query}"))[::2]) == (400, param)
    assert (await http.get("/v1/audit_log?adapter=none")).json()["data"] == []


LARGEST = 2**64 - 1
"""Largest number in an id of Redis' streams."""
BAD_CURSORS = (
    *("", "0", "0-0", "00-000", "-", "+", "(1-0", "1-0-0", "1-", "a-b", "\u0663-\u0661", "1-0\n"),
    *(f"{LARGEST + 1}-0", f"0-{LARGEST + 1}", "99999999999999999999-0"),
)


async def test_cursors_of_the_audit_log_are_ids_of_a_stream(http: httpx.AsyncClient) -> None:
    for after in BAD_CURSORS:
        reply = await http.get("/v1/audit_log", params={"after": after})
        assert error_of(reply) == (400, "invalid_value", "after"), after
    for after in ("0-1", "1-0", f"{LARGEST}-{LARGEST}"):
        assert (await http.get("/v1/audit_log", params={"after": after})).status_code == 200
