"""POST /v1/chat/completions and /v1/completions."""

import httpx
import openai
from api_support import BASE, USAGE_BODY, RunningApp, ScriptedWorker
from chat_stream import MESSAGES, admitted_stream
from sse_events import sse_events

from api.metrics.metrics import Metrics
from shared.protocol.results import FinishReason


async def test_an_answer_has_the_fields_that_clients_of_lmdeploy_expect(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    body = {"model": "extract", "messages": MESSAGES}
    response, job = await worker.serve(http.post("/v1/chat/completions", json=body))
    assert response.status_code == 200
    assert response.headers["x-lorikeet-job"] == job.job.id
    assert response.json() == {
        "id": f"chatcmpl-{job.job.id}",
        "object": "chat.completion",
        "created": job.job.created_s,
        "model": "extract",
        "system_fingerprint": "fp_000000000000_111111111111",
        "weight_version": job.job.version,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hello", "tool_calls": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE_BODY,
    }


async def test_openais_client_reads_an_answer_of_the_base_model(
    client: openai.AsyncOpenAI, worker: ScriptedWorker
) -> None:
    sent = client.chat.completions.create(
        model=BASE.name, messages=MESSAGES, temperature=0.8, top_p=0.8
    )
    completion, job = await worker.serve(sent)
    assert completion.choices[0].message.content == "hello"
    assert completion.usage is not None
    assert completion.usage.total_tokens == 5
    assert job.job.version == BASE.version
    assert (job.job.sampling.temperature, job.job.sampling.top_p) == (0.8, 0.8)


async def test_a_stream_starts_with_the_role_and_ends_with_the_finish_reason(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    body = {"model": "extract", "messages": MESSAGES, "stream": True}
    response, _ = await worker.serve(http.post("/v1/chat/completions", json=body))
    *events, done = sse_events(response.text)
    assert done.data == "[DONE]"
    assert [event.json["choices"][0]["delta"] for event in events] == [
        {"role": "assistant", "content": ""},
        {"content": "he"},
        {"content": "llo"},
        {},
    ]
    assert events[-1].json["choices"][0]["finish_reason"] == "stop"
    assert all("usage" not in event.json for event in events)
    assert response.headers["content-type"].startswith("text/event-stream")


async def test_a_token_reaches_the_client_when_it_is_published(
    client: openai.AsyncOpenAI, worker: ScriptedWorker
) -> None:
    stream, job = await admitted_stream(client, worker)
    assert (await anext(stream)).choices[0].delta.role == "assistant"
    await worker.tokens(job, 0, (1,), "one")
    assert (await anext(stream)).choices[0].delta.content == "one"
    await worker.tokens(job, 1, (2,), " two")
    assert (await anext(stream)).choices[0].delta.content == " two"
    await worker.tokens(job, 2, (3,), "", FinishReason.LENGTH)
    await worker.finish(job)
    assert [chunk.choices[0].finish_reason async for chunk in stream] == ["length"]


async def test_streamed_choices_are_interleaved_and_identified_by_index(
    client: openai.AsyncOpenAI, worker: ScriptedWorker
) -> None:
    stream, job = await admitted_stream(client, worker, n=2)
    await worker.tokens(job, 0, (1,), "a", choice=1)
    await worker.tokens(job, 0, (2,), "b", choice=0)
    await worker.tokens(job, 1, (3,), "c", FinishReason.STOP, choice=1)
    await worker.tokens(job, 1, (4,), "d", FinishReason.STOP, choice=0)
    await worker.finish(job)
    texts, roles, finishes = ["", ""], 0, 0
    async for chunk in stream:
        choice = chunk.choices[0]
        texts[choice.index] += choice.delta.content or ""
        roles += choice.delta.role is not None
        finishes += choice.finish_reason is not None
    assert texts == ["bd", "ac"]
    assert (roles, finishes) == (2, 2)


async def test_choices_are_in_order_in_a_complete_answer(
    client: openai.AsyncOpenAI, worker: ScriptedWorker
) -> None:
    request, job = await worker.sent(
        client.chat.completions.create(model="extract", messages=MESSAGES, n=2)
    )
    await worker.tokens(job, 0, (1,), "a", FinishReason.STOP, choice=1)
    await worker.tokens(job, 0, (2,), "b", FinishReason.LENGTH, choice=0)
    await worker.finish(job)
    choices = (await request).choices
    assert [(c.index, c.message.content, c.finish_reason) for c in choices] == [
        (0, "b", "length"),
        (1, "a", "stop"),
    ]


async def test_tokens_are_counted_by_model(
    client: openai.AsyncOpenAI, server: RunningApp, worker: ScriptedWorker
) -> None:
    await worker.serve(client.chat.completions.create(model="extract", messages=MESSAGES))
    metrics = server.pool.part(Metrics).exposition(None).decode()
    assert 'lorikeet_completion_tokens_total{model="extract"} 2.0' in metrics
    assert 'lorikeet_prompt_tokens_total{model="extract"} 3.0' in metrics
    assert "lorikeet_time_to_first_token_seconds_count 1.0" in metrics


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
