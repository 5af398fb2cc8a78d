"""Thinking, tools and schemas together, with the chat templates of several model families.

Tools also with a model of random weights, whose calls only a grammar can make valid.
"""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import ollama
import openai
import pytest
from families import FAMILIES, LLAMA4, Family
from joined_stream import joined_choice, normal
from posted import error_of
from recital import SIZES, save_recital, save_reciting_base
from servers import Server, lorikeet_up
from sse_events import sse_events
from tiny import chat_ids, save_adapter, tiny_model
from tool_templates import HERMES

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "at": {"type": "object"}},
}
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": PARAMETERS}}]
CALLS = (("look", {"city": "Zürich", "at": {"d": [1, None]}}), ("look", {"city": "東京"}))
LLAMA4_CALLS = '[look(city="Zürich", at={"d": [1, null]}), look(city="東京")]'
CALL, SAY = "Call", "Say"
THOUGHT, JSON_ANSWER = "Hm é.", '{"go": "up"}'
SCHEMA = {
    "type": "object",
    "properties": {"go": {"enum": ["up", "down"]}},
    "required": ["go"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}
CALLER, RANDOM = "caller", "random"
"""An adapter with the base model's template, and one with random weights."""
THINKS_IN_PROMPT = HERMES.replace(
    "{% if add_generation_prompt %}<|assistant|>",
    "{% if add_generation_prompt %}<|assistant|><think>\n",
)
"""Template whose prompts end with the opening marker, as those of DeepSeek R1 do."""
CALLER_THINKS, CALLER_SAYS = "Look it up.", "Ok."
ARGUMENTS = '{"city": "Osaka"}'
CALLER_WRITES = f'<tool_call>\n{{"name": "look", "arguments": {ARGUMENTS}}}\n</tool_call>'
MOVES = [
    {"type": "function", "function": {"name": "move", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "stop"}},
]
pytestmark = pytest.mark.slow
each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server of one adapter for each family, which brings the family's chat template."""
    folder = tmp_path_factory.mktemp("families")
    save_reciting_base(folder / "tiny")
    (folder / "tiny" / "chat_template.jinja").write_text(THINKS_IN_PROMPT)
    asked = chat_ids(THINKS_IN_PROMPT, [{"role": "user", "content": CALL}], TOOLS)
    answer = f"{CALLER_THINKS}\n</think>\n\n{CALLER_SAYS}\n{CALLER_WRITES}"
    save_recital(folder / CALLER, [(asked, answer)])
    save_adapter(folder / RANDOM, base=tiny_model(**SIZES), r=4, target_modules=["q_proj"])
    (folder / RANDOM / "chat_template.jinja").write_text(HERMES)
    for family in FAMILIES:
        answers = [(prompt(family, asked), trained(family, asked)) for asked in (CALL, SAY)]
        save_recital(folder / family.name, answers)
        (folder / family.name / "chat_template.jinja").write_text(family.template)
    names = (CALLER, RANDOM, *(family.name for family in FAMILIES))
    adapters = [f"{name}={folder / name}" for name in names]
    flags = ["--model", str(folder / "tiny"), "--adapters", *adapters, "--dtype", "float32"]
    flags += ["--adapter-store", str(folder / "store"), "--kv-cache-mb", "256"]
    with lorikeet_up(folder, *flags) as server:
        yield server
        assert "Traceback" not in server.log_text()


def prompt(family: Family, asked: str) -> list[int]:
    return chat_ids(family.template, [{"role": "user", "content": asked}], TOOLS)


def trained(family: Family, asked: str) -> str:
    """Return the answer that the family's model gives."""
    if asked == CALL:
        # Grammars of required calls quote strings as JSON does.
        raw = LLAMA4_CALLS if family is LLAMA4 else ""
        return family.generated(family.answer(thought(family) or "", calls=CALLS, raw=raw))
    return family.generated(family.answer(thought(family) or "", JSON_ANSWER))


def thought(family: Family) -> str | None:
    return THOUGHT if family.thinks else None


SCENARIOS: dict[str, dict[str, Any]] = {
    "calls": {"asked": CALL},
    "text": {"asked": SAY},
    "calls or schema": {"asked": CALL, "response_format": FORMAT},
    "schema or calls": {"asked": SAY, "response_format": FORMAT},
    "required": {"asked": CALL, "tool_choice": "required"},
}
"""Message of the user, and further fields of the request."""
Choices = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def choices(server: Server) -> Choices:
    """Return the choice of each family in each scenario. All requests run concurrently."""

    async def ask_all() -> Choices:
        async with httpx.AsyncClient(base_url=server.url, timeout=100) as http:
            keys = [(family.name, name) for family in FAMILIES for name in SCENARIOS]
            asked = [whole_and_streamed(http, name, **SCENARIOS[what]) for name, what in keys]
            return dict(zip(keys, await asyncio.gather(*asked), strict=True))

    return asyncio.run(ask_all())


async def whole_and_streamed(
    http: httpx.AsyncClient, model: str, asked: str, **fields: Any
) -> dict[str, Any]:
    """Return the choice of an answer, which must be equal whether it is streamed or not."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": asked}],
        "tools": TOOLS,
        "temperature": 0,
        "max_tokens": 400,
        **fields,
    }
    streaming = {"stream": True, "stream_options": {"include_usage": True}}
    reply, stream = await asyncio.gather(
        http.post("/v1/chat/completions", json=body),
        http.post("/v1/chat/completions", json={**body, **streaming}),
    )
    whole = reply.raise_for_status().json()
    *events, done = sse_events(stream.raise_for_status().text)
    chunks = [event.json for event in events]
    assert done.data == "[DONE]"
    counted = ("prompt_tokens", "completion_tokens", "total_tokens")
    assert all(chunks[-1]["usage"][name] == whole["usage"][name] for name in counted)
    choice = normal(whole["choices"][0])
    assert without_ids(joined_choice(chunks)) == without_ids(choice)
    assert choice["message"]["reasoning_content"] == choice["message"]["reasoning"]
    return choice


def without_ids(choice: dict[str, Any]) -> dict[str, Any]:
    """Return a choice without the ids of its calls, which differ between jobs."""
    calls = [call["function"] for call in choice["message"]["tool_calls"] or ()]
    return {**choice, "message": {**choice["message"], "tool_calls": calls}}


def called(choice: dict[str, Any]) -> list[Any]:
    """Return the names and the arguments of the calls in a choice."""
    functions = [call["function"] for call in choice["message"]["tool_calls"] or ()]
    return [(function["name"], json.loads(function["arguments"])) for function in functions]


@each_family
@pytest.mark.parametrize("scenario", ["calls", "calls or schema", "required"])
def test_a_thought_precedes_parallel_calls(choices: Choices, family: Family, scenario: str) -> None:
    choice = choices[family.name, scenario]
    assert called(choice) == list(CALLS)
    assert choice["finish_reason"] == "tool_calls"
    message = choice["message"]
    assert (message["reasoning_content"], message["content"]) == (thought(family), None)


@each_family
@pytest.mark.parametrize("scenario", ["text", "schema or calls"])
def test_a_thought_precedes_text(choices: Choices, family: Family, scenario: str) -> None:
    choice = choices[family.name, scenario]
    assert choice["finish_reason"] == "stop"
    message = choice["message"]
    assert (message["reasoning_content"], message["content"]) == (thought(family), JSON_ANSWER)
    assert message["tool_calls"] is None


@each_family
async def test_ollamas_client_gets_the_thought_and_the_calls(
    server: Server, family: Family
) -> None:
    asked = [{"role": "user", "content": CALL}]
    options = {"temperature": 0, "num_predict": 400}
    async with ollama.AsyncClient(host=server.url) as programme:
        whole = await programme.chat(family.name, asked, tools=TOOLS, options=options)
        stream = await programme.chat(family.name, asked, tools=TOOLS, options=options, stream=True)
        parts = [part.message async for part in stream]
        shown = await programme.show(family.name)
    calls = [call for part in parts for call in part.tool_calls or ()]
    for found in (whole.message.tool_calls or (), calls):
        assert [(c.function.name, c.function.arguments) for c in found] == list(CALLS)
    thoughts = "".join(part.thinking or "" for part in parts)
    assert (thoughts or None) == whole.message.thinking == thought(family)
    assert whole.done_reason == "stop"
    assert ("thinking" in (shown.capabilities or ())) is family.thinks
    assert "tools" in (shown.capabilities or ())


async def test_an_answer_continues_the_last_message(http: httpx.AsyncClient) -> None:
    async def continued(content: str, **fields: Any) -> dict[str, Any]:
        asked = [{"role": "user", "content": CALL}, {"role": "assistant", "content": content}]
        body = {"model": CALLER, "messages": asked, "tools": TOOLS, **fields}
        body |= {"continue_final_message": True, "add_generation_prompt": False}
        body |= {"temperature": 0, "max_tokens": 150}
        reply = await http.post("/v1/chat/completions", json=body)
        choice: dict[str, Any] = reply.raise_for_status().json()["choices"][0]
        assert called(choice) == [("look", {"city": "Osaka"})]
        return choice["message"]

    inside = await continued("<think>\nLook ")
    assert (inside["reasoning_content"], inside["content"]) == ("it up.", CALLER_SAYS)
    begun = f"<think>\n{CALLER_THINKS}\n</think>\n\nO"
    assert (await continued(begun, echo=True))["content"] == begun + "k."


@pytest.mark.parametrize("stream", [False, True])
async def test_a_required_call_follows_its_schema_for_any_model(
    client: openai.AsyncOpenAI, stream: bool
) -> None:
    calls = await asyncio.gather(
        *(required_call(client, stream, seed=seed, tool_choice="required") for seed in range(8))
    )
    moves = [("move", {"go": go}) for go in ("up", "down")]
    assert all(call in (*moves, ("stop", {})) for call in calls)


async def required_call(client: openai.AsyncOpenAI, stream: bool, **body: Any) -> Any:
    """Return the first call of the model with random weights."""
    body |= {"tools": MOVES, "temperature": 1.0, "max_tokens": 300, "parallel_tool_calls": False}
    body |= {"model": RANDOM, "messages": [{"role": "user", "content": CALL}]}
    answer = await client.chat.completions.create(**body, stream=stream)
    if not stream:
        choice = answer.choices[0].model_dump()
    else:
        choice = joined_choice([chunk.model_dump(exclude_unset=True) async for chunk in answer])
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    (call,) = called(choice)
    return call


async def test_a_schema_that_cannot_be_enforced_is_refused_by_name(
    http: httpx.AsyncClient,
) -> None:
    unclear = {"name": "f", "parameters": {"properties": {"a": {"not": {"type": "string"}}}}}
    body = {"model": RANDOM, "messages": [{"role": "user", "content": CALL}]}
    tools = [{"type": "function", "function": unclear}]
    error = await error_of(http, {**body, "tools": tools, "tool_choice": "required"})
    path = "tools[0].function.parameters"
    reason = "the schema can't be enforced: keywords that aren't supported: not"
    assert (error["message"], error["param"]) == (f"{path}: {reason}", path)
