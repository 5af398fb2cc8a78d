"""Scenarios of DSPy's language models and programs."""

from collections.abc import Iterator
from typing import Any

import dspy
import pytest
from weather_chat import ANSWER, CALLER, GREETING, HELLO, PROGRAM, QUESTION, REASONING


@pytest.mark.parametrize("model_type", ["chat", "responses"])
def test_a_language_model_answers(model_type: Any) -> None:
    model = dspy.LM(f"openai/{CALLER}", model_type=model_type, cache=False, temperature=0)
    (answer,) = model(HELLO)
    assert (answer["text"] if isinstance(answer, dict) else answer) == GREETING


@pytest.fixture(params=["chat", "responses"])
def configured(request: pytest.FixtureRequest) -> Iterator[None]:
    """Make the trained adapter the model of all programs."""
    model = dspy.LM(f"openai/{PROGRAM}", model_type=request.param, cache=False, temperature=0)
    with dspy.context(lm=model):
        yield


@pytest.mark.usefixtures("configured")
def test_a_prediction_has_the_field_of_its_signature() -> None:
    assert dspy.Predict("question -> answer")(question=QUESTION).answer == ANSWER


@pytest.mark.usefixtures("configured")
def test_a_chain_of_thought_has_its_reasoning_and_its_answer() -> None:
    prediction = dspy.ChainOfThought("question -> answer")(question=QUESTION)
    assert (prediction.reasoning, prediction.answer) == (REASONING, ANSWER)
