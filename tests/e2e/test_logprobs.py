"""Logprobs of both endpoints equal transformers' log-softmax, complete and streamed."""

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import openai
import pytest
import torch
from served_tiny import BASE, NAMES, TinyModels
from sse_events import sse_events

from shared.protocol.ids import JobId
from shared.store.views.pool_views import PoolViews

PROMPT = "Once upon a time, 你好"
CHAT = [{"role": "user", "content": PROMPT}]
SAMPLED: dict[str, Any] = {
    "temperature": 0.7,
    "seed": 11,
    "max_tokens": 24,
    "presence_penalty": 1.5,
    "logit_bias": {"70": 3},
    "extra_body": {"ignore_eos": True, "repetition_penalty": 1.2},
}


async def output_ids(views: PoolViews, answer: Any, choice: int = 0) -> list[int]:
    """Return the token ids of an answer, which the API doesn't return."""
    result = (await views.job_and_result(JobId(answer.id.split("-")[1])))[1]
    assert result is not None
    return list(result.choices[choice].ids)


def check_top(row: torch.Tensor, logprobs: Sequence[float]) -> None:
    best = row.topk(len(logprobs)).values.tolist()
    assert sorted(logprobs, reverse=True) == pytest.approx(best, abs=1e-4)


async def test_a_chat_in_a_mixed_batch_returns_the_models_own_logprobs(
    client: openai.AsyncOpenAI, models: TinyModels, views: PoolViews
) -> None:
    answers = await asyncio.gather(
        *(
            client.chat.completions.create(
                model=name, messages=CHAT, logprobs=True, top_logprobs=20, **SAMPLED
            )
            for name in NAMES
        )
    )
    prompt = models.chat_ids(PROMPT)
    for name, answer in zip(NAMES, answers, strict=True):
        ids = await output_ids(views, answer)
        rows = models.log_softmax(name, prompt + ids)[len(prompt) - 1 : -1]
        content = answer.choices[0].logprobs.content
        expected = rows.gather(-1, torch.tensor(ids)[:, None])[:, 0].tolist()
        assert [position.logprob for position in content] == pytest.approx(expected, abs=1e-4)
        for row, position in zip(rows, content, strict=True):
            check_top(row, [top.logprob for top in position.top_logprobs])


@pytest.mark.parametrize("name", NAMES)
async def test_a_completion_returns_logprobs_of_echoed_prompt_and_answer(
    client: openai.AsyncOpenAI, models: TinyModels, views: PoolViews, name: str
) -> None:
    answer = await client.completions.create(
        model=name, prompt=PROMPT, echo=True, logprobs=3, **SAMPLED
    )
    [choice] = answer.choices
    assert choice.text.startswith(PROMPT)
    prompt, output = models.text_ids(PROMPT), await output_ids(views, answer)
    assert choice.text == PROMPT + models.text(output)
    logprobs = choice.logprobs
    assert logprobs.token_logprobs[0] is None
    assert logprobs.top_logprobs[0] is None
    ids = prompt + output
    rows = models.log_softmax(name, ids)
    for position, row in enumerate(rows[:-1], start=1):
        assert logprobs.token_logprobs[position] == pytest.approx(
            float(row[ids[position]]), abs=1e-4
        )
        top = logprobs.top_logprobs[position]
        assert 1 <= len(top) <= 4  # parts of characters have equal text
        assert max(top.values()) == pytest.approx(float(row.max()), abs=1e-4)
    assert len(logprobs.tokens) == len(logprobs.text_offset) == len(ids)
    for token, offset in zip(logprobs.tokens, logprobs.text_offset, strict=True):
        if "\ufffd" not in token and token not in models.tokenizer.all_special_tokens:
            # The rest of a split character is in the text of the next token.
            assert choice.text[offset:].lstrip("\ufffd").startswith(token)


@pytest.mark.parametrize("name", NAMES)
async def test_an_echo_without_tokens_scores_its_prompts(
    http: httpx.AsyncClient, models: TinyModels, name: str
) -> None:
    prompts = [models.text_ids(PROMPT), models.text_ids(PROMPT)[:1], models.text_ids("Hello you")]
    body = {"model": name, "prompt": prompts, "n": 2, "echo": True, "max_tokens": 0}
    body |= {"logprobs": 3, "prompt_logprobs": 3, "return_token_ids": True}
    reply = await http.post("/v1/completions", json=body)
    assert reply.status_code == 200, reply.text
    assert reply.json()["usage"]["completion_tokens"] == 0
    assert reply.json()["usage"]["prompt_tokens"] == sum(map(len, prompts))
    choices = reply.json()["choices"]
    assert len(choices) == 6
    for number, choice in enumerate(choices):
        ids, logprobs = prompts[number // 2], choice["logprobs"]
        assert (choice["finish_reason"], choice["token_ids"]) == ("length", [])
        assert choice["text"] == models.text(ids)
        rows = models.log_softmax(name, ids)
        expected = [float(row[token]) for row, token in zip(rows, ids[1:], strict=False)]
        assert logprobs["token_logprobs"][0] is None
        assert logprobs["token_logprobs"][1:] == pytest.approx(expected, abs=1e-4)
        assert len(logprobs["tokens"]) == len(logprobs["top_logprobs"]) == len(ids)
        scores = choice["prompt_logprobs"]
        own = [
            found[str(token)]["logprob"] for token, found in zip(ids[1:], scores[1:], strict=True)
        ]
        assert logprobs["token_logprobs"][1:] == own
    stored = await http.get(f"/v1/jobs/{reply.json()['id'].removeprefix('cmpl-')}")
    assert stored.json()["choices"] == choices


async def test_an_echo_without_tokens_can_be_streamed(
    http: httpx.AsyncClient, models: TinyModels
) -> None:
    body: dict[str, Any] = {"model": "narrow", "prompt": [PROMPT, "Hello"], "n": 2, "echo": True}
    body |= {"max_tokens": 0, "logprobs": 2, "return_token_ids": True}
    whole = (await http.post("/v1/completions", json=body)).json()
    options = {"include_usage": True, "continuous_usage_stats": True}
    reply = await http.post(
        "/v1/completions", json={**body, "stream": True, "stream_options": options}
    )
    events = sse_events(reply.text)
    *chunks, usage = [event.json for event in events if event.data != "[DONE]"]
    assert usage["usage"]["completion_tokens"] == 0
    assert usage["usage"]["prompt_tokens"] == whole["usage"]["prompt_tokens"]
    streamed = sorted((chunk["choices"][0] for chunk in chunks), key=lambda each: each["index"])
    for each, expected in zip(streamed, whole["choices"], strict=True):
        assert each.keys() == expected.keys()
        for name in each.keys() - {"logprobs"}:
            assert each[name] == expected[name]
        assert each["logprobs"]["tokens"] == expected["logprobs"]["tokens"]
        flat, other = each["logprobs"]["token_logprobs"], expected["logprobs"]["token_logprobs"]
        assert flat[1:] == pytest.approx(other[1:], abs=1e-4)
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks] == [0] * 4
    assert chunks[0]["usage"]["prompt_tokens"] == len(chunks[0]["choices"][0]["prompt_token_ids"])
    job = chunks[0]["id"].removeprefix("cmpl-")
    rest = await http.get(f"/v1/jobs/{job}/stream", headers={"Last-Event-ID": events[0].id or ""})
    assert len([event for event in sse_events(rest.text) if '"text"' in event.data]) == 3


async def test_an_echo_has_a_logprob_of_the_token_that_ends_its_answer(
    client: openai.AsyncOpenAI, models: TinyModels
) -> None:
    ids = models.text_ids(PROMPT)
    [token] = models.tokenizer("x", add_special_tokens=False)["input_ids"]
    answer = await client.completions.create(
        model=BASE,
        prompt=ids,
        echo=True,
        logprobs=1,
        max_tokens=1,
        logit_bias={str(token): 100},
        extra_body={"stop_token_ids": [token]},
    )
    [choice] = answer.choices
    assert (choice.text, choice.finish_reason) == (models.text(ids), "stop")
    assert len(choice.logprobs.token_logprobs) == len(ids) + 1
    row = models.log_softmax(BASE, ids)[-1]
    assert choice.logprobs.token_logprobs[-1] == pytest.approx(float(row[token]), abs=1e-4)
