"""Answers of both endpoints, complete and streamed."""

from typing import Any

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


async def chat(client: openai.AsyncOpenAI, **body: Any) -> Any:
    return await client.chat.completions.create(**{"model": BASE, "messages": CHAT, **body})


async def complete(client: openai.AsyncOpenAI, **body: Any) -> Any:
    return await client.completions.create(**{"model": BASE, "prompt": PROMPT, **body})


async def chat_stream(client: openai.AsyncOpenAI, **body: Any) -> tuple[dict[int, str], list[Any]]:
    """Return the text of each choice, and all chunks."""
    chunks = [chunk async for chunk in await chat(client, stream=True, **body)]
    texts: dict[int, str] = {}
    for choice in (choice for chunk in chunks for choice in chunk.choices):
        texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
    return texts, chunks


async def test_an_answer_has_the_fields_of_lmdeploys_example(
    client: openai.AsyncOpenAI, models: TinyModels
) -> None:
    answer = await chat(client, model="narrow", **GREEDY, extra_body=ENDLESS)
    body = answer.model_dump()
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert answer.created > 0
    assert answer.model == "narrow"
    [choice] = body["choices"]
    assert {"index", "message", "logprobs", "finish_reason"} <= choice.keys()
    assert choice["index"] == 0
    assert choice["message"]["role"] == "assistant"
    assert isinstance(choice["message"]["content"], str)
    assert choice["message"]["tool_calls"] is None
    assert choice["logprobs"] is None
    assert choice["finish_reason"] == "length"
    num_prompt = len(models.chat_ids(PROMPT))
    assert answer.usage.prompt_tokens == num_prompt
    assert answer.usage.completion_tokens == 24
    assert answer.usage.total_tokens == num_prompt + 24


async def test_a_completion_continues_the_prompt_verbatim(
    client: openai.AsyncOpenAI, models: TinyModels
) -> None:
    ids = models.text_ids(PROMPT)
    answer = await complete(client, **GREEDY)
    from_ids = await complete(client, prompt=ids, **GREEDY)
    assert answer.object == "text_completion"
    assert answer.choices[0].text == from_ids.choices[0].text
    assert answer.usage.prompt_tokens == len(ids)


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", NAMES)
async def test_a_chat_stream_has_the_text_of_the_complete_answer(
    client: openai.AsyncOpenAI, name: str, sampling: dict[str, Any]
) -> None:
    whole = await chat(client, model=name, **sampling)
    texts, chunks = await chat_stream(client, model=name, **sampling)
    assert texts == {0: whole.choices[0].message.content}
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert len(chunks) > 2


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
async def test_a_completion_stream_has_the_text_of_the_complete_answer(
    client: openai.AsyncOpenAI, sampling: dict[str, Any]
) -> None:
    whole = await complete(client, **sampling)
    chunks = [chunk async for chunk in await complete(client, stream=True, **sampling)]
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason


async def test_the_base_and_each_adapter_give_different_answers(
    client: openai.AsyncOpenAI,
) -> None:
    answers = [await complete(client, model=name, **GREEDY) for name in NAMES]
    assert len({answer.choices[0].text for answer in answers}) == len(NAMES)


@pytest.mark.parametrize("length", [1, 2, 63, 200])
async def test_an_answer_that_ignores_its_end_has_exactly_max_tokens(
    client: openai.AsyncOpenAI, length: int
) -> None:
    answer = await complete(client, max_tokens=length, extra_body=ENDLESS)
    assert answer.usage.completion_tokens == length
    assert answer.choices[0].finish_reason == "length"


async def test_max_completion_tokens_limits_a_chat(client: openai.AsyncOpenAI) -> None:
    answer = await chat(client, max_completion_tokens=5, extra_body=ENDLESS)
    assert answer.usage.completion_tokens == 5


async def test_an_answer_ends_before_its_stop_string(client: openai.AsyncOpenAI) -> None:
    whole = (await complete(client, **GREEDY)).choices[0].text
    stop = whole[5:7]
    cut = await complete(client, stop=["never this", stop], **GREEDY)
    assert cut.choices[0].text == whole[: whole.index(stop)]
    assert cut.choices[0].finish_reason == "stop"
    assert cut.usage.completion_tokens < 24
    chunks = [c async for c in await complete(client, stop=stop, stream=True, **GREEDY)]
    assert "".join(chunk.choices[0].text for chunk in chunks) == cut.choices[0].text
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_n_choices_are_sampled_independently_and_streamed_under_their_indices(
    client: openai.AsyncOpenAI,
) -> None:
    body = {**SAMPLED, "n": 3, "extra_body": ENDLESS}
    whole = await chat(client, **body)
    texts, _ = await chat_stream(client, **body)
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert texts == {choice.index: choice.message.content for choice in whole.choices}
    assert len(set(texts.values())) == 3
    assert whole.usage.completion_tokens == 3 * 24


async def test_a_seed_repeats_an_answer_and_another_one_does_not(
    client: openai.AsyncOpenAI,
) -> None:
    sampling = {**SAMPLED, "extra_body": ENDLESS}
    answers = [
        (await complete(client, **{**sampling, "seed": seed})).choices[0].text
        for seed in (1, 1, 2, -1)
    ]
    assert answers[0] == answers[1]
    assert len(set(answers)) == 3


async def test_answers_without_a_seed_differ(client: openai.AsyncOpenAI) -> None:
    answers = [await complete(client, max_tokens=24, extra_body=ENDLESS) for _ in range(2)]
    assert answers[0].choices[0].text != answers[1].choices[0].text


async def test_the_usage_ends_a_stream_that_asks_for_it(client: openai.AsyncOpenAI) -> None:
    whole = await chat(client, **GREEDY)
    _, chunks = await chat_stream(client, stream_options={"include_usage": True}, **GREEDY)
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])


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
