"""The warning that lists ignored fields."""

from typing import Any

import pytest

from api.requests.ignored_fields import warning
from api.requests.translate import parse_chat

TOOL = {"type": "function", "function": {"name": "a", "strict": True}}


def warning_of(**fields: Any) -> str | None:
    messages = [{"role": "user", "content": "hi"}]
    return warning(parse_chat({"model": "m", "messages": messages, **fields}))


def test_the_warning_names_ignored_fields() -> None:
    assert warning_of(user="me") == "not used: user"
    assert warning_of(store=True, metadata={"a": "b"}) == "not used: metadata, store"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"user": None, "metadata": {}, "store": False},
        {"service_tier": "priority"},
        {"top_p": 0.5},
    ],
)
def test_a_request_without_ignored_fields_gets_no_warning(fields: dict[str, Any]) -> None:
    assert warning_of(**fields) is None


def test_the_warning_names_strict_tools_unless_a_call_is_required() -> None:
    assert warning_of(tools=[TOOL]) == "not used: tools[0].function.strict"
    assert warning_of(tools=[TOOL], tool_choice="none") is None
    assert warning_of(tools=[TOOL], tool_choice="required") is None
