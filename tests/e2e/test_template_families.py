"""Thinking, tools and schemas together, with the chat templates of several model families."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from families import FAMILIES, LLAMA4, Family
from joined_stream import joined_choice, normal
from recital import save_recital, save_reciting_base
from servers import Server, lorikeet_up
from sse_events import sse_events
from tiny import chat_ids

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
pytestmark = pytest.mark.slow
each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server of one adapter for each family, which brings the family's chat template."""
    folder = tmp_path_factory.mktemp("families")
    save_reciting_base(folder / "tiny")
    for family in FAMILIES:
        answers = [(prompt(family, asked), trained(family, asked)) for asked in (CALL, SAY)]
        save_recital(folder / family.name, answers)
        (folder / family.name / "chat_template.jinja").write_text(family.template)
    adapters = [f"{family.name}={folder / family.name}" for family in FAMILIES]
    flags = ["--model", str(folder / "tiny"), "--adapters", *adapters, "--dtype", "float32"]
    with lorikeet_up(folder, *flags, "--kv-cache-mb", "256") as server:
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
    "one call": {"asked": CALL, "parallel_tool_calls": False},
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
def test_one_call_can_be_the_only_one(choices: Choices, family: Family) -> None:
    choice = choices[family.name, "one call"]
    assert called(choice) == [CALLS[0]]
    assert choice["message"]["reasoning_content"] == thought(family)


@each_family
async def test_an_answer_that_is_cut_off_loses_nothing(
    http: httpx.AsyncClient, family: Family
) -> None:
    text = family.answer(thought(family) or "", JSON_ANSWER)
    limit = len(family.generated(text).encode()) - 2
    choice = await whole_and_streamed(http, family.name, SAY, max_tokens=limit)
    assert choice["message"]["content"] == JSON_ANSWER[:-2]
    assert choice["finish_reason"] == "length"


@each_family
async def test_the_result_of_a_call_is_sent_back(
    http: httpx.AsyncClient, choices: Choices, family: Family
) -> None:
    asked = {"role": "user", "content": CALL}
    called = choices[family.name, "calls"]["message"]
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": "snow"}
        for call in called["tool_calls"]
    ]
    body = {"model": family.name, "messages": [asked, called, *results], "tools": TOOLS}
    reply = await http.post("/v1/chat/completions", json={**body, "max_tokens": 1})
    assert reply.raise_for_status().json()["usage"]["completion_tokens"] == 1
