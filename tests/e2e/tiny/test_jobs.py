"""Requests as jobs: they are looked up, listed, cancelled, erased, and run in the background."""

import asyncio
from typing import Any

import httpx
import openai
import pytest
from queue_support import eventually
from served_tiny import BASE

from shared.protocol.ids import JobId
from shared.protocol.jobs import JobState
from shared.store.views.pool_views import PoolViews

LONG: dict[str, Any] = {
    "model": BASE, "prompt": "x", "max_tokens": 500, "temperature": 0, "ignore_eos": True
}  # fmt: skip

IN_BACKGROUND: dict[str, dict[str, Any]] = {
    "completions": {**LONG, "max_tokens": 8, "logprobs": 1},
    "chat/completions": {
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 8,
        "temperature": 0,
        "logprobs": True,
    },
    "embeddings": {"input": ["one", "a second, longer one"], "encoding_format": "base64"},
}


async def num_running(views: PoolViews) -> int:
    return sum(worker.running for worker in await views.workers())


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


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_disconnects_stops_its_job(
    http: httpx.AsyncClient, views: PoolViews, stream: bool
) -> None:
    known = await ended_jobs(views)
    task = asyncio.create_task(http.post("/v1/completions", json={**LONG, "stream": stream}))
    await eventually(lambda: num_running(views))
    task.cancel()
    await eventually(lambda: is_none_running(views))
    assert (await ended_jobs(views))[JobState.CANCELLED] == known[JobState.CANCELLED] + 1


async def test_a_cancelled_job_ends_its_stream_with_an_error(
    http: httpx.AsyncClient, client: openai.AsyncOpenAI, views: PoolViews
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
        lambda: has_state(views, JobId(first.id.removeprefix("cmpl-")), JobState.CANCELLED)
    )
    erased = (await http.delete(f"/v1/jobs/{first.id}")).json()
    assert (erased["state"], erased["deleted"]) == ("cancelled", True)
    assert (await http.get(f"/v1/jobs/{first.id}")).status_code == 404


@pytest.mark.parametrize("endpoint", IN_BACKGROUND)
async def test_a_request_in_the_background_has_the_answer_of_one_in_the_foreground(
    http: httpx.AsyncClient, endpoint: str
) -> None:
    body = {"model": BASE, **IN_BACKGROUND[endpoint]}
    expected = (await http.post(f"/v1/{endpoint}", json=body)).json()
    reply = await http.post(f"/v1/{endpoint}", json={**body, "background": True})
    assert reply.status_code == 202
    answer = await eventually(lambda: finished(http, reply.headers["location"]))
    for name in {"choices", "data", "model", "system_fingerprint"} & expected.keys():
        assert answer[name] == expected[name]
    assert answer["usage"]["total_tokens"] == expected["usage"]["total_tokens"]
    stream = await http.get(f"{reply.headers['location']}/stream")
    assert stream.status_code == (400 if endpoint == "embeddings" else 200)
    assert ("aren't streamed" in stream.text) == (endpoint == "embeddings")


async def finished(http: httpx.AsyncClient, path: str) -> Any:
    body = (await http.get(path)).json()
    return body if body["state"] == "done" else None


async def ended_jobs(views: PoolViews) -> dict[JobState, int]:
    return dict((await views.counts()).totals)


async def is_none_running(views: PoolViews) -> bool:
    return await num_running(views) == 0


async def has_state(views: PoolViews, job: JobId, state: JobState) -> bool:
    view = await views.job(job)
    return view is not None and view.state is state
