"""Answers of both endpoints, complete and streamed."""

from typing import Any

import openai
import pytest
from served_tiny import BASE, NAMES

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
