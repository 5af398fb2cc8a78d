"""Fields without effect: the warning that lists them, and unsupported ones with neutral values."""

from typing import Any

import pytest
from pydantic import BaseModel
from translated_jobs import HI, chat, completion

from api.requests.ignored_fields import warning
from api.requests.translate import parse_chat, parse_completion
from api.requests.unsupported_fields import (
    CHAT,
    COMPLETIONS,
    INSTEAD,
    MESSAGE,
    NeutralValues,
    drop_unsupported,
)
from api.schema.chat import ChatCompletionRequest
from api.schema.completions import CompletionRequest
from api.schema.messages import AssistantMessage
from shared.errors import ErrorCode, JobFailed

NAMED = {"type": "function", "function": {"name": "a"}}
TOOL = {"type": "function", "function": {"name": "a", "strict": True}}


def warning_of(**fields: Any) -> str | None:
    return warning(parse_chat({"model": "m", "messages": [HI], **fields}))


TEXT, JSON = {"type": "text"}, {"type": "json_object"}
STRICT = "not used: tools[0].function.strict"
ECHOED = {"role": "assistant", "content": "x"}
CITED = {**ECHOED, "annotations": [{"type": "url_citation"}]}


def allowed(mode: str) -> dict[str, Any]:
    return {"type": "allowed_tools", "mode": mode, "tools": [NAMED]}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"prompt_cache_key": "k"}, "not used: prompt_cache_key"),
        ({"store": True, "metadata": {"a": "b"}}, "not used: metadata, store"),
        ({}, None),
        ({"user": "me", "metadata": {}, "store": False}, None),
        ({"safety_identifier": "me"}, None),
        ({"service_tier": "priority"}, None),
        ({"top_p": 0.5}, None),
        # A strict tool has an effect if its call is required, or if a grammar covers the answers.
        ({"tools": [TOOL]}, STRICT),
        ({"tools": [TOOL], "tool_choice": "none"}, None),
        ({"tools": [TOOL], "tool_choice": "required"}, None),
        ({"tools": [TOOL], "tool_choice": allowed("required")}, None),
        ({"tools": [TOOL], "tool_choice": allowed("auto")}, STRICT),
        ({"tools": [TOOL], "response_format": JSON}, None),
        ({"tools": [TOOL], "guided_regex": "a+"}, None),
        ({"tools": [TOOL], "response_format": TEXT}, STRICT),
        ({"tools": [{**NAMED, "function": {"name": "a", "strict": False}}]}, None),
        ({"tools": [{**NAMED, "function": {"name": "a", "strict": None}}]}, None),
        ({"messages": [HI, CITED]}, "not used: messages[1].annotations"),
        ({"messages": [HI, {**CITED, "annotations": []}]}, None),
        # Unknown fields follow the known ones.
        (
            {"messages": [HI, {**ECHOED, "id": "1"}], "store": True, "colour": 1},
            "not used: store, colour, messages[1].id",
        ),
    ],
)
def test_the_warning_names_fields_without_effect(
    fields: dict[str, Any], expected: str | None
) -> None:
    assert warning_of(**fields) == expected


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


TABLES: list[tuple[NeutralValues, type[BaseModel]]] = [
    (CHAT, ChatCompletionRequest),
    (COMPLETIONS, CompletionRequest),
    (MESSAGE, AssistantMessage),
]


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
    assert completion(best_of=1, n=3) == completion(best_of=3, n=3) == completion(n=3)


def test_every_unsupported_field_is_refused_by_name_unless_it_asks_for_nothing() -> None:
    for table, _ in TABLES:
        for name, neutral in table.items():
            for value in (None, *neutral):
                assert drop_unsupported({name: value, "n": 1}, table) == {"n": 1}
            with pytest.raises(JobFailed) as refused:
                drop_unsupported({name: {"asks": "for something"}}, table, path="x.")
            error = refused.value.error
            assert (error.code, error.param) == (ErrorCode.UNSUPPORTED_PARAMETER, f"x.{name}")
            assert error.message.startswith(f"x.{name} isn't supported; leave it out, or send null")


def test_no_supported_field_is_refused() -> None:
    for table, model in TABLES:
        assert table.keys() & model.model_fields.keys() == set()


def test_the_error_says_what_to_send_instead() -> None:
    assert INSTEAD.keys() <= CHAT.keys() | COMPLETIONS.keys()
    with pytest.raises(JobFailed, match="send repetition_penalty instead"):
        chat(repeat_penalty=1.3)
