"""Fields of chat requests that the chat template reads."""

import inspect
from dataclasses import replace
from typing import Any

import pytest
from translated_jobs import ADMISSION, HI, chat

from api.requests.translate import chat_job, parse_chat
from api.schema.chat import MAX_KWARGS_BYTES, RESERVED
from shared.errors import ErrorCode, JobError, JobFailed
from shared.protocol.answers import AnswerSpec
from shared.protocol.codec import decode_answer_spec, decode_job, encode_answer_spec, encode_job
from shared.protocol.jobs import PromptEnd
from shared.reasoning_form import ReasoningForm

ANSWER = {"role": "assistant", "content": "so far"}
CONTINUED = {"messages": [HI, ANSWER], "continue_final_message": True}


def failure(**fields: Any) -> JobError:
    with pytest.raises(JobFailed) as caught:
        chat(**fields)
    return caught.value.error


def nested(depth: int) -> Any:
    return {"a": nested(depth - 1)} if depth else 1


def test_variables_of_the_template_reach_the_job() -> None:
    assert chat(chat_template_kwargs={"a": [1], "b": None}).template_kwargs == {"a": [1], "b": None}
    assert chat(chat_template_kwargs={}).template_kwargs is None
    assert chat().template_kwargs is None


def test_an_effort_is_a_variable_and_turns_thinking_on_or_off() -> None:
    assert chat(reasoning_effort="high").template_kwargs == {
        "reasoning_effort": "high",
        "enable_thinking": True,
        "thinking": True,
    }
    none = chat(reasoning_effort="none").template_kwargs
    assert none == {"reasoning_effort": "none", "enable_thinking": False, "thinking": False}
    own = {"reasoning_effort": "low", "enable_thinking": False, "thinking": False}
    assert chat(reasoning_effort="max", chat_template_kwargs=own).template_kwargs == {
        "reasoning_effort": "max",
        "enable_thinking": False,
        "thinking": False,
    }
    assert failure(reasoning_effort="huge").param == "reasoning_effort"


def test_lmdeploys_enable_thinking_is_a_variable_of_the_template() -> None:
    assert chat(enable_thinking=False).template_kwargs == {"enable_thinking": False}
    assert chat(enable_thinking=None).template_kwargs is None
    with_others = chat(enable_thinking=True, chat_template_kwargs={"a": 1})
    assert with_others.template_kwargs == {"a": 1, "enable_thinking": True}
    for kwargs in ({"enable_thinking": True}, {"enable_thinking": None}):
        same = chat(enable_thinking=True, chat_template_kwargs=kwargs)
        assert same.template_kwargs == {"enable_thinking": True}
    assert chat(enable_thinking=False, reasoning_effort="low").template_kwargs == {
        "reasoning_effort": "low",
        "enable_thinking": False,
        "thinking": True,
    }
    assert failure(enable_thinking="yes").param == "enable_thinking"


@pytest.mark.parametrize("other", [True, 0, "no"])
def test_two_values_of_enable_thinking_are_refused(other: Any) -> None:
    error = failure(enable_thinking=False, chat_template_kwargs={"enable_thinking": other})
    assert (error.status, error.param) == (400, "enable_thinking")
    assert "chat_template_kwargs" in error.message


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_reserved_names_are_refused_by_name(name: str) -> None:
    error = failure(chat_template_kwargs={name: 1})
    assert (error.status, error.param) == (400, "chat_template_kwargs")
    assert repr(name) in error.message


def test_all_parameters_of_transformers_are_reserved() -> None:
    from transformers import PreTrainedTokenizerBase

    names = inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters
    # Templates read the documents as a variable.
    assert names.keys() - {"kwargs", "documents"} <= RESERVED


@pytest.mark.parametrize("kwargs", [nested(17), {"a": "x" * MAX_KWARGS_BYTES}, [], "a"])
def test_variables_are_bounded(kwargs: Any) -> None:
    assert failure(chat_template_kwargs=kwargs).param == "chat_template_kwargs"
    assert chat(chat_template_kwargs=nested(16)).template_kwargs == nested(16)


def test_a_template_in_the_request_is_refused() -> None:
    error = failure(chat_template="{{ messages }}")
    assert (error.code, error.param) == (ErrorCode.UNSUPPORTED_PARAMETER, "chat_template")


def test_the_prompt_ends_as_the_request_says() -> None:
    assert chat().prompt_end is PromptEnd.ANSWER
    assert chat(add_generation_prompt=True).prompt_end is PromptEnd.ANSWER
    assert chat(add_generation_prompt=False).prompt_end is PromptEnd.NOTHING
    assert chat(**CONTINUED).prompt_end is PromptEnd.MESSAGE
    assert chat(**CONTINUED, add_generation_prompt=False).prompt_end is PromptEnd.MESSAGE


def test_an_answer_can_not_both_start_and_continue() -> None:
    error = failure(**CONTINUED, add_generation_prompt=True)
    assert (error.status, error.param) == (400, "continue_final_message")
    assert "add_generation_prompt" in error.message


def test_the_last_message_is_echoed_if_the_answer_has_its_role() -> None:
    assert chat(**CONTINUED, echo=True).echoed == "so far"
    assert chat(messages=[HI, ANSWER], echo=True).echoed == "so far"
    assert chat(echo=True, add_generation_prompt=False).echoed == "hi"
    assert chat(echo=True).echoed == ""
    assert chat(**CONTINUED).echoed == ""


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_the_reasoning_of_earlier_messages_reaches_the_template(name: str) -> None:
    job = chat(messages=[HI, {**ANSWER, name: "why"}, HI])
    assert job.messages is not None
    assert job.messages[1] == {**ANSWER, "reasoning_content": "why"}


def test_the_answers_specification_has_what_renders_the_reasoning() -> None:
    request = parse_chat({"model": "m", **CONTINUED, "echo": True, "include_reasoning": False})
    job = chat_job(request, replace(ADMISSION, reasoning=ReasoningForm.MISTRAL))
    spec = AnswerSpec.of(job)
    assert (spec.reasoning, spec.hides_reasoning) == (ReasoningForm.MISTRAL, True)
    assert spec.echoed == "so far"
    assert decode_answer_spec(encode_answer_spec(spec), spec.id) == spec


def test_a_job_is_readable_by_older_workers_unless_it_uses_new_fields() -> None:
    new = (b"template_kwargs", b"prompt_end", b"reasoning", b"echoed")
    assert not any(name in encode_job(chat()) for name in new)
    job = chat(**CONTINUED, reasoning_effort="low")
    assert decode_job(encode_job(job)) == job
