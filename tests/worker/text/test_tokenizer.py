import dataclasses
from typing import Any

import pytest
from tiny_tokenizers import byte_level_tokenizer, sentencepiece_tokenizer

from shared.errors import ErrorCode, JobError, JobFailed
from shared.protocol.ids import AdapterVersion, ApiId, JobId
from shared.protocol.jobs import Endpoint, Job, SamplingParams
from worker.text.tokenizer import Tokenizer

HF = byte_level_tokenizer()
TOKENIZER = Tokenizer(HF, vocab_size=500)


def job() -> Job:
    return Job(
        id=JobId("0" * 32),
        endpoint=Endpoint.CHAT,
        model="base",
        version=AdapterVersion("base@0"),
        sampling=SamplingParams(seed=1),
        created_s=0,
        deadline_ms=1000,
        cost=10,
        reply_to=ApiId("api"),
    )


def failure(function: object, *args: object) -> JobError:
    assert callable(function)
    with pytest.raises(JobFailed) as caught:
        function(*args)
    return caught.value.error


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    joined = TOKENIZER.encode_chat([{"role": "user", "content": parts}])
    assert joined == TOKENIZER.encode_chat([{"role": "user", "content": "one\ntwo"}])


def test_an_image_part_is_rejected_and_the_error_names_its_message() -> None:
    parts = [{"type": "image_url", "image_url": {"url": "x"}}]
    error = failure(TOKENIZER.encode_chat, [{"role": "user", "content": parts}])
    assert (error.code, error.param) == (ErrorCode.INVALID_VALUE, "messages[0].content")


def test_the_error_names_the_reason_if_the_template_rejects_messages() -> None:
    error = failure(TOKENIZER.encode_chat, [{"role": "tool", "content": "x"}])
    assert (error.code, error.param) == (ErrorCode.INVALID_VALUE, "messages")
    assert "unknown role tool" in error.message
    assert "unusual" not in error.message


def test_the_error_names_usual_roles_if_the_template_rejects_another_one() -> None:
    error = failure(TOKENIZER.encode_chat, [{"role": "king", "content": "x"}])
    assert error.message.endswith(
        "unknown role king; the role 'king' is unusual, most templates know system, user, "
        "assistant, tool"
    )


def test_a_template_can_not_leave_the_sandbox() -> None:
    template = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    tokenizer = Tokenizer(byte_level_tokenizer(chat_template=template), vocab_size=500)
    assert failure(tokenizer.encode_chat, [{"role": "user", "content": "x"}]).status == 400


def test_the_error_for_a_model_without_chat_template_names_the_completions_endpoint() -> None:
    tokenizer = Tokenizer(byte_level_tokenizer(chat_template=None), vocab_size=500)
    error = failure(tokenizer.encode_chat, [{"role": "user", "content": "x"}])
    assert "/v1/completions" in error.message


def test_a_text_prompt_gets_the_tokenizers_special_tokens() -> None:
    hf = sentencepiece_tokenizer()
    assert Tokenizer(hf, vocab_size=500).encode_prompt("the") == hf("the")["input_ids"]


def test_token_ids_are_returned_unchanged() -> None:
    assert TOKENIZER.encode_prompt((5, 6, 499)) == [5, 6, 499]


@pytest.mark.parametrize("bad", [-1, 500])
def test_the_error_names_a_token_id_outside_the_vocabulary(bad: int) -> None:
    error = failure(TOKENIZER.encode_prompt, (5, bad))
    assert (error.code, error.param) == (ErrorCode.INVALID_VALUE, "prompt[1]")
    assert error.message.startswith(f"prompt[1]: token id {bad} ")


def test_the_error_names_a_bias_of_a_token_outside_the_vocabulary() -> None:
    biased = dataclasses.replace(
        job(), sampling=SamplingParams(seed=1, logit_bias=((499, 1.0), (500, 2.0)))
    )
    error = failure(TOKENIZER.encode, biased)
    assert (error.code, error.param) == (ErrorCode.INVALID_VALUE, "logit_bias[500]")


@pytest.mark.parametrize("name", ["stop_token_ids", "allowed_token_ids"])
def test_the_error_names_a_token_outside_the_vocabulary(name: str) -> None:
    limits: dict[str, Any] = {name: (499, 500)}
    limited = dataclasses.replace(job(), sampling=SamplingParams(seed=1, **limits))
    error = failure(TOKENIZER.encode, limited)
    assert (error.code, error.param) == (ErrorCode.INVALID_VALUE, f"{name}[1]")


def test_a_word_is_tokenized_at_the_start_of_a_text_and_after_a_space() -> None:
    alone, spaced = HF("you")["input_ids"], HF(" you")["input_ids"]
    assert len(spaced) == len(alone)
    assert spaced[0] != alone[0]
    assert TOKENIZER.encode_words([" you"]) == (tuple(alone), tuple(spaced))
    longer = HF("zq")["input_ids"]
    assert len(HF(" zq")["input_ids"]) != len(longer)
    assert TOKENIZER.encode_words(["zq"]) == (tuple(longer),)


@pytest.mark.parametrize("empty", ["", ()])
def test_an_empty_prompt_is_rejected(empty: str | tuple[int, ...]) -> None:
    assert failure(TOKENIZER.encode_prompt, empty).param == "prompt"
