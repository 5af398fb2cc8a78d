"""Detection of reasoning in chat templates, and in prompts that begin it."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from reasoning_templates import DEEPSEEK_R1, EFFORT, MAGISTRAL, QWEN3
from rendered_job import job
from tiny import CHAT_TEMPLATE, tiny_tokenizer
from tool_templates import HERMES

from shared.errors import JobFailed
from shared.protocol.jobs import PromptEnd
from shared.reasoning_form import ReasoningForm
from worker.text.interface import EncodedPrompt
from worker.text.prompt_style import BASE_STYLE, PromptStyle
from worker.text.reasoning_format import base_reasoning_form
from worker.text.tokenizer import Tokenizer

THINK = ReasoningForm.THINK
HI = {"role": "user", "content": "hi"}


def tokenizer(template: Any) -> Any:
    hf = tiny_tokenizer()
    hf.chat_template = template
    return hf


def encoded(
    template: str, *messages: dict[str, Any], style: PromptStyle = BASE_STYLE, **fields: Any
) -> tuple[str, EncodedPrompt]:
    """Return the text and the tokens of a chat's prompt."""
    hf = tokenizer(template)
    text = Tokenizer(hf, vocab_size=len(hf), reasoning=base_reasoning_form(hf, "auto"))
    asked = replace(job(), messages=messages or (HI,), **fields)
    (prompt,) = text.encode(asked, style, asyncio.run(text.render(asked, style)))
    return hf.decode(prompt.ids), prompt


@pytest.mark.parametrize(
    ("template", "form"),
    [
        *((QWEN3, THINK), (DEEPSEEK_R1, THINK), (MAGISTRAL, ReasoningForm.MISTRAL)),
        ({"default": QWEN3, "tool_use": HERMES}, THINK),
        ("{% if add_generation_prompt %}<think>{% endif %}", THINK),
        *((CHAT_TEMPLATE, None), (HERMES, None), (None, None)),
    ],
)
def test_the_form_is_the_one_whose_markers_the_template_has(
    template: Any, form: ReasoningForm | None
) -> None:
    assert base_reasoning_form(tokenizer(template), "auto") is form


def test_the_setting_overrides_the_template() -> None:
    assert base_reasoning_form(tokenizer(QWEN3), "none") is None
    assert base_reasoning_form(tokenizer(CHAT_TEMPLATE), "mistral") is ReasoningForm.MISTRAL


MESSAGE, NOTHING = PromptEnd.MESSAGE, PromptEnd.NOTHING
QUESTION = {"role": "user", "content": "what is <think>"}
THOUGHT = {"role": "assistant", "content": "<think>\nso far"}
ANSWER = {"role": "assistant", "content": "The answer"}
CONTINUED = {"prompt_end": MESSAGE}
OFF = {"template_kwargs": {"enable_thinking": False}}


@pytest.mark.parametrize(
    ("template", "messages", "fields", "end", "echo", "form"),
    [
        (DEEPSEEK_R1, [HI], {}, "<|assistant|><think>\n", "<think>", THINK),
        (DEEPSEEK_R1, [HI], {"prompt_end": NOTHING}, "<|user|>hi", "", None),
        (QWEN3, [HI], {}, "<|assistant|>", "", THINK),  # the model may write the opening marker
        (QWEN3, [HI], OFF, "<think>\n\n</think>\n\n", "", None),
        (QWEN3, [QUESTION], {}, "<|assistant|>", "", THINK),
        (QWEN3, [HI, THOUGHT], CONTINUED, "<|assistant|><think>\nso far", "<think>", THINK),
        (QWEN3, [HI, ANSWER], CONTINUED, "<|assistant|>The answer", "", None),
    ],
)
def test_the_end_of_a_prompt_says_whether_its_answers_reason(
    template: str,
    messages: list[dict[str, Any]],
    fields: dict[str, Any],
    end: str,
    echo: str,
    form: ReasoningForm | None,
) -> None:
    text, prompt = encoded(template, *messages, **fields)
    assert text.endswith(end)
    assert (prompt.echo, prompt.reasoning) == (echo, form)
    assert prompt.is_reasoning is (echo == "<think>")


def test_a_last_message_that_the_template_shortens_can_not_be_continued() -> None:
    last = {"role": "assistant", "content": "<think>a</think>b" + "c" * 5000}
    with pytest.raises(JobFailed) as caught:
        encoded(
            "</think>{% for m in messages %}{{ m.content[:4] }}{% endfor %}",
            *(HI, last),
            prompt_end=MESSAGE,
        )
    assert caught.value.error.param == "messages"
    assert len(caught.value.error.message) < 1000


def test_reasoning_in_messages_reaches_the_template() -> None:
    last = {"role": "assistant", "content": "4", "reasoning_content": "2+2"}
    text, _ = encoded(QWEN3, HI, last, prompt_end=NOTHING)
    assert "<think>\n2+2\n</think>\n\n4" in text


def test_variables_reach_the_template() -> None:
    kwargs = {"reasoning_effort": "high", "enable_thinking": True}
    text, _ = encoded(EFFORT, template_kwargs=kwargs)
    assert text == "high True hi"


def test_an_adapters_template_decides_for_its_answers() -> None:
    style = PromptStyle(templates={"default": DEEPSEEK_R1}, reasoning=THINK)
    _, prompt = encoded(CHAT_TEMPLATE, style=style)
    assert (prompt.echo, prompt.is_reasoning) == ("<think>", True)
    plain = PromptStyle(templates={"default": CHAT_TEMPLATE})
    assert encoded(DEEPSEEK_R1, style=plain)[1].reasoning is None
    assert encoded(DEEPSEEK_R1, style=PromptStyle(reasoning=THINK))[1].is_reasoning
