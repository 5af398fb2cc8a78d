"""Scenarios of instructor with both of the modes that the server enforces."""

import asyncio
from typing import Any, Literal

import instructor
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, ConfigDict, create_model
from weather_chat import BASE, CALLER, CITY, QUESTION, TOOL

MODES = (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA)
ANY: dict[str, Any] = {
    "model": BASE,
    "messages": [{"role": "user", "content": QUESTION}],
    "max_tokens": 200,
    "max_retries": 0,
}
CALL = {**ANY, "model": CALLER, "temperature": 0}
WEATHER = create_model(TOOL, city=(str, ...))
"""Response model whose name is the one of the tool that the adapter calls."""


class Move(BaseModel):
    model_config = ConfigDict(extra="forbid")  # any model would fill its answer with other keys

    where: Literal["left", "right"]
    far: bool


def client(mode: instructor.Mode) -> Any:
    return instructor.from_openai(OpenAI(max_retries=0), mode=mode)


@pytest.mark.parametrize("mode", MODES)
def test_the_answer_follows_its_schema_for_any_model(mode: instructor.Mode) -> None:
    create = client(mode).chat.completions.create_with_completion
    move, completion = create(**ANY, response_model=Move)
    assert isinstance(move, Move)
    assert completion.model == BASE


@pytest.mark.parametrize("mode", MODES)
def test_the_last_streamed_object_is_complete_for_any_model(mode: instructor.Mode) -> None:
    partials = list(client(mode).chat.completions.create_partial(**ANY, response_model=Move))
    assert partials[0].where is None
    Move.model_validate(partials[-1].model_dump())


def test_the_arguments_of_the_trained_call_are_the_answer() -> None:
    create = client(instructor.Mode.TOOLS).chat.completions.create
    assert create(**CALL, response_model=WEATHER).city == CITY


def test_an_asynchronous_client_gets_the_same_answer() -> None:
    asynchronous = instructor.from_openai(AsyncOpenAI(max_retries=0))
    create = asynchronous.chat.completions.create
    assert asyncio.run(create(**CALL, response_model=WEATHER)).city == CITY
