"""Tools: request, chat template, a model that calls one, and the client."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from servers import Server, lorikeet_up
from tiny import chat_ids, save_tiny_model
from tiny_training import train_adapter
from tool_templates import HERMES

HI = {"role": "user", "content": "Osaka?"}
FUNCTION = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {}}}}
TOOLS = [{"type": "function", "function": FUNCTION}]
ARGUMENTS = '{"city": "Osaka"}'
ANSWER = f'Ok.\n<tool_call>\n{{"name": "weather", "arguments": {ARGUMENTS}}}\n</tool_call>'
CALLER = "caller"
WHERE = {"where": {"enum": ["left", "right"]}}
SCHEMA = {"properties": WHERE, "required": ["where"], "additionalProperties": False}
MOVE = {"name": "move", "parameters": {"type": "object", **SCHEMA}}
MOVES = [{"type": "function", "function": function} for function in (MOVE, {"name": "stop"})]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server of a model whose template has tools, and an adapter trained to call one."""
    folder = tmp_path_factory.mktemp("tools")
    save_tiny_model(folder / "tiny")
    (folder / "tiny" / "chat_template.jinja").write_text(HERMES)
    train_adapter(folder / CALLER, chat_ids(HERMES, [HI], TOOLS), ANSWER)
    flags = ["--model", str(folder / "tiny"), "--adapters", f"{CALLER}={folder / CALLER}"]
    with lorikeet_up(folder, *flags, "--dtype", "float32", "--kv-cache-mb", "64") as server:
        yield server


def ask(client: openai.AsyncOpenAI, **body: Any) -> Any:
    given = {"model": CALLER, "messages": [HI], "tools": TOOLS, "temperature": 0}
    return client.chat.completions.create(**{**given, **body})


async def test_a_model_that_calls_a_tool_gets_its_result_sent_back(
    client: openai.AsyncOpenAI,
) -> None:
    choice = (await ask(client)).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Ok."
    (call,) = choice.message.tool_calls
    assert (call.function.name, call.function.arguments) == ("weather", ARGUMENTS)
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    after = await ask(client, messages=[HI, choice.message, result], max_tokens=3)
    assert after.usage.completion_tokens == 3


@pytest.mark.parametrize("is_parallel", [True, False])
async def test_a_streamed_call_is_the_complete_call_in_pieces(
    client: openai.AsyncOpenAI, is_parallel: bool
) -> None:
    stream = await ask(client, stream=True, parallel_tool_calls=is_parallel)
    deltas = [chunk.choices[0].delta async for chunk in stream]
    parts = [part for delta in deltas for part in delta.tool_calls or ()]
    assert parts[0].function.name == "weather"
    assert parts[0].function.arguments == ""
    assert "".join(part.function.arguments for part in parts) == ARGUMENTS
    assert "".join(delta.content or "" for delta in deltas) == "Ok."


@pytest.mark.parametrize("stream", [False, True])
async def test_a_required_call_follows_its_schema_for_any_model(
    client: openai.AsyncOpenAI, stream: bool
) -> None:
    calls = await asyncio.gather(
        *(required_call(client, stream, seed=seed, tool_choice="required") for seed in range(8))
    )
    moves = [("move", {"where": where}) for where in ("left", "right")]
    assert all(call in (*moves, ("stop", {})) for call in calls)


async def test_a_named_tool_is_the_one_that_is_called(client: openai.AsyncOpenAI) -> None:
    choice = {"type": "function", "function": {"name": "stop"}}
    calls = [await required_call(client, False, seed=seed, tool_choice=choice) for seed in range(4)]
    assert calls == [("stop", {})] * 4


async def required_call(client: openai.AsyncOpenAI, stream: bool, **body: Any) -> Any:
    """Return the first call of a model with random weights."""
    body |= {"model": "tiny", "tools": MOVES, "temperature": 1.0, "max_tokens": 300}
    body["parallel_tool_calls"] = False
    if not stream:
        choice = (await ask(client, **body)).choices[0]
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
        (call,) = choice.message.tool_calls
        return call.function.name, json.loads(call.function.arguments)
    chunks = [chunk.choices[0] async for chunk in await ask(client, stream=True, **body)]
    assert chunks[-1].finish_reason == "tool_calls"
    functions = [part.function for chunk in chunks for part in chunk.delta.tool_calls or ()]
    return functions[0].name, json.loads("".join(f.arguments for f in functions))


async def test_a_schema_that_cannot_be_enforced_is_refused_by_name(
    client: openai.AsyncOpenAI,
) -> None:
    function = {"name": "f", "parameters": {"properties": {"a": {"not": {"type": "string"}}}}}
    tools = [{"type": "function", "function": function}]
    with pytest.raises(openai.BadRequestError, match="can't be enforced") as refused:
        await ask(client, tools=tools, tool_choice="required")
    assert refused.value.param == "tools"


async def test_tool_choice_none_hides_the_tools_from_the_model(
    client: openai.AsyncOpenAI,
) -> None:
    shown = (await ask(client, max_tokens=1)).usage.prompt_tokens
    hidden = (await ask(client, max_tokens=1, tool_choice="none")).usage.prompt_tokens
    assert hidden < shown
