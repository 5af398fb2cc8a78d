"""Scenarios of OpenAI's Agents SDK, with both of its models."""

import asyncio
from typing import Any

import agents
import pytest
from openai import AsyncOpenAI
from weather_chat import ANSWER, BASE, CALLER, CITY, QUESTION, SKY
from weather_move import Move

agents.set_tracing_disabled(True)
MODELS = (agents.OpenAIResponsesModel, agents.OpenAIChatCompletionsModel)
GREEDY = agents.ModelSettings(temperature=0)
cities: list[str] = []


@agents.function_tool
def weather(city: str) -> str:
    """Return the weather in a city."""
    cities.append(city)
    return SKY


def agent(model: Any, name: str = CALLER, **options: Any) -> agents.Agent[Any]:
    options = {"model_settings": GREEDY, "instructions": "Be brief.", **options}
    return agents.Agent(name="agent", model=model(name, AsyncOpenAI(max_retries=0)), **options)


@pytest.mark.parametrize("model", MODELS)
def test_an_agent_executes_the_tool_and_answers(model: Any) -> None:
    cities.clear()
    done = agents.Runner.run_sync(agent(model, tools=[weather]), QUESTION)
    assert done.final_output == ANSWER
    assert cities == [CITY]


@pytest.mark.parametrize("model", MODELS)
def test_a_streamed_run_is_the_whole_run(model: Any) -> None:
    async def streamed() -> tuple[str, str]:
        run = agents.Runner.run_streamed(agent(model, tools=[weather]), QUESTION)
        events = [e.data async for e in run.stream_events() if e.type == "raw_response_event"]
        deltas = [e.delta for e in events if e.type == "response.output_text.delta"]
        return "".join(deltas), run.final_output

    assert asyncio.run(streamed()) == (ANSWER, ANSWER)


@pytest.mark.parametrize("model", MODELS)
def test_the_output_follows_its_schema_for_any_model(model: Any) -> None:
    settings = agents.ModelSettings(max_tokens=200)
    output = agent(model, BASE, output_type=Move, model_settings=settings)
    assert isinstance(agents.Runner.run_sync(output, QUESTION).final_output, Move)


def test_the_next_run_continues_the_previous_response() -> None:
    asked = agent(agents.OpenAIResponsesModel, tools=[weather])
    first = agents.Runner.run_sync(asked, QUESTION)
    second = agents.Runner.run_sync(
        asked.clone(model_settings=agents.ModelSettings(temperature=0, max_tokens=5)),
        "And now?",
        previous_response_id=first.last_response_id,
    )
    usage = [run.raw_responses[-1].usage.input_tokens for run in (first, second)]
    assert usage[1] > usage[0] + len(ANSWER)


def test_the_default_model_only_needs_the_base_url() -> None:
    plain = agents.Agent(name="agent", model=CALLER, model_settings=GREEDY, tools=[weather])
    assert agents.Runner.run_sync(plain, QUESTION).final_output == ANSWER
