"""Several prompts in one request, and fields that change the logits of an answer."""

from typing import Any

import openai
import pytest
from served_tiny import BASE, TinyModels

from shared.protocol.ids import JobId
from shared.store.views.pool_views import PoolViews

BLOCK_SIZE = 16
"""Tokens per block of the KV cache; only whole blocks are shared."""
PROMPTS = ["one", "a second prompt", "3"]
SAMPLED: dict[str, Any] = {
    "temperature": 0.9, "seed": 5, "max_tokens": 12, "extra_body": {"ignore_eos": True}
}  # fmt: skip
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 24}


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


async def test_a_bad_id_in_one_of_several_prompts_is_named(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        await client.completions.create(model=BASE, prompt=[[70, 71], [70, 71, 9999]])
    assert error.value.param == "prompt[1][2]"


async def test_a_biased_token_is_forced_or_banned(
    client: openai.AsyncOpenAI, models: TinyModels, views: PoolViews
) -> None:
    [x] = models.text_ids("x")
    [forced] = await texts(client, prompt="hi", logit_bias={str(x): 100}, **GREEDY)
    assert forced == "x" * 24
    plain = await output_ids(client, views, {})
    banned = {str(token_id): -100 for token_id in plain[:3]}
    assert not set(await output_ids(client, views, banned)) & set(plain[:3])


async def output_ids(
    client: openai.AsyncOpenAI, views: PoolViews, logit_bias: dict[str, int]
) -> list[int]:
    answer = await client.completions.create(
        model=BASE, prompt="hi", logit_bias=logit_bias, **GREEDY
    )
    result = (await views.job_and_result(JobId(answer.id.removeprefix("cmpl-"))))[1]
    assert result is not None
    return list(result.choices[0].ids)


async def test_a_bias_of_a_token_that_does_not_exist_is_a_400(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        await client.completions.create(model=BASE, prompt="hi", logit_bias={"99999": 1})
    assert error.value.param == "logit_bias[99999]"


async def test_penalties_end_a_repetition(client: openai.AsyncOpenAI, models: TinyModels) -> None:
    [x] = models.text_ids("x")
    body: dict[str, Any] = {"prompt": "hi", "logit_bias": {str(x): 20}, **GREEDY}
    assert await texts(client, **body) == ["x" * 24]
    [frequency] = await texts(client, frequency_penalty=2, **body)
    assert 1 < frequency.count("x") < 24
    [repetition] = await texts(client, **body, extra_body={"repetition_penalty": 20})
    assert repetition.count("x") < 24


async def test_an_answer_does_not_end_before_min_tokens(
    client: openai.AsyncOpenAI, models: TinyModels
) -> None:
    end = str(models.tokenizer.eos_token_id)
    body: dict[str, Any] = {"model": BASE, "prompt": "hi", "logit_bias": {end: 100}, **GREEDY}
    short = await client.completions.create(**body)
    assert (short.usage.completion_tokens, short.choices[0].text) == (1, "")
    longer = await client.completions.create(**body, extra_body={"min_tokens": 7})
    assert longer.usage.completion_tokens == 8
    assert longer.choices[0].finish_reason == "stop"


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
