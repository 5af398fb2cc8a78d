"""Scenarios of Pydantic AI with both of OpenAI's APIs."""

import asyncio
from typing import Any, Literal

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, ToolOutput
from weather_chat import ANSWER, BASE, CALLER, CITY, OUTPUT_TOOL, QUESTION, REPORT, SKY

APIS = ("openai-chat", "openai-responses")
GREEDY: Any = {"temperature": 0}


class Move(BaseModel):
    where: Literal["left", "right"]
    far: bool


class Report(BaseModel):
    city: str
    sky: str


def weather_agent(api: str, cities: list[str], **options: Any) -> Agent[None, Any]:
    agent = Agent(f"{api}:{CALLER}", model_settings=GREEDY, retries=0, **options)

    @agent.tool_plain
    def weather(city: str) -> str:
        """Return the weather in a city."""
        cities.append(city)
        return SKY

    return agent


@pytest.mark.parametrize("api", APIS)
def test_an_agent_executes_the_tool_and_answers(api: str) -> None:
    cities: list[str] = []
    assert weather_agent(api, cities).run_sync(QUESTION).output == ANSWER
    assert cities == [CITY]


@pytest.mark.parametrize("api", APIS)
def test_a_streamed_run_is_the_whole_run(api: str) -> None:
    async def streamed() -> list[str]:
        async with weather_agent(api, []).run_stream(QUESTION) as run:
            return [text async for text in run.stream_text(delta=True, debounce_by=None)]

    deltas = asyncio.run(streamed())
    assert len(deltas) > 1
    assert "".join(deltas) == ANSWER


@pytest.mark.parametrize("api", APIS)
def test_an_agent_executes_the_tool_and_calls_the_one_of_its_output(api: str) -> None:
    cities: list[str] = []
    agent = weather_agent(api, cities, output_type=ToolOutput(Report, name=OUTPUT_TOOL))
    assert agent.run_sync(REPORT).output == Report(city=CITY, sky=SKY)
    assert cities == [CITY]


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("output", [NativeOutput, ToolOutput])
def test_the_output_follows_its_schema_for_any_model(api: str, output: Any) -> None:
    agent = Agent(f"{api}:{BASE}", output_type=output(Move), retries=0)
    assert isinstance(agent.run_sync(QUESTION, model_settings={"max_tokens": 300}).output, Move)
