"""Logprobs of answers and prompts equal transformers' log-softmax, complete and streamed."""

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import openai
import pytest
import torch
from posted import chunks, error_of, whole
from served_tiny import BASE, NAMES, TinyModels
from sse_events import sse_events

PROMPT = "Once upon a time, 你好"
TURNS = [{"role": "user", "content": PROMPT}]
SAMPLED: dict[str, Any] = {
    "temperature": 0.7,
    "seed": 11,
    "max_tokens": 24,
    "presence_penalty": 1.5,
    "logit_bias": {"70": 3},
    "extra_body": {"ignore_eos": True, "repetition_penalty": 1.2, "return_token_ids": True},
}
SHORT: dict[str, Any] = {"model": BASE, "max_tokens": 8, "seed": 3, "ignore_eos": True}
SHORT |= {"temperature": 0.8, "presence_penalty": 1.5, "logit_bias": {"70": 3}}
CHAT: dict[str, Any] = {**SHORT, "messages": TURNS}
COMPLETION: dict[str, Any] = {**SHORT, "prompt": PROMPT}
IDS = [70, 200, 9]
each_endpoint = pytest.mark.parametrize("body", [CHAT, COMPLETION], ids=["chat", "completion"])


def check_top(row: torch.Tensor, logprobs: Sequence[float]) -> None:
    best = row.topk(len(logprobs)).values.tolist()
    assert sorted(logprobs, reverse=True) == pytest.approx(best, abs=1e-4)


async def test_a_chat_in_a_mixed_batch_returns_the_models_own_logprobs(
    client: openai.AsyncOpenAI, models: TinyModels
) -> None:
    answers = await asyncio.gather(
        *(
            client.chat.completions.create(
                model=name, messages=TURNS, logprobs=True, top_logprobs=20, **SAMPLED
            )
            for name in NAMES
        )
    )
    prompt = models.chat_ids(PROMPT)
    for name, answer in zip(NAMES, answers, strict=True):
        ids = answer.choices[0].token_ids
        rows = models.log_softmax(name, prompt + ids)[len(prompt) - 1 : -1]
        content = answer.choices[0].logprobs.content
        expected = rows.gather(-1, torch.tensor(ids)[:, None])[:, 0].tolist()
        assert [position.logprob for position in content] == pytest.approx(expected, abs=1e-4)
        for row, position in zip(rows, content, strict=True):
            check_top(row, [top.logprob for top in position.top_logprobs])


@pytest.mark.parametrize("name", NAMES)
async def test_a_completion_returns_logprobs_of_echoed_prompt_and_answer(
    client: openai.AsyncOpenAI, models: TinyModels, name: str
) -> None:
    answer = await client.completions.create(
        model=name, prompt=PROMPT, echo=True, logprobs=3, **SAMPLED
    )
    [choice] = answer.choices
    assert choice.text.startswith(PROMPT)
    prompt, output = models.text_ids(PROMPT), choice.token_ids
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
    expected_of = await whole(http, body)
    options = {"include_usage": True, "continuous_usage_stats": True}
    streaming = {**body, "stream": True, "stream_options": options}
    reply = await http.post("/v1/completions", json=streaming)
    events = sse_events(reply.text)
    *parts, usage = [event.json for event in events if event.data != "[DONE]"]
    assert usage["usage"]["completion_tokens"] == 0
    assert usage["usage"]["prompt_tokens"] == expected_of["usage"]["prompt_tokens"]
    streamed = sorted((chunk["choices"][0] for chunk in parts), key=lambda each: each["index"])
    for each, expected in zip(streamed, expected_of["choices"], strict=True):
        assert each.keys() == expected.keys()
        for name in each.keys() - {"logprobs"}:
            assert each[name] == expected[name]
        assert each["logprobs"]["tokens"] == expected["logprobs"]["tokens"]
        flat, other = each["logprobs"]["token_logprobs"], expected["logprobs"]["token_logprobs"]
        assert flat[1:] == pytest.approx(other[1:], abs=1e-4)
    assert [chunk["usage"]["completion_tokens"] for chunk in parts] == [0] * 4
    assert parts[0]["usage"]["prompt_tokens"] == len(parts[0]["choices"][0]["prompt_token_ids"])
    job = parts[0]["id"].removeprefix("cmpl-")
    rest = await http.get(f"/v1/jobs/{job}/stream", headers={"Last-Event-ID": events[0].id or ""})
    assert len([event for event in sse_events(rest.text) if '"text"' in event.data]) == 3


def check_scores(models: TinyModels, name: str, ids: list[int], scores: Any, num_top: int) -> None:
    """Check `prompt_logprobs` of a prompt against the definition."""
    assert len(scores) == len(ids)
    assert scores[0] is None
    rows = models.log_softmax(name, ids)
    for row, token, found in zip(rows, ids[1:], scores[1:], strict=False):
        assert next(iter(found)) == str(token)
        best = sorted(found.values(), key=lambda each: each["rank"])
        assert num_top <= len(found) <= num_top + 1
        assert [each["rank"] for each in best][:num_top] == list(range(1, num_top + 1))
        assert [each["logprob"] for each in best][:num_top] == pytest.approx(
            row.topk(num_top).values.tolist(), abs=1e-4
        )
        for other, each in found.items():
            assert each["logprob"] == pytest.approx(float(row[int(other)]), abs=1e-4)
            assert each.keys() == {"logprob", "rank", "decoded_token"}
            text = models.tokenizer.decode([int(other)])
            assert "\ufffd" in text or each["decoded_token"] == text
        rank = found[str(token)]["rank"]
        own = float(row[token])
        assert int((row > own + 1e-4).sum()) < rank <= int((row > own - 1e-4).sum())


@pytest.mark.parametrize("name", NAMES)
async def test_the_prompt_of_a_chat_has_the_models_own_logprobs(
    http: httpx.AsyncClient, models: TinyModels, name: str
) -> None:
    body = {**CHAT, "model": name, "n": 2}
    plain = await whole(http, body)
    for _ in range(2):  # the second time, the prefix is in the cache
        got = await whole(http, {**body, "prompt_logprobs": 20})
        check_scores(models, name, models.chat_ids(PROMPT), got["prompt_logprobs"], 20)
        assert got["choices"] == plain["choices"]
    assert "prompt_logprobs" not in plain


@each_endpoint
async def test_streams_have_no_logprobs_of_the_prompt(
    http: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    error = await error_of(http, {**body, "stream": True, "prompt_logprobs": 1})
    assert error["param"] == "prompt_logprobs"
    answer = await chunks(http, {**body, "prompt_logprobs": 0, "n": 2})
    assert "prompt_logprobs" not in str(answer)


async def test_named_tokens_of_a_completion_cover_its_end_but_not_an_echo(
    http: httpx.AsyncClient, models: TinyModels
) -> None:
    end = models.tokenizer.eos_token_id
    body = {**COMPLETION, "echo": True, "logprobs": 1, "logprob_token_ids": IDS, "min_tokens": 2}
    body |= {"logit_bias": {str(end): 100}, "ignore_eos": False}
    [choice] = (await whole(http, {**body, "return_tokens_as_token_ids": True}))["choices"]
    assert choice["finish_reason"] == "stop"
    top = choice["logprobs"]["top_logprobs"]
    num_prompt = len(models.text_ids(PROMPT))
    assert len(top) == num_prompt + 3
    assert top[0] is None
    assert {len(each) for each in top[1:num_prompt]} <= {1, 2}
    for each in top[num_prompt:]:
        assert each.keys() >= {f"token_id:{token}" for token in IDS}
    assert choice["logprobs"]["tokens"][-1] == f"token_id:{end}"
    plain = {key: value for key, value in body.items() if key not in {"logprob_token_ids", "echo"}}
    [choice] = (await whole(http, plain))["choices"]
    assert len(choice["logprobs"]["tokens"]) == 2
