"""Scenarios of DSPy's language models."""

from typing import Any

import dspy
import pytest
from weather_chat import CALLER, GREETING, HELLO


@pytest.mark.parametrize("model_type", ["chat", "responses"])
def test_a_language_model_answers(model_type: Any) -> None:
    model = dspy.LM(f"openai/{CALLER}", model_type=model_type, cache=False, temperature=0)
    (answer,) = model(HELLO)
    assert (answer["text"] if isinstance(answer, dict) else answer) == GREETING
