"""Costly schemas of one tenant don't delay the schemas of another one."""

import asyncio
from pathlib import Path
from typing import Any

import openai
import pytest
from served_tiny import BASE, TinyModels
from servers import lorikeet_up

RED, BLUE = "red-key-0123456789abcdef", "blue-key-0123456789abcdef"
NUM_COSTLY = 12


def json_schema(schema: dict[str, Any]) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


def costly(number: int) -> Any:
    """Return a schema that takes minutes to compile without a limit."""
    return json_schema({"type": "integer", "multipleOf": 100_000_007 + 2 * number})


async def ask(client: openai.AsyncOpenAI, response_format: Any) -> str:
    answer = await client.chat.completions.create(
        model=BASE,
        messages=[{"role": "user", "content": "a"}],
        max_tokens=8,
        response_format=response_format,
    )
    return answer.choices[0].message.content or ""


@pytest.mark.slow
async def test_a_schema_is_compiled_beside_costly_ones_of_another_tenant(
    models: TinyModels, tmp_path: Path
) -> None:
    with lorikeet_up(tmp_path, *models.flags, api_key=f"red:{RED} blue:{BLUE}") as server:
        url = server.api_url
        async with (
            openai.AsyncOpenAI(base_url=url, api_key=RED, max_retries=0) as red,
            openai.AsyncOpenAI(base_url=url, api_key=BLUE, max_retries=0) as blue,
        ):
            hostile = [asyncio.create_task(ask(red, costly(i))) for i in range(NUM_COSTLY)]
            await asyncio.wait(hostile, return_when=asyncio.FIRST_COMPLETED)
            assert await ask(blue, json_schema({"const": 1})) == "1"
            assert sum(task.done() for task in hostile) < NUM_COSTLY / 2
            results = await asyncio.gather(*hostile, return_exceptions=True)
    refusals = {openai.BadRequestError, openai.RateLimitError}
    assert {type(result) for result in results} <= refusals
