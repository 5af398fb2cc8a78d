"""Requests as jobs: looked up, cancelled, and given up by their clients."""

import asyncio
from typing import Any

import httpx
import openai
import pytest
from queue_support import eventually
from served_tiny import BASE

from shared.protocol.ids import JobId
from shared.protocol.jobs import JobState
from shared.store.queue import Queue

LONG: dict[str, Any] = {
    "model": BASE, "prompt": "x", "max_tokens": 500, "temperature": 0, "ignore_eos": True
}  # fmt: skip


async def num_running(queue: Queue) -> int:
    return sum(worker.running for worker in await queue.workers())


async def test_a_finished_job_is_looked_up_by_its_header_or_by_the_answers_id(
    http: httpx.AsyncClient,
) -> None:
    reply = await http.post("/v1/completions", json={**LONG, "max_tokens": 5})
    answer = reply.json()
    by_header = (await http.get(f"/v1/jobs/{reply.headers['X-Lorikeet-Job']}")).json()
    by_id = (await http.get(f"/v1/jobs/{answer['id']}")).json()
    assert by_header == by_id
    assert by_id["state"] == "done"
    assert by_id["model"] == BASE
    assert by_id["tries"] == 1
    assert by_id["usage"] == answer["usage"]
    assert by_id["choices"][0]["text"] == answer["choices"][0]["text"]


async def test_an_unknown_job_is_not_found(http: httpx.AsyncClient) -> None:
    for reply in (await http.get("/v1/jobs/none"), await http.post("/v1/jobs/none/cancel")):
        assert reply.status_code == 404
        assert reply.json()["error"]["code"] == "job_not_found"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_stops_its_job(
    http: httpx.AsyncClient, queue: Queue, stream: bool
) -> None:
    known = await seen_jobs(queue)
    task = asyncio.create_task(http.post("/v1/completions", json={**LONG, "stream": stream}))
    await eventually(lambda: num_running(queue))
    task.cancel()
    await eventually(lambda: is_none_running(queue))
    assert (await seen_jobs(queue))[JobState.CANCELLED] == known[JobState.CANCELLED] + 1


async def test_a_client_that_leaves_within_a_stream_stops_its_job(
    client: openai.AsyncOpenAI, queue: Queue
) -> None:
    body = {k: v for k, v in LONG.items() if k != "ignore_eos"}
    stream = await client.completions.create(**body, stream=True, extra_body={"ignore_eos": True})
    job = JobId((await anext(aiter(stream))).id.removeprefix("cmpl-"))
    view = await queue.job_view(job)
    assert view is not None
    assert view.state is JobState.RUNNING
    await stream.close()
    await eventually(lambda: has_state(queue, job, JobState.CANCELLED))
    await eventually(lambda: is_none_running(queue))


async def test_a_cancelled_job_ends_its_stream_with_an_error(
    http: httpx.AsyncClient, client: openai.AsyncOpenAI, queue: Queue
) -> None:
    body = {k: v for k, v in LONG.items() if k != "ignore_eos"}
    stream = await client.completions.create(**body, stream=True, extra_body={"ignore_eos": True})
    first = await anext(aiter(stream))
    reply = await http.post(f"/v1/jobs/{first.id}/cancel")
    assert reply.json()["state"] == "running"
    with pytest.raises(openai.APIError, match="cancelled"):
        async for _ in stream:
            pass
    await eventually(
        lambda: has_state(queue, JobId(first.id.removeprefix("cmpl-")), JobState.CANCELLED)
    )
    again = await http.delete(f"/v1/jobs/{first.id}")
    assert again.json()["state"] == "cancelled"


async def seen_jobs(queue: Queue) -> dict[JobState, int]:
    return dict((await queue.counts()).totals)


async def is_none_running(queue: Queue) -> bool:
    return await num_running(queue) == 0


async def has_state(queue: Queue, job: JobId, state: JobState) -> bool:
    view = await queue.job_view(job)
    return view is not None and view.state is state
