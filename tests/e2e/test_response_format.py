"""JSON answers of a random model through OpenAI's client."""

import asyncio
import json
from typing import Any

import openai
import pytest
from json_schemas import Schema, is_valid, random_schema
from served_tiny import BASE, NAMES

CHAT = [{"role": "user", "content": "Once upon a time"}]
FIELD = {"type": "string", "minLength": 10, "maxLength": 20, "pattern": "^[a-z ]*$"}
POINT = {
    "type": "object",
    "properties": {"y": {"type": "integer", "minimum": -99, "maximum": 99}, "x": FIELD},
    "required": ["y", "x"],
    "additionalProperties": False,
}


def response_format(schema: Schema) -> dict[str, Any]:
    return {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": True, "schema": schema},
    }


async def ask(client: openai.AsyncOpenAI, schema: Schema | None, **body: Any) -> Any:
    format_ = {"type": "text"} if schema is None else response_format(schema)
    fields = {"model": BASE, "messages": CHAT, "max_tokens": 400, "temperature": 1.0}
    return await client.chat.completions.create(**{**fields, "response_format": format_, **body})


async def test_base_and_adapters_answer_under_many_schemas_at_once(
    client: openai.AsyncOpenAI,
) -> None:
    schemas = [random_schema(1000 + i) if i % 5 else None for i in range(40)]
    answers = await asyncio.gather(
        *(
            ask(client, schema, model=NAMES[i % len(NAMES)], seed=i)
            for i, schema in enumerate(schemas)
        )
    )
    num_whole = 0
    for schema, answer in zip(schemas, answers, strict=True):
        [choice] = answer.choices
        if schema is not None and choice.finish_reason == "stop":
            num_whole += 1
            assert is_valid(schema, choice.message.content), (schema, choice.message.content)
    assert num_whole >= 28  # of 32: a random model's white space can fill this small context


async def test_each_choice_follows_the_schema_by_itself(client: openai.AsyncOpenAI) -> None:
    answer = await ask(client, POINT, n=4, seed=3)
    texts = [choice.message.content for choice in answer.choices]
    assert all(is_valid(POINT, text) for text in texts)
    assert [list(json.loads(text)) for text in texts] == [["y", "x"]] * 4
    assert len(set(texts)) > 1


async def test_a_stream_has_the_text_of_the_whole_answer(client: openai.AsyncOpenAI) -> None:
    whole = await ask(client, POINT, seed=4)
    chunks = [chunk async for chunk in await ask(client, POINT, seed=4, stream=True)]
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert is_valid(POINT, text)


async def test_an_answer_that_max_tokens_truncates_has_the_finish_reason_length(
    client: openai.AsyncOpenAI,
) -> None:
    answer = await ask(client, POINT, max_tokens=7)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 7


async def test_json_object_gives_the_beginning_of_an_object(client: openai.AsyncOpenAI) -> None:
    answer = await ask(client, None, response_format={"type": "json_object"}, max_tokens=60)
    [choice] = answer.choices
    assert choice.message.content.startswith("{")
    if choice.finish_reason == "stop":
        assert isinstance(json.loads(choice.message.content), dict)


async def test_a_schema_that_cannot_be_enforced_is_a_400_with_the_reason(
    client: openai.AsyncOpenAI,
) -> None:
    with pytest.raises(openai.BadRequestError, match="uniqueItems") as refused:
        await ask(client, {"type": "array", "uniqueItems": True})
    assert (refused.value.param, refused.value.code) == ("response_format", "invalid_value")
