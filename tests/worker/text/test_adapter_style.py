import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from tiny import CHAT_TEMPLATE, tiny_tokenizer
from tool_templates import HERMES, LLAMA3

from shared.errors import AdapterRejected, JobFailed
from shared.protocol.ids import AdapterVersion, ApiId, JobId
from shared.protocol.jobs import Endpoint, Job, SamplingParams
from shared.protocol.tools import ToolForm, ToolUse
from worker.jobs.encoding import encode
from worker.lora.checkpoint.prompting import Prompting
from worker.text.adapter_style import adapter_style
from worker.text.interface import EncodedPrompt
from worker.text.prompt_style import BASE_STYLE, PromptStyle
from worker.text.tokenizer import Tokenizer

HF = tiny_tokenizer()
OWN = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
)
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def style_of(prompting: Prompting) -> PromptStyle:
    return adapter_style(
        prompting, HF, vocab_size=len(HF), tool_setting="auto", reasoning_setting="auto"
    )


def chat(tools: ToolUse | None = None) -> Job:
    return Job(
        id=JobId("0" * 32),
        endpoint=Endpoint.CHAT,
        model="a",
        version=AdapterVersion("a@0"),
        sampling=SamplingParams(seed=1),
        created_s=0,
        deadline_ms=1000,
        cost=10,
        reply_to=ApiId("api"),
        messages=({"role": "user", "content": "你好"},),
        tools=tools,
    )


def encoded(job: Job, own: PromptStyle) -> Sequence[EncodedPrompt]:
    # Each call has an event loop of its own, and so a tokenizer of its own.
    return asyncio.run(encode(Tokenizer(HF, vocab_size=len(HF)), job, own))


def text_of(job: Job, own: PromptStyle) -> str:
    (prompt,) = encoded(job, own)
    text: str = HF.decode(prompt.ids)
    return text


def test_prompts_of_an_adapter_follow_its_template_and_its_special_tokens() -> None:
    own = style_of(Prompting(templates={"default": OWN}, special_tokens={"eos_token": "<|user|>"}))
    assert text_of(chat(), own) == "<bos>user: 你好<|user|>"
    assert text_of(chat(), BASE_STYLE) == text_of(chat(), style_of(Prompting()))


def test_special_tokens_without_a_template_are_ignored() -> None:
    own = style_of(Prompting(special_tokens={"bos_token": "x"}))
    assert own.special_tokens == {}


def test_end_tokens_come_from_the_generation_config_and_the_tokenizer() -> None:
    user = HF.convert_tokens_to_ids("<|user|>")
    assert style_of(Prompting(eos_ids=(7,), special_tokens={"eos_token": "<|user|>"})).eos_ids == {
        7,
        user,
    }
    assert style_of(Prompting(special_tokens={"eos_token": "<|unheard of|>"})).eos_ids == set()


@pytest.mark.parametrize(
    ("prompting", "message"),
    [
        (
            Prompting(templates={"default": "<|im_start|>"}, token_ids={"<|im_start|>": 300}),
            r"needs the token '<\|im_start\|>' \(300\)",
        ),
        (Prompting(templates={"default": "{% if %}"}), "the chat template has a syntax error"),
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
        ({"default": OWN}, None),
        ({"default": CHAT_TEMPLATE}, None),
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
        with pytest.raises(JobFailed) as caught:
            encoded(job, own)
        assert caught.value.error.param == "tools"
    assert text_of(replace(job, tools=None), own)


@pytest.mark.parametrize(
    "template",
    [
        "{{ 1 // 0 }}",
        "{% for i in range(1000000) %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_a_template_that_fails_for_any_chat_fails_the_request(template: str) -> None:
    own = style_of(Prompting(templates={"default": template}))
    with pytest.raises(JobFailed, match="chat template rejects the messages"):
        encoded(chat(), own)


def test_an_adapter_whose_template_takes_too_much_time_or_memory_is_rejected() -> None:
    with pytest.raises(AdapterRejected, match="takes too much time or memory"):
        style_of(Prompting(templates={"default": "{{ 10 ** (10 ** 10) }}"}))
