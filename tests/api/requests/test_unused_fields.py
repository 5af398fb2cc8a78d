from typing import Any

import pytest

from api.requests.translate import parse_chat
from api.requests.unused_fields import warning

TOOL = {"type": "function", "function": {"name": "a", "strict": True}}


def warning_of(**fields: Any) -> str | None:
    messages = [{"role": "user", "content": "hi"}]
    return warning(parse_chat({"model": "m", "messages": messages, **fields}))


def test_fields_that_are_not_used_are_named() -> None:
    assert warning_of(user="me") == "not used: user"
    assert warning_of(store=True, metadata={"a": "b"}) == "not used: metadata, store"


@pytest.mark.parametrize(
    "fields",
    [{}, {"user": None, "metadata": {}, "store": False, "service_tier": "auto"}, {"top_p": 0.5}],
)
def test_a_request_of_which_all_is_used_gets_no_warning(fields: dict[str, Any]) -> None:
    assert warning_of(**fields) is None


def test_strict_tools_are_named_where_the_model_may_write_any_arguments() -> None:
    assert warning_of(tools=[TOOL]) == "not used: tools[0].function.strict"
    assert warning_of(tools=[TOOL], tool_choice="none") is None
    assert warning_of(tools=[TOOL], tool_choice="required") is None
