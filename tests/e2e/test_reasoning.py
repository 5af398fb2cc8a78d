"""Reasoning: chat templates, models that reason, tools and schemas after it, and the client."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from reasoning_templates import QWEN3
from servers import Server, lorikeet_up
from tiny import chat_ids, save_tiny_model
from tiny_training import train_adapter
from tool_templates import HERMES

THINKS_IN_PROMPT = HERMES.replace(
    "{% if add_generation_prompt %}<|assistant|>",
    "{% if add_generation_prompt %}<|assistant|><think>\n",
)
"""Template with tools whose prompts end with the opening marker, as those of DeepSeek R1 do."""
HI = {"role": "user", "content": "Osaka?"}
FUNCTION = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {}}}}
TOOLS = [{"type": "function", "function": FUNCTION}]
ARGUMENTS = '{"city": "Osaka"}'
CALL = f'<tool_call>\n{{"name": "weather", "arguments": {ARGUMENTS}}}\n</tool_call>'
CALLER, THINKER = "caller", "thinker"
SCHEMA = {
    "type": "object",
    "properties": {"where": {"enum": ["left", "right"]}},
    "required": ["where"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server of two adapters that reason, of which one brings its own chat template."""
    folder = tmp_path_factory.mktemp("reasoning")
    save_tiny_model(folder / "tiny")
    (folder / "tiny" / "chat_template.jinja").write_text(THINKS_IN_PROMPT)
    prompt = chat_ids(THINKS_IN_PROMPT, [HI], TOOLS)
    train_adapter(folder / CALLER, prompt, f"Look it up.\n</think>\n\nOk.\n{CALL}")
    train_adapter(folder / THINKER, chat_ids(QWEN3, [HI], None), "<think>\nHm.\n</think>\n\nNo.")
    (folder / THINKER / "chat_template.jinja").write_text(QWEN3)
    adapters = [f"{name}={folder / name}" for name in (CALLER, THINKER)]
    flags = ["--model", str(folder / "tiny"), "--adapters", *adapters]
    flags += ["--adapter-store", str(Path(folder) / "store")]
    with lorikeet_up(folder, *flags, "--dtype", "float32", "--kv-cache-mb", "64") as server:
        yield server


def ask(client: openai.AsyncOpenAI, model: str = CALLER, **body: Any) -> Any:
    tools = {"tools": TOOLS} if model == CALLER else {}
    given = {"model": model, "messages": [HI], **tools, "temperature": 0, "max_tokens": 150}
    return client.chat.completions.create(**{**given, **body})


async def test_reasoning_that_the_prompt_begins_precedes_content_and_calls(
    client: openai.AsyncOpenAI,
) -> None:
    choice = (await ask(client)).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.reasoning_content == choice.message.reasoning == "Look it up."
    assert choice.message.content == "Ok."
    assert choice.message.tool_calls[0].function.arguments == ARGUMENTS


@pytest.mark.parametrize("model", [CALLER, THINKER])
async def test_a_streamed_answer_is_the_complete_answer_in_pieces(
    client: openai.AsyncOpenAI, model: str
) -> None:
    message = (await ask(client, model)).choices[0].message
    stream = await ask(client, model, stream=True)
    deltas = [chunk.choices[0].delta.model_dump() async for chunk in stream]
    for name in ("reasoning_content", "reasoning", "content"):
        streamed = "".join(delta.get(name) or "" for delta in deltas)
        assert streamed == getattr(message, name)


async def test_an_adapters_own_template_decides_how_it_reasons(client: openai.AsyncOpenAI) -> None:
    choice = (await ask(client, THINKER)).choices[0]
    assert (choice.message.reasoning_content, choice.message.content) == ("Hm.", "No.")
    hidden = await ask(client, THINKER, extra_body={"include_reasoning": False})
    assert hidden.choices[0].message.content == "No."
    assert not hasattr(hidden.choices[0].message, "reasoning_content")


async def test_variables_change_the_prompt(client: openai.AsyncOpenAI) -> None:
    plain = await ask(client, THINKER, max_tokens=1)
    off = await ask(client, THINKER, max_tokens=1, reasoning_effort="none")
    kwargs = {"chat_template_kwargs": {"enable_thinking": False}}
    same = await ask(client, THINKER, max_tokens=1, extra_body=kwargs)
    added = len("<think>\n\n</think>\n\n")  # each character is a token
    assert off.usage.prompt_tokens == same.usage.prompt_tokens == plain.usage.prompt_tokens + added


async def test_an_answer_that_ends_inside_the_reasoning_has_no_content(
    client: openai.AsyncOpenAI,
) -> None:
    choice = (await ask(client, max_tokens=4)).choices[0]
    assert (choice.message.reasoning_content, choice.message.content) == ("Look", None)
    assert choice.finish_reason == "length"


async def test_a_schema_applies_after_the_reasoning(client: openai.AsyncOpenAI) -> None:
    message = (await ask(client, tool_choice="none", response_format=FORMAT)).choices[0].message
    if message.content is not None:  # without tools in its prompt, the model may reason at length
        assert json.loads(message.content)["where"] in ("left", "right")
    choice = (await ask(client, response_format=FORMAT)).choices[0]
    assert choice.message.reasoning_content == "Look it up."
    if choice.message.tool_calls:
        assert choice.message.content is None
    else:
        assert json.loads(choice.message.content)["where"] in ("left", "right")


async def test_a_required_call_follows_the_reasoning(client: openai.AsyncOpenAI) -> None:
    choice = (await ask(client, tool_choice="required", max_tokens=400)).choices[0]
    assert choice.message.reasoning_content == "Look it up."
    assert choice.message.content is None
    assert choice.message.tool_calls[0].function.name == "weather"


async def test_an_answer_continues_the_last_message(client: openai.AsyncOpenAI) -> None:
    inside = {"role": "assistant", "content": "<think>\nLook "}
    continues = {"continue_final_message": True, "add_generation_prompt": False}
    choice = (await ask(client, messages=[HI, inside], extra_body=continues)).choices[0]
    assert (choice.message.reasoning_content, choice.message.content) == ("it up.", "Ok.")
    after = {"role": "assistant", "content": "<think>\nLook it up.\n</think>\n\nO"}
    body = {**continues, "echo": True}
    choice = (await ask(client, messages=[HI, after], extra_body=body)).choices[0]
    assert choice.message.content == after["content"] + "k."
    assert choice.message.tool_calls[0].function.arguments == ARGUMENTS
