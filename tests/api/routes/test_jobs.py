"""/v1/jobs: states, answers, lists and cancellation of jobs."""

import asyncio

import httpx
import pytest
from api_support import (
    ADAPTER,
    BASE,
    USAGE_BODY,
    RunningApp,
    ScriptedWorker,
    error_of,
    paged,
    waiting_job,
    worker_info,
)
from pool_contents import pool_contents
from raw_client import BODY, CHAT

from api.answers.parts import Following
from shared.errors import ErrorCode, JobError
from shared.protocol.jobs import JobState
from shared.protocol.results import Choice, FinishReason
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views import job_lists
from shared.store.views.job_lists import MAX_LOOKED

BACKGROUND = {**BODY, "background": True}
BROKEN = JobError(code=ErrorCode.INTERNAL, message="broken")
CANCELLED = JobError(code=ErrorCode.CANCELLED, message="cancelled")


async def test_a_job_can_be_looked_up_while_it_waits_runs_and_is_done(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    first, job = await worker.sent(http.post(CHAT, json=BODY))
    body = (await http.get(f"/v1/jobs/{job.job.id}")).json()
    assert (body["state"], body["tries"], body["worker"]) == ("running", 1, worker.id)
    assert (body["model"], body["version"]) == ("extract", ADAPTER.version)
    assert body["choices"] is None
    await worker.answer(job, "hello")
    response = await first
    body = (await http.get(f"/v1/jobs/{response.headers['x-lorikeet-job']}")).json()
    assert body["state"] == "done"
    assert body["choices"] == response.json()["choices"]
    assert body["usage"] == USAGE_BODY
    assert (await http.get(f"/v1/jobs/{response.json()['id']}")).json() == body


async def test_a_job_whose_client_has_left_is_kept_if_it_is_looked_up(
    http: httpx.AsyncClient, server: RunningApp, worker: ScriptedWorker, redis: Redis, keys: Keys
) -> None:
    request = asyncio.create_task(http.post(CHAT, json=BODY))
    job = (await worker.take()).job
    await server.pool.part(Queue).abandon(
        job.id, server.pool.part(Following).api_id, grace_ms=60_000
    )
    assert await redis.zscore(keys.abandoned, job.id) is not None
    await http.get(f"/v1/jobs/{job.id}")
    assert await redis.zscore(keys.abandoned, job.id) is None
    request.cancel()


@pytest.mark.parametrize(
    ("method", "path", "more"), [("POST", "/cancel", {}), ("DELETE", "", {"deleted": False})]
)
async def test_cancelling_a_waiting_job_ends_its_request(
    http: httpx.AsyncClient, server: RunningApp, method: str, path: str, more: dict[str, bool]
) -> None:
    request = asyncio.create_task(http.post(CHAT, json=BODY))
    job_id = await waiting_job(server)
    response = await http.request(method, f"/v1/jobs/{job_id}{path}")
    assert response.json() == {"id": job_id, "object": "job", "state": "cancelled", **more}
    refused = await request
    assert refused.status_code == 409
    assert refused.json()["error"]["code"] == "cancelled"
    assert refused.headers["x-should-retry"] == "false"


async def test_cancelling_a_running_job_notifies_its_worker(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    request, job = await worker.sent(http.post(CHAT, json=BODY))
    response = await http.post(f"/v1/jobs/{job.job.id}/cancel")
    assert response.json()["state"] == "running"
    assert (await worker.mail()).job == job.job.id
    await worker.answer(job)
    await request


async def test_an_unknown_job_is_a_404(http: httpx.AsyncClient) -> None:
    for method, path in (
        *(("GET", ""), ("DELETE", ""), ("GET", "/stream")),
        *(("POST", "/cancel"), ("POST", "/retry")),
    ):
        reply = await http.request(method, f"/v1/jobs/0123{path}")
        assert error_of(reply) == (404, "job_not_found", None)


async def test_deleting_an_ended_job_erases_its_prompt_and_answer(
    http: httpx.AsyncClient, worker: ScriptedWorker, redis: Redis, keys: Keys
) -> None:
    body = {"model": "extract", "prompt": "the secret prompt", "background": True}
    job_id = (await http.post("/v1/completions", json=body)).json()["id"]
    job = await worker.take()
    await worker.admit(job)
    await worker.tokens(job, 0, (1,), "the secret answer", FinishReason.STOP, checkpoint=True)
    await worker.finish(job, Choice(text="the secret answer", finish=FinishReason.STOP, ids=(1,)))
    assert await keys_with(redis, keys, job_id)
    assert await keys_with(redis, keys, "the secret answer")
    deleted = {"id": job_id, "object": "job", "state": "done", "deleted": True}
    assert (await http.delete(f"/v1/jobs/cmpl-{job_id}")).json() == deleted
    # The last publications of a worker are kept for a handover of its jobs.
    kept = {keys.sent(worker.id), keys.replies(job.job.reply_to)}
    for text in (job_id, "the secret"):
        assert await keys_with(redis, keys, text) <= kept
    assert (await http.get(f"/v1/jobs/{job_id}")).status_code == 404
    assert (await http.delete(f"/v1/jobs/{job_id}")).status_code == 404
    assert (await http.get("/v1/jobs")).json()["data"] == []


async def keys_with(redis: Redis, keys: Keys, text: str) -> set[str]:
    """Return the pool's keys whose name or value contains `text`."""
    contents = await pool_contents(redis, keys)
    return {key for key, value in contents.items() if text in key or text in value}


async def test_deleting_a_running_job_cancels_it_and_a_second_request_erases_it(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    path = (await http.post(CHAT, json=BACKGROUND)).headers["location"]
    job = await worker.take()
    first = (await http.delete(path)).json()
    assert (first["state"], first["deleted"]) == ("running", False)
    assert (await worker.mail()).job == job.job.id
    assert (await http.get(path)).json()["state"] == "running"
    await worker.fail(job, CANCELLED, JobState.CANCELLED)
    second = (await http.delete(path)).json()
    assert (second["state"], second["deleted"]) == ("cancelled", True)
    assert (await http.delete(path)).status_code == 404


async def five_jobs(http: httpx.AsyncClient, worker: ScriptedWorker) -> list[str]:
    """Create five jobs, newest first: done, failed, cancelled, queued, and queued for the base."""
    ids = []
    for ending in ("done", "failed", "cancelled", "", ""):
        model = BASE.name if len(ids) == 4 else "extract"
        reply = await http.post(CHAT, json={**BACKGROUND, "model": model})
        ids.append(reply.json()["id"])
        if ending == "cancelled":
            await http.post(f"/v1/jobs/{ids[-1]}/cancel")
        elif ending == "done":
            await worker.answer(await worker.take())
        elif ending == "failed":
            await worker.fail(await worker.take(), BROKEN)
    return ids[::-1]


async def test_jobs_are_listed_newest_first_without_their_answers(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    ids = await five_jobs(http, worker)
    page = (await http.get("/v1/jobs")).json()
    assert [job["id"] for job in page["data"]] == ids
    assert [job["state"] for job in page["data"]] == [
        *("queued", "queued", "cancelled", "failed", "done")
    ]
    assert (page["object"], page["has_more"]) == ("list", False)
    assert (page["first_id"], page["last_id"]) == (ids[0], ids[-1])
    newest, *_, failed, done = page["data"]
    assert (newest["model"], newest["position"]) == (BASE.name, 1)
    assert failed["error"]["message"] == "broken"
    assert done["usage"] == USAGE_BODY
    assert not any({"choices", "created"} & job.keys() for job in page["data"])


FILTERS = {
    "state=queued": [0, 1],
    "state=done,failed": [3, 4],
    "state=done,failed&state=cancelled": [2, 3, 4],
    "state=running": [],
    "model=extract": [1, 2, 3, 4],
    "model=extract&state=queued": [1],
    "model=tiny%2Fbase": [0],
    "model=none": [],
}
"""Queries, and those of five jobs that they find."""


async def test_jobs_are_filtered_by_state_and_model(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    ids = await five_jobs(http, worker)
    for query, found in FILTERS.items():
        page = (await http.get(f"/v1/jobs?{query}")).json()
        assert [job["id"] for job in page["data"]] == [ids[i] for i in found], query
        assert not page["has_more"]
        ends = (ids[found[0]], ids[found[-1]]) if found else (None, None)
        assert (page["first_id"], page["last_id"]) == ends


@pytest.mark.parametrize("max_looked", [1, 2, MAX_LOOKED])
@pytest.mark.parametrize(("params", "num_jobs"), [({}, 5), ({"model": "extract"}, 4)])
async def test_pages_contain_every_job_once(
    http: httpx.AsyncClient,
    worker: ScriptedWorker,
    monkeypatch: pytest.MonkeyPatch,
    params: dict[str, str],
    num_jobs: int,
    max_looked: int,
) -> None:
    monkeypatch.setattr(job_lists, "MAX_LOOKED", max_looked)
    ids = await five_jobs(http, worker)
    found = await paged(http, "/v1/jobs", 2, params=params)
    assert [job["id"] for job in found] == ids[-num_jobs:]


async def test_an_unknown_cursor_is_a_404(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    assert error_of(await http.get("/v1/jobs?after=none")) == (404, "job_not_found", "after")
    job_id = (await http.post(CHAT, json=BACKGROUND)).json()["id"]
    await worker.answer(await worker.take())
    assert (await http.get(f"/v1/jobs?after=chatcmpl-{job_id}")).json()["data"] == []
    await http.delete(f"/v1/jobs/{job_id}")
    assert error_of(await http.get(f"/v1/jobs?after={job_id}")) == (404, "job_not_found", "after")


INVALID = {
    "limit": ("0", "101", "-1", "1.0", "", "x", "²", "9" * 50),
    "state": ("", "Done", "done,", "ended", "done, dead"),
}


async def test_an_invalid_query_is_a_400(http: httpx.AsyncClient) -> None:
    for param, values in INVALID.items():
        for value in values:
            reply = await http.get("/v1/jobs", params={param: value})
            assert error_of(reply) == (400, "invalid_value", param), value
    reply = await http.get("/v1/jobs?states=done")
    assert error_of(reply) == (400, "unknown_parameter", "states")
    assert "state, model, tenant, error_code" in reply.json()["error"]["message"]


async def dead_job(http: httpx.AsyncClient, queue: Queue) -> str:
    """Send a background request whose job kills three workers, and return the job's id."""
    sent = await http.post(CHAT, json=BACKGROUND)
    for _ in range(3):
        killed = await ScriptedWorker.start(queue)
        assert (await killed.take()).job.id == sent.json()["id"]
        await queue.beat(killed.id, lease_ms=0, info=worker_info())
        for _ in range(2):
            await queue.reap()
    job_id: str = sent.json()["id"]
    return job_id


async def test_a_dead_job_is_retried_in_the_background_under_a_new_id(
    http: httpx.AsyncClient, queue: Queue
) -> None:
    old = await dead_job(http, queue)
    assert (await http.get(f"/v1/jobs/{old}")).json()["state"] == "dead"
    replies = await asyncio.gather(*(http.post(f"/v1/jobs/{old}/retry") for _ in range(3)))
    accepted = [reply for reply in replies if reply.status_code == 202]
    assert {error_of(reply)[:2] for reply in replies if reply not in accepted} <= {
        (409, "job_conflict")
    }
    new = accepted[0].json()
    assert {reply.json()["id"] for reply in accepted} == {new["id"]}
    assert new["id"] != old
    assert (new["state"], new["position"]) == ("queued", 1)
    assert accepted[0].headers["location"] == f"/v1/jobs/{new['id']}"
    worker = await ScriptedWorker.start(queue)
    job = await worker.take()
    assert (job.job.id, job.suspect) == (new["id"], True)
    await worker.answer(job, "hello")
    body = (await http.get(f"/v1/jobs/{new['id']}")).json()
    assert body["choices"][0]["message"]["content"] == "hello"
    again = await http.post(f"/v1/jobs/{old}/retry")
    assert error_of(again) == (409, "job_conflict", None)
    assert "was retried before" in again.json()["error"]["message"]


async def test_only_jobs_that_a_server_fault_ended_are_retried(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    waiting = (await http.post(CHAT, json=BACKGROUND)).json()["id"]
    reply = await http.post(f"/v1/jobs/{waiting}/retry")
    assert error_of(reply) == (409, "job_conflict", None)
    assert reply.headers["x-should-retry"] == "false"
    await worker.fail(await worker.take(), BROKEN)
    assert (await http.post(f"/v1/jobs/{waiting}/retry")).status_code == 202


async def test_a_job_of_an_unloaded_model_is_not_retried(
    http: httpx.AsyncClient, queue: Queue, registry: Registry
) -> None:
    job_id = await dead_job(http, queue)
    await registry.unload_adapter("extract")
    reply = await http.post(f"/v1/jobs/{job_id}/retry")
    assert error_of(reply)[:2] == (404, "model_not_found")
    await registry.load_adapter(ADAPTER, replace=False)
    assert (await http.post(f"/v1/jobs/{job_id}/retry")).status_code == 202
