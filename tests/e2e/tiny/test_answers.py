"""Answers of all kinds, complete, streamed and in the background, and with vLLM's fields."""

import asyncio
import json
import re
from typing import Any

import httpx
import openai
import orjson
import pytest
from json_schemas import is_valid
from posted import chunks, whole
from queue_support import eventually
from served_tiny import BASE, TinyModels
from streams import check_exact, greedy_streams

from shared.store.views.pool_views import PoolViews

PROMPT = "Once upon a time"
CHAT = [{"role": "user", "content": PROMPT}]
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 24}
ENDLESS = {"ignore_eos": True}
PROMPTS = ["one", "a second prompt", "3"]
TWELVE = {"temperature": 0.9, "seed": 5, "max_tokens": 12, "extra_body": ENDLESS}
NUM_STREAMS = 200
LENGTHS = (1, 60)
FIELD = {"type": "string", "minLength": 10, "maxLength": 20, "pattern": "^[a-z ]*$"}
POINT = {
    "type": "object",
    "properties": {"y": {"type": "integer", "minimum": -99, "maximum": 99}, "x": FIELD},
    "required": ["y", "x"],
    "additionalProperties": False,
}


async def chat(client: openai.AsyncOpenAI, **body: Any) -> Any:
    return await client.chat.completions.create(**{"model": BASE, "messages": CHAT, **body})


async def complete(client: openai.AsyncOpenAI, **body: Any) -> Any:
    return await client.completions.create(**{"model": BASE, "prompt": PROMPT, **body})


async def test_answers_without_a_seed_differ(client: openai.AsyncOpenAI) -> None:
    answers = [await complete(client, max_tokens=24, extra_body=ENDLESS) for _ in range(2)]
    assert answers[0].choices[0].text != answers[1].choices[0].text


async def test_a_conversation_of_several_turns_is_answered(
    client: openai.AsyncOpenAI, models: TinyModels
) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        *CHAT,
        {"role": "assistant", "content": "there was"},
        {"role": "user", "content": [{"type": "text", "text": "a what?"}]},
    ]
    answer = await chat(client, messages=messages, **GREEDY)
    template = "<|system|>Be brief.<|end|><|user|>Once upon a time<|end|>"
    template += "<|assistant|>there was<|end|><|user|>a what?<|end|><|assistant|>"
    ids = models.tokenizer(template, add_special_tokens=False)["input_ids"]
    by_hand = await complete(client, prompt=ids, **GREEDY)
    assert answer.usage.prompt_tokens == by_hand.usage.prompt_tokens
    assert answer.choices[0].message.content == by_hand.choices[0].text


async def texts(client: openai.AsyncOpenAI, **body: Any) -> list[str]:
    answer = await complete(client, **body)
    assert [choice.index for choice in answer.choices] == list(range(len(answer.choices)))
    return [choice.text for choice in answer.choices]


@pytest.mark.parametrize("as_ids", [False, True], ids=["text", "ids"])
async def test_several_prompts_are_answered_in_order_like_single_ones(
    client: openai.AsyncOpenAI, models: TinyModels, as_ids: bool
) -> None:
    alone = [text for p in PROMPTS for text in await texts(client, prompt=p, n=2, **TWELVE)]
    prompts: Any = [models.text_ids(p) for p in PROMPTS] if as_ids else PROMPTS
    assert await texts(client, prompt=prompts, n=2, **TWELVE) == alone
    assert len(set(alone)) == 6


async def test_several_prompts_stream_under_their_indices(client: openai.AsyncOpenAI) -> None:
    body = {"prompt": PROMPTS, "n": 2, "echo": True, **TWELVE}
    whole = await texts(client, **body)
    streamed = [""] * 6
    async for chunk in await complete(client, stream=True, **body):
        for choice in chunk.choices:
            streamed[choice.index] += choice.text
    assert streamed == whole
    assert [text[: len(p)] for text, p in zip(whole[::2], PROMPTS, strict=True)] == PROMPTS


async def test_each_choice_follows_the_schema_by_itself(client: openai.AsyncOpenAI) -> None:
    named = {"name": "answer", "strict": True, "schema": POINT}
    fields = {"response_format": {"type": "json_schema", "json_schema": named}, "n": 4, "seed": 3}
    answer = await chat(client, max_tokens=400, temperature=1.0, **fields)
    texts = [choice.message.content for choice in answer.choices]
    assert all(is_valid(POINT, text) for text in texts)
    assert [list(json.loads(text)) for text in texts] == [["y", "x"]] * 4
    assert len(set(texts)) > 1


@pytest.mark.slow
async def test_200_streams_of_one_worker_match_the_reference(
    client: openai.AsyncOpenAI, views: PoolViews, models: TinyModels
) -> None:
    streams = greedy_streams(NUM_STREAMS, lengths=LENGTHS, seed=1, may_stop=True)
    async with asyncio.TaskGroup() as group:
        for stream in streams:
            group.create_task(stream.follow(client))
    await check_exact(streams, views, models)


BODIES: dict[str, dict[str, Any]] = {
    "completions": {"prompt": "x", "max_tokens": 8, "temperature": 0, "logprobs": 1},
    "chat/completions": {
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 8,
        "temperature": 0,
        "logprobs": True,
    },
    "embeddings": {"input": ["one", "a second, longer one"], "encoding_format": "base64"},
}


@pytest.mark.parametrize("endpoint", BODIES)
async def test_a_request_in_the_background_has_the_answer_of_one_in_the_foreground(
    http: httpx.AsyncClient, endpoint: str
) -> None:
    body = {"model": BASE, **BODIES[endpoint]}
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


SHORT: dict[str, Any] = {"model": BASE, "temperature": 0, "max_tokens": 12, "ignore_eos": True}
SHORT_CHAT, SHORT_COMPLETION = {**SHORT, "messages": CHAT}, {**SHORT, "prompt": PROMPT}


async def text_of(http: httpx.AsyncClient, **fields: Any) -> str:
    """Return the text of a chat's answer. Its stream must have the same text and end."""
    answer, streamed = await asyncio.gather(
        whole(http, {**SHORT_CHAT, **fields}), chunks(http, {**SHORT_CHAT, **fields})
    )
    [choice] = answer["choices"]
    deltas = [each for chunk in streamed for each in chunk["choices"]]
    text: str = choice["message"]["content"]
    assert "".join(each["delta"].get("content", "") for each in deltas) == text
    assert deltas[-1]["finish_reason"] == choice["finish_reason"]
    return text


def token_of(models: TinyModels, text: str) -> int:
    """Return the only token of a text."""
    [token_id] = models.tokenizer(text, add_special_tokens=False)["input_ids"]
    return int(token_id)


async def test_a_stop_token_ends_the_answer_and_is_shown_only_on_request(
    http: httpx.AsyncClient, models: TinyModels
) -> None:
    x, y = token_of(models, "x"), token_of(models, "y")
    biased = {"logit_bias": {str(x): 100}, "max_tokens": 4}
    assert await text_of(http, **biased) == "xxxx"
    stop: dict[str, Any] = {"stop_token_ids": [x], "min_tokens": 2, "allowed_token_ids": [x, y]}
    assert await text_of(http, **biased, **stop) == "yy"
    assert await text_of(http, **biased, **stop, include_stop_str_in_output=True) == "yyx"


async def test_a_request_may_have_128_answers_and_a_seed_of_63_bits(
    http: httpx.AsyncClient,
) -> None:
    many = {**SHORT_CHAT, "n": 128, "max_tokens": 2, "temperature": 1}
    first, again, other = [
        await whole(http, {**many, "seed": seed}) for seed in (2**63 - 1, 2**63 - 1, 2**63 - 2)
    ]
    texts = [[each["message"]["content"] for each in a["choices"]] for a in (first, again, other)]
    assert len(texts[0]) == 128
    assert texts[0] == texts[1] != texts[2]


async def test_a_chats_token_ids_are_beside_its_choices(
    http: httpx.AsyncClient, models: TinyModels
) -> None:
    body = {**SHORT_CHAT, "return_token_ids": True}
    answer, streamed = await whole(http, body), await chunks(http, body)
    assert answer["prompt_token_ids"] == models.chat_ids(PROMPT)
    assert (
        models.text(answer["choices"][0]["token_ids"]) == answer["choices"][0]["message"]["content"]
    )
    assert [c["prompt_token_ids"] for c in streamed if "prompt_token_ids" in c] == [
        answer["prompt_token_ids"]
    ]
    ids = [i for c in streamed for each in c["choices"] for i in each.get("token_ids", [])]
    assert ids == answer["choices"][0]["token_ids"]
    stored = await http.get(f"/v1/jobs/{answer['id'].removeprefix('chatcmpl-')}")
    for name in ("choices", "prompt_token_ids"):
        assert stored.json()[name] == answer[name]


async def test_special_tokens_are_shown_on_request(
    http: httpx.AsyncClient, models: TinyModels
) -> None:
    bias = {str(models.tokenizer.eos_token_id): 100}
    limits = {"logit_bias": bias, "max_tokens": 2}
    assert await text_of(http, **limits) == ""
    assert await text_of(http, **limits, skip_special_tokens=False) == "<|end|><|end|>"


async def test_a_truncated_prompt_keeps_its_end(
    http: httpx.AsyncClient, models: TinyModels
) -> None:
    end = models.text_ids(PROMPT)[-4:]
    [choice] = (await whole(http, {**SHORT_COMPLETION, "prompt": end}))["choices"]
    truncated = {**SHORT_COMPLETION, "truncate_prompt_tokens": 4, "echo": True}
    [cut] = (await whole(http, truncated))["choices"]
    assert cut["text"] == PROMPT[-4:] + choice["text"]
    long = {**SHORT_COMPLETION, "prompt": PROMPT * 2000}
    assert (await http.post("/v1/completions", json=long)).status_code == 400
    await whole(http, {**long, "truncate_prompt_tokens": -1})


FREE = {"ignore_eos": False, "temperature": 1.5, "seed": 3, "max_tokens": 60}
LARK = 'start: "<" WORD ("," WORD)~1..3 ">"\nWORD: /[a-c]{2,4}/'
GBNF = 'root ::= "<" word ("," word)* ">"\nword ::= [a-c] [a-c]'
SCHEMA = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]}


@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"guided_regex": "[ab]{3,9}x/"}, "[ab]{3,9}x/"),
        ({"structured_outputs": {"choice": ['a "b" \\', "é/%"]}}, r'a "b" \\|é/%'),
        ({"structured_outputs": {"grammar": LARK}}, "<[a-c]{2,4}(,[a-c]{2,4}){1,3}>"),
        ({"guided_grammar": GBNF}, "<[a-c]{2}(,[a-c]{2})*>"),
        ({"guided_json": orjson.dumps(SCHEMA).decode()}, r'\{\s*"n": ?[12](,(.|\n)*)?\s*\}'),
        ({"structured_outputs": {"json_object": True}}, r"\{(.|\n)*"),
    ],
)
async def test_answers_of_both_endpoints_match_their_constraint(
    http: httpx.AsyncClient, fields: dict[str, Any], pattern: str
) -> None:
    text = await text_of(http, **FREE, **fields)
    [choice] = (await whole(http, {**SHORT_COMPLETION, **FREE, **fields}))["choices"]
    for each, reason in ((text, None), (choice["text"], choice["finish_reason"])):
        is_cut = reason == "length" or len(each.encode()) >= 60
        assert is_cut or re.fullmatch(pattern, each), each
