"""JSON answers of a random model through OpenAI's client."""

import asyncio
import json
from typing import Any

import openai
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
