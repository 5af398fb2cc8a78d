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


def encode_chat(tokenizer: Tokenizer, message: dict[str, Any]) -> list[int]:
    (prompt,) = tokenizer.encode(dataclasses.replace(job(), messages=(message,)))
    return prompt.ids


def failure(function: object, *args: object) -> JobError:
    assert callable(function)
    with pytest.raises(JobFailed) as caught:
        function(*args)
    return caught.value.error


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    joined = encode_chat(TOKENIZER, {"role": "user", "content": parts})
    assert joined == encode_chat(TOKENIZER, {"role": "user", "content": "one\ntwo"})


IMAGE = [{"type": "image_url", "image_url": {"url": "x"}}]
USUAL = "most templates know system, user, assistant, tool"


@pytest.mark.parametrize(
    ("message", "param", "end"),
    [
        ({"role": "user", "content": IMAGE}, "messages[0].content", ""),
        ({"role": "tool", "content": "x"}, "messages", "unknown role tool"),
        (
            {"role": "king", "content": "x"},
            "messages",
            f"unknown role king; the role 'king' is unusual, {USUAL}",
        ),
    ],
)
def test_the_error_names_what_the_template_rejects(
    message: dict[str, Any], param: str, end: str
) -> None:
    error = failure(encode_chat, TOKENIZER, message)
    assert (error.code, error.param) == (ErrorCode.INVALID_VALUE, param)
    assert error.message.endswith(end)


def test_a_template_can_not_leave_the_sandbox() -> None:
    template = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    tokenizer = Tokenizer(byte_level_tokenizer(chat_template=template), vocab_size=500)
    assert failure(encode_chat, tokenizer, {"role": "user", "content": "x"}).status == 400


def test_the_error_for_a_model_without_chat_template_names_the_completions_endpoint() -> None:
    tokenizer = Tokenizer(byte_level_tokenizer(chat_template=None), vocab_size=500)
    error = failure(encode_chat, tokenizer, {"role": "user", "content": "x"})
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


@pytest.mark.parametrize(
    ("name", "value", "param"),
    [
        ("logit_bias", ((499, 1.0), (500, 2.0)), "logit_bias[500]"),
        ("stop_token_ids", (499, 500), "stop_token_ids[1]"),
        ("allowed_token_ids", (499, 500), "allowed_token_ids[1]"),
    ],
)
def test_the_error_names_a_token_outside_the_vocabulary(
    name: str, value: tuple[Any, ...], param: str
) -> None:
    limits: dict[str, Any] = {name: value}
    limited = dataclasses.replace(job(), sampling=SamplingParams(seed=1, **limits))
    error = failure(TOKENIZER.encode, limited)
    assert (error.code, error.param) == (ErrorCode.INVALID_VALUE, param)


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
