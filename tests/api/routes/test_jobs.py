"""/v1/jobs: state and cancellation of jobs."""

import asyncio

import httpx
import pytest
from api_support import (
    ADAPTER,
    USAGE_BODY,
    RunningApp,
    ScriptedWorker,
    waiting_job,
)

from shared.errors import ErrorCode, JobError

BODY = {"model": "extract", "messages": [{"role": "user", "content": "hi"}]}
URL = "/v1/chat/completions"


async def test_a_job_can_be_looked_up_while_it_waits_runs_and_is_done(
    http: httpx.AsyncClient, server: RunningApp, worker: ScriptedWorker
) -> None:
    first = asyncio.create_task(http.post(URL, json=BODY))
    job = await worker.take()
    body = (await http.get(f"/v1/jobs/{job.job.id}")).json()
    assert (body["state"], body["tries"], body["worker"]) == ("running", 1, worker.id)
    assert (body["model"], body["version"]) == ("extract", ADAPTER.version)
    assert body["choices"] is None
    await worker.answer(job, "hello")
    response = await first
    body = (await http.get(f"/v1/jobs/{response.headers['x-lorikeet-job']}")).json()
    assert body["state"] == "done"
    assert body["choices"] == [{"index": 0, "text": "hello", "finish_reason": "stop"}]
    assert body["usage"] == USAGE_BODY
    assert (await http.get(f"/v1/jobs/{response.json()['id']}")).json() == body


async def test_a_failed_job_has_its_error(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    request = asyncio.create_task(http.post(URL, json=BODY))
    job = await worker.take()
    await worker.fail(job, JobError(code=ErrorCode.INTERNAL, message="broken"))
    await request
    body = (await http.get(f"/v1/jobs/{job.job.id}")).json()
    assert (body["state"], body["error"]["message"]) == ("failed", "broken")


@pytest.mark.parametrize(("method", "path"), [("POST", "/cancel"), ("DELETE", "")])
async def test_cancelling_a_waiting_job_ends_its_request(
    http: httpx.AsyncClient, server: RunningApp, method: str, path: str
) -> None:
    request = asyncio.create_task(http.post(URL, json=BODY))
    job_id = await waiting_job(server)
    response = await http.request(method, f"/v1/jobs/{job_id}{path}")
    assert response.json() == {"id": job_id, "object": "job", "state": "cancelled"}
    refused = await request
    assert refused.status_code == 409
    assert refused.json()["error"]["code"] == "cancelled"
    assert refused.headers["x-should-retry"] == "false"


async def test_cancelling_a_running_job_notifies_its_worker(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    request = asyncio.create_task(http.post(URL, json=BODY))
    job = await worker.take()
    response = await http.post(f"/v1/jobs/{job.job.id}/cancel")
    assert response.json()["state"] == "running"
    assert (await worker.mail()).job == job.job.id
    await worker.answer(job)
    await request


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", "/cancel"), ("DELETE", "")])
async def test_an_unknown_job_is_a_404(http: httpx.AsyncClient, method: str, path: str) -> None:
    response = await http.request(method, f"/v1/jobs/0123{path}")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "job_not_found"
