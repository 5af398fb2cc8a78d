"""Several prompts in one request, and fields that change the logits of an answer."""

from typing import Any

import openai
import pytest
from served_tiny import BASE, TinyModels

BLOCK_SIZE = 16
"""Tokens per block of the KV cache; only whole blocks are shared."""
PROMPTS = ["one", "a second prompt", "3"]
SAMPLED: dict[str, Any] = {
    "temperature": 0.9, "seed": 5, "max_tokens": 12, "extra_body": {"ignore_eos": True}
}  # fmt: skip


async def texts(client: openai.AsyncOpenAI, **body: Any) -> list[str]:
    answer = await client.completions.create(**{"model": BASE, **body})
    assert [choice.index for choice in answer.choices] == list(range(len(answer.choices)))
    return [choice.text for choice in answer.choices]


@pytest.mark.parametrize("as_ids", [False, True], ids=["text", "ids"])
async def test_several_prompts_are_answered_in_order_like_single_ones(
    client: openai.AsyncOpenAI, models: TinyModels, as_ids: bool
) -> None:
    alone = [text for p in PROMPTS for text in await texts(client, prompt=p, n=2, **SAMPLED)]
    prompts: Any = [models.text_ids(p) for p in PROMPTS] if as_ids else PROMPTS
    assert await texts(client, prompt=prompts, n=2, **SAMPLED) == alone
    assert len(set(alone)) == 6


async def test_several_prompts_stream_under_their_indices(client: openai.AsyncOpenAI) -> None:
    body = {"prompt": PROMPTS, "n": 2, "echo": True, **SAMPLED}
    whole = await texts(client, **body)
    streamed = [""] * 6
    async for chunk in await client.completions.create(model=BASE, stream=True, **body):
        for choice in chunk.choices:
            streamed[choice.index] += choice.text
    assert streamed == whole
    assert [text[: len(p)] for text, p in zip(whole[::2], PROMPTS, strict=True)] == PROMPTS


async def test_more_prompts_than_a_batch_are_all_answered(
    client: openai.AsyncOpenAI, models: TinyModels
) -> None:
    prompts = [f"{i:03}" for i in range(128)]
    answer = await client.completions.create(
        model="narrow", prompt=prompts, max_tokens=2, temperature=0, echo=True
    )
    assert [choice.text[:3] for choice in answer.choices] == prompts
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == sum(len(models.text_ids(p)) for p in prompts)
    assert answer.usage.completion_tokens <= 256


@pytest.mark.parametrize(("max_tokens", "beginnings"), [(1, "JX"), (3, "QZ")])
async def test_usage_reports_the_cached_tokens_of_the_prompts(
    client: openai.AsyncOpenAI, models: TinyModels, max_tokens: int, beginnings: str
) -> None:
    texts = [f"{begin} is what this prompt begins with, and no other does" for begin in beginnings]
    body: dict[str, Any] = {"model": BASE, "prompt": texts, "n": 2, "max_tokens": max_tokens}
    num_shared = sum((len(models.text_ids(text)) - 1) // BLOCK_SIZE * BLOCK_SIZE for text in texts)
    for num_cached in (0, num_shared):
        usage = (await client.completions.create(**body)).usage
        assert usage is not None
        assert usage.prompt_tokens_details is not None
        assert usage.prompt_tokens_details.cached_tokens == num_cached
    assert num_shared > 0
