"""Chinese and emoji, whose characters are several tokens each in the tiny model."""

from typing import Any

import openai
import pytest
from served_tiny import ANSWER, POLYGLOT, QUESTION, TinyModels

REPLACEMENT = "\ufffd"


def ask(client: openai.AsyncOpenAI, **body: Any) -> Any:
    messages = [{"role": "user", "content": QUESTION}]
    return client.chat.completions.create(
        **{"model": POLYGLOT, "messages": messages, "temperature": 0, **body}
    )


async def contents(stream: Any) -> list[str]:
    return [c.choices[0].delta.content async for c in stream if c.choices[0].delta.content]


async def test_a_stream_never_splits_a_character(client: openai.AsyncOpenAI) -> None:
    # Tokens of a fast stream come in groups, so one stream splits the text at few places.
    streams = [await contents(await ask(client, stream=True)) for _ in range(10)]
    assert {"".join(parts) for parts in streams} == {ANSWER}
    assert not any(REPLACEMENT in part for parts in streams for part in parts)
    assert max(len(parts) for parts in streams) > 1


@pytest.mark.parametrize("num_tokens", range(1, 12))
async def test_an_answer_that_ends_within_a_character_streams_the_complete_answers_text(
    client: openai.AsyncOpenAI, models: TinyModels, num_tokens: int
) -> None:
    whole = (await ask(client, max_tokens=num_tokens)).choices[0].message.content
    parts = await contents(await ask(client, max_tokens=num_tokens, stream=True))
    assert "".join(parts) == whole == models.text(models.text_ids(ANSWER)[:num_tokens])


async def test_stop_strings_may_be_chinese(client: openai.AsyncOpenAI) -> None:
    parts = await contents(await ask(client, stop="世界", stream=True))
    assert "".join(parts) == ANSWER[: ANSWER.index("世界")]
