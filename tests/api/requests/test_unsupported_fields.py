"""Neutral values of unsupported fields."""

from translated_jobs import chat, completion


def test_unsupported_fields_are_accepted_with_neutral_values() -> None:
    neutral = {
        "tools": [],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "functions": [],
        "function_call": "none",
        "response_format": {"type": "text"},
        "store": False,
        "metadata": None,
        "modalities": ["text"],
        "reasoning_effort": None,
        "user": "me",
    }
    assert chat(**neutral) == chat()
    assert completion(best_of=1, suffix=None) == completion()
