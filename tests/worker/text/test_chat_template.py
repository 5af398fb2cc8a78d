"""Chat templates: rendering, tools, reasoning, and the forms that they teach."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
import tool_templates
from reasoning_templates import DEEPSEEK_R1, EFFORT, MAGISTRAL, QWEN3
from rendered_job import job
from structlog.testing import capture_logs
from tiny import CHAT_TEMPLATE, tiny_tokenizer
from tool_templates import DEEPSEEK_V3, HERMES, LLAMA3, UNKNOWN_FORM
from written_calls import CALL_END, END, SEP

from shared.errors import JobFailed, SettingsError
from shared.protocol.jobs import PromptEnd
from shared.protocol.tools import ToolForm, ToolUse
from shared.reasoning_form import ReasoningForm
from worker.text.interface import EncodedPrompt
from worker.text.prompt_style import BASE_STYLE, PromptStyle
from worker.text.reasoning_format import base_reasoning_form
from worker.text.tokenizer import Tokenizer
from worker.text.tool_call_format import adapter_tool_form, base_tool_form

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
USE = ToolUse(tools=(TOOL,), form=ToolForm.HERMES)
HI = {"role": "user", "content": "hi"}
CALL = {"id": "a", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
CALLED = {"role": "assistant", "content": "", "tool_calls": [CALL]}
REPLY = {"role": "tool", "content": "2", "tool_call_id": "a", "name": "add"}
THINK = ReasoningForm.THINK


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


@pytest.mark.parametrize("template", [HERMES, LLAMA3])
def test_tools_are_rendered_only_if_the_request_has_some(template: str) -> None:
    assert '"name": "add"' in encoded(template, HI, tools=USE)[0]
    assert encoded(template, HI)[0] == "<|user|>hi<|end|><|assistant|>"


@pytest.mark.parametrize(
    ("template", "call"),
    [
        (HERMES, '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'),
        (LLAMA3, '{"name": "add", "parameters": {"a": 1}}'),
        (DEEPSEEK_V3, f'{SEP}add\n```json\n{{"a": 1}}\n```{CALL_END}{END}'),
    ],
)
def test_earlier_calls_and_results_are_rendered_in_the_models_own_form(
    template: str, call: str
) -> None:
    text, _ = encoded(template, HI, CALLED, REPLY)
    assert text.startswith("<|user|>hi<|end|><|assistant|>")
    assert f"{call}<|end|><|tool|>" in text


def test_a_template_for_single_calls_rejects_two_and_the_error_names_the_messages() -> None:
    with pytest.raises(JobFailed, match="only single tool-calls") as rejected:
        encoded(LLAMA3, HI, {**CALLED, "tool_calls": [CALL, CALL]})
    assert rejected.value.error.param == "messages"


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


def test_the_setting_overrides_the_form_of_reasoning() -> None:
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


LLAMA3_WITHOUT_INSTRUCTIONS = LLAMA3.replace("Respond in the format", "Tools").replace(
    "function name, ", ""
)
OFFERED_TOOLS_ALONE = "{{ tools | tojson }}{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "form"),
    [
        (LLAMA3_WITHOUT_INSTRUCTIONS, ToolForm.LLAMA3_JSON),
        ({"default": CHAT_TEMPLATE, "tool_use": HERMES}, ToolForm.HERMES),
        (OFFERED_TOOLS_ALONE, None),
        (CHAT_TEMPLATE, None),
        (None, None),
        ("{{ raise_exception('no') }}", None),
    ],
)
def test_the_form_is_the_one_that_the_template_teaches(
    template: str | dict[str, str] | None, form: ToolForm | None
) -> None:
    assert base_tool_form(tokenizer(template), "auto") is form


@pytest.mark.parametrize("form", ToolForm)
def test_each_form_is_detected_from_instructions_or_an_earlier_call(form: ToolForm) -> None:
    name = "LLAMA3" if form is ToolForm.LLAMA3_JSON else form.name
    template = getattr(tool_templates, name)
    assert base_tool_form(tokenizer(template), "auto") is form
    assert adapter_tool_form(tiny_tokenizer(), template, {}, "auto") is form


def test_a_template_with_an_unknown_form_is_logged_and_served_without_tools() -> None:
    with capture_logs() as logs:
        assert base_tool_form(tokenizer(UNKNOWN_FORM), "auto") is None
    assert [entry["event"] for entry in logs] == ["tool_calls_not_served"]
    assert "--tool-call-parser" in logs[0]["hint"]


def test_the_setting_overrides_the_form_of_calls() -> None:
    assert base_tool_form(tokenizer(UNKNOWN_FORM), "hermes") is ToolForm.HERMES
    assert base_tool_form(tokenizer(HERMES), "llama3_json") is ToolForm.LLAMA3_JSON
    assert base_tool_form(tokenizer(HERMES), "none") is None


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, None])
def test_a_form_is_rejected_if_the_template_shows_no_tools(template: str | None) -> None:
    with pytest.raises(SettingsError, match="--tool-call-parser hermes"):
        base_tool_form(tokenizer(template), "hermes")
