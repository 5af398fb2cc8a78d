"""Neutral values of unsupported fields."""

import pytest
from pydantic import BaseModel
from translated_jobs import HI, chat, completion

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


@pytest.mark.parametrize("fields", [{"best_of": 1, "n": 3}, {"best_of": 3, "n": 3}])
def test_best_of_can_be_one_or_n(fields: dict[str, int]) -> None:
    assert completion(**fields) == completion(n=3)


def test_max_completion_tokens_overrides_max_tokens() -> None:
    assert chat(max_tokens=5, max_completion_tokens=7) == chat(max_tokens=7)


def test_an_echoed_answer_with_nulls_is_accepted() -> None:
    plain = {"role": "assistant", "content": "x"}
    nulls = {"audio": None, "function_call": None, "refusal": None, "annotations": []}
    assert chat(messages=[HI, {**plain, **nulls}]) == chat(messages=[HI, plain])
