"""Prompts are tokenized in the style of the base or of an adapter."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from queue import Queue
from typing import Any

import pytest
from queue_support import make_job
from tiny import CHAT_TEMPLATE, tiny_tokenizer
from tiny_tokenizers import byte_level_tokenizer, sentencepiece_tokenizer
from tool_templates import HERMES, LLAMA3

from shared.errors import AdapterRejected, ErrorCode, JobError, JobFailed
from shared.protocol.jobs import Endpoint, Job, SamplingParams
from shared.protocol.tools import ToolForm, ToolSettings, ToolUse
from worker.jobs.encoding import encode
from worker.lora.checkpoint.prompting import Prompting
from worker.text.adapter_style import adapter_style
from worker.text.prompt_style import BASE_STYLE, PromptStyle
from worker.text.tokenizer import Tokenizer

HF = byte_level_tokenizer()
TOKENIZER = Tokenizer(HF, vocab_size=500)


def encode_chat(tokenizer: Tokenizer, message: dict[str, Any]) -> list[int]:
    job = make_job(endpoint=Endpoint.CHAT, prompts=(), messages=(message,))
    (prompt,) = tokenizer.encode(job)
    return prompt.ids


def failure(function: object, *args: object) -> JobError:
    assert callable(function)
    with pytest.raises(JobFailed) as caught:
        function(*args)
    return caught.value.error


def test_text_parts_are_joined_and_no_template_leaves_the_sandbox_or_is_missing() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    joined = encode_chat(TOKENIZER, {"role": "user", "content": parts})
    assert joined == encode_chat(TOKENIZER, {"role": "user", "content": "one\ntwo"})
    for template, part in (
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", ""),
        (None, "/v1/completions"),
    ):
        tokenizer = Tokenizer(byte_level_tokenizer(chat_template=template), vocab_size=500)
        error = failure(encode_chat, tokenizer, {"role": "user", "content": "x"})
        assert error.status == 400
        assert part in error.message


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


def test_a_text_prompt_gets_special_tokens_and_ids_are_unchanged_unless_they_are_unknown() -> None:
    hf = sentencepiece_tokenizer()
    assert Tokenizer(hf, vocab_size=500).encode_prompt("the") == hf("the")["input_ids"]
    assert TOKENIZER.encode_prompt((5, 6, 499)) == [5, 6, 499]
    for bad in (-1, 500):
        error = failure(TOKENIZER.encode_prompt, (5, bad))
        assert (error.code, error.param) == (ErrorCode.INVALID_VALUE, "prompt[1]")
        assert error.message.startswith(f"prompt[1]: token id {bad} ")
    for empty in ("", ()):
        assert failure(TOKENIZER.encode_prompt, empty).param == "prompt"


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
    error = failure(TOKENIZER.encode, make_job(sampling=SamplingParams(seed=1, **limits)))
    assert (error.code, error.param) == (ErrorCode.INVALID_VALUE, param)


def test_a_word_is_tokenized_at_the_start_of_a_text_and_after_a_space() -> None:
    alone, spaced = HF("you")["input_ids"], HF(" you")["input_ids"]
    assert len(spaced) == len(alone)
    assert spaced[0] != alone[0]
    assert TOKENIZER.encode_words([" you"]) == (tuple(alone), tuple(spaced))
    longer = HF("zq")["input_ids"]
    assert len(HF(" zq")["input_ids"]) != len(longer)
    assert TOKENIZER.encode_words(["zq"]) == (tuple(longer),)


TINY = tiny_tokenizer()
OWN = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
)
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def style_of(prompting: Prompting) -> PromptStyle:
    return adapter_style(
        prompting,
        TINY,
        vocab_size=len(TINY),
        tool_settings=ToolSettings(),
        reasoning_setting="auto",
    )


def chat(tools: ToolUse | None = None) -> Job:
    messages = ({"role": "user", "content": "你好"},)
    return make_job(endpoint=Endpoint.CHAT, prompts=(), messages=messages, tools=tools)


def text_of(job: Job, own: PromptStyle) -> str:
    # Each call has an event loop of its own, and so a tokenizer of its own.
    (prompt,) = asyncio.run(encode(Tokenizer(TINY, vocab_size=len(TINY)), job, own))
    text: str = TINY.decode(prompt.ids)
    return text


def test_prompts_of_an_adapter_follow_its_template_and_its_special_tokens() -> None:
    own = style_of(Prompting(templates={"default": OWN}, special_tokens={"eos_token": "<|user|>"}))
    assert text_of(chat(), own) == "<bos>user: 你好<|user|>"
    assert text_of(chat(), BASE_STYLE) == text_of(chat(), style_of(Prompting()))
    without = style_of(Prompting(special_tokens={"bos_token": "x"}))
    assert without.special_tokens == {}, "without a template they are ignored"


def test_end_tokens_come_from_the_generation_config_and_the_tokenizer() -> None:
    user = TINY.convert_tokens_to_ids("<|user|>")
    found = style_of(Prompting(eos_ids=(7,), special_tokens={"eos_token": "<|user|>"}))
    assert found.eos_ids == {7, user}
    assert style_of(Prompting(special_tokens={"eos_token": "<|unheard of|>"})).eos_ids == set()


@pytest.mark.parametrize(
    ("prompting", "message"),
    [
        (
            Prompting(templates={"default": "<|im_start|>"}, token_ids={"<|im_start|>": 300}),
            r"needs the token '<\|im_start\|>' \(300\)",
        ),
        (Prompting(templates={"default": "{% if %}"}), "the chat template has a syntax error"),
        (
            Prompting(templates={"default": "{{ 10 ** (10 ** 10) }}"}),
            "takes too much time or memory",
        ),
        (Prompting(eos_ids=(262,)), "eos_token_id 262 is outside the vocabulary of"),
    ],
    ids=str,
)
def test_prompting_that_does_not_fit_the_base_models_tokenizer_is_rejected(
    prompting: Prompting, message: str
) -> None:
    with pytest.raises(AdapterRejected, match=message):
        style_of(prompting)


@pytest.mark.parametrize(
    ("templates", "form"),
    [
        ({"default": HERMES}, ToolForm.HERMES),
        ({"default": LLAMA3}, ToolForm.LLAMA3_JSON),
        ({"default": OWN, "tool_use": HERMES}, ToolForm.HERMES),
        ({"default": OWN}, ToolForm.GENERIC),
        ({"default": CHAT_TEMPLATE}, ToolForm.GENERIC),
    ],
    ids=str,
)
def test_tools_are_offered_only_in_the_base_models_form(
    templates: dict[str, str], form: ToolForm | None
) -> None:
    own = style_of(Prompting(templates=templates))
    assert own.tool_form is form
    job = chat(ToolUse(tools=(TOOL,), form=ToolForm.HERMES))
    if form is ToolForm.HERMES:
        assert '"f"' in text_of(job, own)
    else:
        assert failure(text_of, job, own).param == "tools"
    if form is ToolForm.GENERIC:
        generic = chat(ToolUse(tools=(TOOL,), form=form))
        assert "<tool_call>" in text_of(generic, own)
    assert text_of(replace(job, tools=None), own)


@pytest.mark.parametrize(
    "template",
    [
        "{{ 1 // 0 }}",
        "{{ messages[9].content }}",
        "{% for i in range(1000000) %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_a_template_that_fails_for_any_chat_fails_the_request(template: str) -> None:
    own = style_of(Prompting(templates={"default": template}))
    with pytest.raises(JobFailed, match="chat template rejects the messages"):
        text_of(chat(), own)


class BlockingReader:
    """Reader of images that notes the tenant of each image, and waits for permission to read it."""

    def __init__(self) -> None:
        self.begun: Queue[str] = Queue()
        self.permits = threading.Semaphore(0)

    def messages(self, messages: Any, template: str) -> list[dict[str, Any]]:
        return [{"role": "user", "content": "look"}]

    def encode(self, ids: list[int], images: Sequence[str]) -> tuple[list[int], object]:
        self.begun.put(images[0])
        assert self.permits.acquire(timeout=30)
        return ids, images


async def test_a_tenant_with_many_images_does_not_keep_those_of_another_waiting() -> None:
    reader = BlockingReader()
    tokenizer = Tokenizer(byte_level_tokenizer(), vocab_size=500, images=reader)

    def encoding(tenant: str) -> "asyncio.Task[Any]":
        content = [{"type": "image"}]
        job = make_job(endpoint=Endpoint.CHAT, prompts=(), messages=({"content": content},))
        job = replace(job, tenant=tenant, images=(tenant,))
        return asyncio.create_task(encode(tokenizer, job, BASE_STYLE))

    async def next_begun() -> str:
        return await asyncio.to_thread(lambda: reader.begun.get(timeout=30))

    tasks = [encoding("red") for _ in range(4)]
    assert await next_begun() == "red"
    tasks += [encoding("blue"), encoding("green")]
    others = {await next_begun()}
    reader.permits.release()
    others.add(await next_begun())
    assert others == {"blue", "green"}
    reader.permits.release(5)
    await asyncio.gather(*tasks)
