"""The warning that lists ignored fields."""

from typing import Any

import pytest
from translated_jobs import HI

from api.requests.ignored_fields import warning
from api.requests.translate import parse_chat, parse_completion

NAMED = {"type": "function", "function": {"name": "a"}}
TOOL = {"type": "function", "function": {"name": "a", "strict": True}}


def warning_of(**fields: Any) -> str | None:
    return warning(parse_chat({"model": "m", "messages": [HI], **fields}))


def test_the_warning_names_ignored_fields() -> None:
    assert warning_of(prompt_cache_key="k") == "not used: prompt_cache_key"
    assert warning_of(store=True, metadata={"a": "b"}) == "not used: metadata, store"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"user": "me", "metadata": {}, "store": False},
        {"safety_identifier": "me"},
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
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [NAMED]}
    assert warning_of(tools=[TOOL], tool_choice=allowed) is None
    allowed["mode"] = "auto"
    assert warning_of(tools=[TOOL], tool_choice=allowed) == "not used: tools[0].function.strict"


@pytest.mark.parametrize(
    "constraint", [{"response_format": {"type": "json_object"}}, {"guided_regex": "a+"}]
)
def test_a_strict_tool_is_not_ignored_if_a_grammar_covers_the_answers(
    constraint: dict[str, Any],
) -> None:
    assert warning_of(tools=[TOOL], **constraint) is None
    text = {"response_format": {"type": "text"}}
    assert warning_of(tools=[TOOL], **text) == "not used: tools[0].function.strict"


def test_a_tool_that_is_not_strict_has_no_warning() -> None:
    for strict in (False, None):
        tool = {"type": "function", "function": {"name": "a", "strict": strict}}
        assert warning_of(tools=[tool]) is None


def test_the_warning_names_annotations_unless_they_are_empty() -> None:
    echoed = {"role": "assistant", "content": "x", "annotations": [{"type": "url_citation"}]}
    assert warning_of(messages=[HI, echoed]) == "not used: messages[1].annotations"
    assert warning_of(messages=[HI, {**echoed, "annotations": []}]) is None


def test_the_warning_names_unknown_fields_after_known_ones() -> None:
    echoed = {"role": "assistant", "content": "x", "id": "1"}
    named = warning_of(messages=[HI, echoed], store=True, colour=1)
    assert named == "not used: store, colour, messages[1].id"


def test_the_warning_names_ten_fields_and_counts_the_others() -> None:
    named = warning_of(**{f"x{i}": 1 for i in range(25)})
    assert named == f"not used: {', '.join(f'x{i}' for i in range(10))} and 15 more"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\r\nSet-Cookie: b=c", "a??Set-Cookie:?b=c"),
        ("a, b", "a??b"),
        ("größe\x00\x7f", "gr??e??"),
        ("", "?"),
        ("x" * 5000, "x" * 77 + "..."),
    ],
)
def test_names_of_unknown_fields_are_safe_in_a_header(name: str, shown: str) -> None:
    named = warning_of(**{name: 1})
    assert named == f"not used: {shown}"
    assert named.isascii()
    assert named.isprintable()


def test_the_length_of_the_warning_is_bounded() -> None:
    named = warning_of(**{f"{i}{'x' * 1000}": 1 for i in range(900)})
    assert named is not None
    assert len(named) <= 1000


def test_a_completions_unknown_field_is_named_once() -> None:
    request = parse_completion({"model": "m", "prompt": "hi", "store": True, "prediction": {}})
    assert warning(request) == "not used: store, prediction"
