"""Answers of both endpoints, complete and streamed."""

from typing import Any

import httpx
import openai
import pytest
from served_tiny import BASE, NAMES, TinyModels

PROMPT = "Once upon a time"
CHAT = [{"role": "user", "content": PROMPT}]
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 24}
SAMPLED: dict[str, Any] = {
    "temperature": 0.9, "top_p": 0.95, "seed": 7, "max_tokens": 24, "extra_body": {"top_k": 50}
}  # fmt: skip
ENDLESS = {"ignore_eos": True}
PROMPTS = ["one", "a second prompt", "3"]
TWELVE = {"temperature": 0.9, "seed": 5, "max_tokens": 12, "extra_body": ENDLESS}


async def chat(client: openai.AsyncOpenAI, **body: Any) -> Any:
    return await client.chat.completions.create(**{"model": BASE, "messages": CHAT, **body})


async def complete(client: openai.AsyncOpenAI, **body: Any) -> Any:
    return await client.completions.create(**{"model": BASE, "prompt": PROMPT, **body})


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", NAMES)
async def test_a_chat_stream_has_the_text_of_the_complete_answer(
    client: openai.AsyncOpenAI, name: str, sampling: dict[str, Any]
) -> None:
    whole = await chat(client, model=name, **sampling)
    chunks = [chunk async for chunk in await chat(client, model=name, stream=True, **sampling)]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert len(chunks) > 2


async def test_answers_without_a_seed_differ(client: openai.AsyncOpenAI) -> None:
    answers = [await complete(client, max_tokens=24, extra_body=ENDLESS) for _ in range(2)]
    assert answers[0].choices[0].text != answers[1].choices[0].text


async def test_a_conversation_of_several_turns_is_answered(client: openai.AsyncOpenAI) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        *CHAT,
        {"role": "assistant", "content": "there was"},
        {"role": "user", "content": [{"type": "text", "text": "a what?"}]},
    ]
    answer = await chat(client, messages=messages, **GREEDY)
    template = "<|system|>Be brief.<|end|><|user|>Once upon a time<|end|>"
    template += "<|assistant|>there was<|end|><|user|>a what?<|end|><|assistant|>"
    by_hand = await complete(client, prompt=template, **GREEDY)
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


async def test_a_chat_has_the_tokens_that_its_completion_counts(
    http: httpx.AsyncClient, client: openai.AsyncOpenAI, models: TinyModels
) -> None:
    answer = (await http.post("/tokenize", json={"messages": CHAT})).json()
    assert answer["tokens"] == models.chat_ids(PROMPT)
    assert answer["token_strs"] is None
    completion = await chat(client, max_tokens=1)
    assert completion.usage.prompt_tokens == answer["count"]
    body = {"messages": CHAT, "add_generation_prompt": False}
    shorter = (await http.post("/tokenize", json=body)).json()
    assert answer["tokens"][: shorter["count"]] == shorter["tokens"]
    assert shorter["count"] < answer["count"]
