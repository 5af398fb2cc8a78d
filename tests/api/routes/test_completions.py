"""POST /v1/completions."""

import httpx
import openai
from api_support import USAGE_BODY, ScriptedWorker

URL = "/v1/completions"


async def test_a_completion_has_openais_fields(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    sent = http.post(URL, json={"model": "extract", "prompt": "once"})
    reply, job = await worker.serve(sent, " upon")
    assert (job.job.prompts, job.job.messages) == (("once",), None)
    assert reply.json() == {
        "id": f"cmpl-{job.job.id}",
        "object": "text_completion",
        "created": job.job.created_s,
        "model": "extract",
        "system_fingerprint": "fp_000000000000_111111111111",
        "weight_version": job.job.version,
        "choices": [{"index": 0, "text": " upon", "logprobs": None, "finish_reason": "stop"}],
        "usage": USAGE_BODY,
    }


async def test_token_ids_reach_the_worker_unchanged(
    client: openai.AsyncOpenAI, worker: ScriptedWorker
) -> None:
    sent = client.completions.create(model="extract", prompt=[5, 6, 7])
    answer, job = await worker.serve(sent)
    assert job.job.prompts == ((5, 6, 7),)
    assert answer.choices[0].text == "hello"


async def test_openais_client_streams_a_completion(
    client: openai.AsyncOpenAI, worker: ScriptedWorker
) -> None:
    sent = client.completions.create(
        model="extract", prompt="once", stream=True, stream_options={"include_usage": True}
    )
    stream, _ = await worker.serve(sent)
    *chunks, last = [chunk async for chunk in stream]
    assert [chunk.choices[0].text for chunk in chunks] == ["he", "llo"]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, "stop"]
    assert last.usage is not None
    assert last.usage.total_tokens == 5
