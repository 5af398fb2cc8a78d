from typing import Any

import pytest
from queue_support import make_job

from api.requests.prompt_length import JOINED_BYTES, check_length
from shared.errors import ErrorCode, JobError, JobFailed
from shared.protocol.jobs import Endpoint, Job, Prompt, SamplingParams

MAX_LEN = 10
TOKEN_BYTES = 20


def completion(*prompts: Prompt, max_tokens: int = 1) -> Job:
    return job(Endpoint.COMPLETIONS, max_tokens=max_tokens, prompts=prompts)


def chat(*turns: tuple[str, str]) -> Job:
    messages = tuple({"role": role, "content": content} for role, content in turns)
    return job(Endpoint.CHAT, max_tokens=None, messages=messages)


def job(endpoint: Endpoint, *, max_tokens: int | None, **fields: Any) -> Job:
    sampling = SamplingParams(seed=1, max_tokens=max_tokens)
    return make_job(endpoint=endpoint, sampling=sampling, **{"prompts": (), **fields})


def check(job: Job, max_token_bytes: int = TOKEN_BYTES) -> None:
    check_length(job, max_model_len=MAX_LEN, max_token_bytes=max_token_bytes)


def refusal(job: Job, max_token_bytes: int = TOKEN_BYTES) -> JobError:
    with pytest.raises(JobFailed) as caught:
        check(job, max_token_bytes)
    assert caught.value.error.code is ErrorCode.CONTEXT_LENGTH_EXCEEDED
    return caught.value.error


def test_a_text_may_have_as_many_bytes_as_the_context_beside_the_answer_can_hold() -> None:
    check(completion("x" * 180))
    assert "at least 10 tokens" in refusal(completion("x" * 181, max_tokens=1)).message
    check(completion("x" * 100, max_tokens=5))
    error = refusal(completion("x" * 101, max_tokens=5))
    assert error.param == "prompt"
    assert "you requested at least 11 tokens (at least 6 in the prompt, 5 " in error.message


def test_each_prompt_counts_for_itself() -> None:
    check(completion("x" * 150, "x" * 150))
    refusal(completion("x", "x" * 200))


def test_token_ids_are_counted_whatever_is_known_of_texts() -> None:
    check(completion((1,) * 9), 0)
    assert "at least" not in refusal(completion((1,) * 10), 0).message
    assert "11 tokens (6 in" in refusal(completion("x", (1,) * 6, max_tokens=5)).message


def test_texts_are_left_to_the_worker_where_nothing_is_known_of_tokens() -> None:
    check(completion("x" * 1000), 0)
    check(chat(("user", "x" * 1000)), 0)


def test_a_chat_is_as_long_as_the_longest_turn_of_its_user() -> None:
    check(chat(("user", "x" * 180), ("assistant", "x" * 180), ("user", "x" * 180)))
    error = refusal(chat(("user", "x" * 200), ("assistant", "x"), ("user", "x")))
    assert error.param == "messages"
    assert "which leaves no room" in error.message


def test_turns_that_a_template_may_leave_out_and_white_space_do_not_count() -> None:
    check(chat(("system", "x" * 999), ("assistant", "x" * 999), ("user", "x" + " \n" * 999)))
    check(chat(("assistant", "x" * 999)))


def test_a_chat_has_room_for_what_composes_with_the_template() -> None:
    check(chat(("user", "x" * (180 + JOINED_BYTES))))
    refusal(chat(("user", "x" * (181 + JOINED_BYTES))))
