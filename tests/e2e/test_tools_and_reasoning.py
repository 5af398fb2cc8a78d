"""Tools, reasoning and schemas after it: request, chat template, model and the client."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from joined_stream import joined_choice, normal
from reasoning_templates import QWEN3
from recital import SIZES, save_recital, save_reciting_base
from servers import Server, lorikeet_up
from tiny import chat_ids, save_adapter, tiny_model
from tool_templates import HERMES

THINKS_IN_PROMPT = HERMES.replace(
    "{% if add_generation_prompt %}<|assistant|>",
    "{% if add_generation_prompt %}<|assistant|><think>\n",
)
"""Template with tools whose prompts end with the opening marker, as those of DeepSeek R1 do."""
HI = {"role": "user", "content": "Osaka?"}


def tools(*functions: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"type": "function", "function": function} for function in functions]


TOOLS = tools({"name": "weather", "parameters": {"type": "object", "properties": {"city": {}}}})
ARGUMENTS = '{"city": "Osaka"}'
CALL = f'<tool_call>\n{{"name": "weather", "arguments": {ARGUMENTS}}}\n</tool_call>'
CALLER, TERSE, THINKER, RANDOM = "caller", "terse", "thinker", "random"
SCHEMA = {
    "type": "object",
    "properties": {"where": {"enum": ["left", "right"]}},
    "required": ["where"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}
MOVES = tools({"name": "move", "parameters": SCHEMA}, {"name": "stop"})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server of adapters, of which two bring their own chat templates.

    Three of them reason, and two of these call a tool. The fourth one has random weights.
    """
    folder = tmp_path_factory.mktemp("reasoning")
    save_reciting_base(folder / "tiny")
    (folder / "tiny" / "chat_template.jinja").write_text(THINKS_IN_PROMPT)
    prompt = chat_ids(THINKS_IN_PROMPT, [HI], TOOLS)
    for name, text in ((CALLER, "Ok.\n"), (TERSE, "")):
        save_recital(folder / name, [(prompt, f"Look it up.\n</think>\n\n{text}{CALL}")])
    thought = "<think>\nHm.\n</think>\n\nNo."
    save_recital(folder / THINKER, [(chat_ids(QWEN3, [HI], None), thought)])
    (folder / THINKER / "chat_template.jinja").write_text(QWEN3)
    save_adapter(folder / RANDOM, base=tiny_model(**SIZES), r=4, target_modules=["q_proj"])
    (folder / RANDOM / "chat_template.jinja").write_text(HERMES)
    adapters = [f"{name}={folder / name}" for name in (CALLER, TERSE, THINKER, RANDOM)]
    flags = ["--model", str(folder / "tiny"), "--adapters", *adapters]
    flags += ["--adapter-store", str(folder / "store")]
    with lorikeet_up(folder, *flags, "--dtype", "float32", "--kv-cache-mb", "128") as server:
        yield server


def ask(client: openai.AsyncOpenAI, model: str = CALLER, **body: Any) -> Any:
    offered = {"tools": TOOLS} if model in (CALLER, TERSE) else {}
    given = {"model": model, "messages": [HI], **offered, "temperature": 0, "max_tokens": 150}
    return client.chat.completions.create(**{**given, **body})


async def test_reasoning_that_the_prompt_begins_precedes_content_and_calls(
    client: openai.AsyncOpenAI,
) -> None:
    choice = (await ask(client)).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.reasoning_content == choice.message.reasoning == "Look it up."
    assert choice.message.content == "Ok."
    assert choice.message.tool_calls[0].function.arguments == ARGUMENTS


@pytest.mark.parametrize(
    ("model", "is_parallel"), [(CALLER, True), (CALLER, False), (THINKER, True)]
)
async def test_a_streamed_answer_is_the_complete_answer_in_pieces(
    client: openai.AsyncOpenAI, model: str, is_parallel: bool
) -> None:
    given = {"parallel_tool_calls": False} if not is_parallel else {}
    whole = (await ask(client, model, **given)).choices[0]
    chunks = [
        chunk.model_dump(exclude_unset=True)
        async for chunk in await ask(client, model, stream=True, **given)
    ]
    streamed, expected = joined_choice(chunks), normal(whole.model_dump())
    for choice in (streamed, expected):
        for call in choice["message"]["tool_calls"] or ():
            del call["id"]  # it differs between jobs
    assert streamed == expected


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


async def test_a_call_may_take_the_place_of_an_answer_with_a_schema(
    client: openai.AsyncOpenAI,
) -> None:
    called = (await ask(client, TERSE, response_format=FORMAT)).choices[0].message
    assert (called.reasoning_content, called.content) == ("Look it up.", None)
    assert called.tool_calls[0].function.arguments == ARGUMENTS


async def test_a_required_call_follows_the_reasoning(client: openai.AsyncOpenAI) -> None:
    choice = (await ask(client, TERSE, tool_choice="required")).choices[0]
    assert choice.message.reasoning_content == "Look it up."
    assert choice.message.content is None
    assert choice.message.tool_calls[0].function.arguments == ARGUMENTS


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
    body |= {"tools": MOVES, "temperature": 1.0, "max_tokens": 300, "parallel_tool_calls": False}
    if not stream:
        choice = (await ask(client, RANDOM, **body)).choices[0].model_dump()
    else:
        stream_of = await ask(client, RANDOM, stream=True, **body)
        choice = joined_choice([chunk.model_dump(exclude_unset=True) async for chunk in stream_of])
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    (call,) = choice["message"]["tool_calls"]
    return call["function"]["name"], json.loads(call["function"]["arguments"])


async def test_a_schema_that_cannot_be_enforced_is_refused_by_name(
    client: openai.AsyncOpenAI,
) -> None:
    unclear = tools({"name": "f", "parameters": {"properties": {"a": {"not": {"type": "string"}}}}})
    with pytest.raises(openai.BadRequestError, match="can't be enforced") as refused:
        await ask(client, RANDOM, tools=unclear, tool_choice="required")
    assert refused.value.param == "tools"


async def test_tool_choice_none_hides_the_tools_from_the_model(client: openai.AsyncOpenAI) -> None:
    shown = (await ask(client, max_tokens=1)).usage.prompt_tokens
    hidden = (await ask(client, max_tokens=1, tool_choice="none")).usage.prompt_tokens
    assert hidden < shown
