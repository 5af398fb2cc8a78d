"""Chat templates: rendering and its limits, tools, reasoning, and the forms that they teach."""

import asyncio
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psutil
import pytest
import tool_templates
from reasoning_templates import DEEPSEEK_R1, EFFORT, MAGISTRAL, QWEN3
from rendered_job import job
from slow_cases import slow_unless
from structlog.testing import capture_logs
from tiny import CHAT_TEMPLATE, tiny_tokenizer
from tool_templates import DEEPSEEK_V3, HERMES, LLAMA3, UNKNOWN_FORM
from written_calls import CALL_END, END, SEP

from shared.errors import JobFailed, SettingsError
from shared.protocol.jobs import PromptEnd
from shared.protocol.tools import ToolForm, ToolSettings, ToolUse
from shared.reasoning_form import ReasoningForm
from shared.sandbox import TOO_COSTLY
from worker.text.interface import EncodedPrompt
from worker.text.prompt_style import BASE_STYLE, PromptStyle
from worker.text.reasoning_format import base_reasoning_form
from worker.text.templates.chat_template import TEMPLATE_ERRORS, render_chat
from worker.text.templates.process import MAX_TEXT_CHARS
from worker.text.templates.sandbox import AdapterTemplates, Rendered, TemplateChat, TemplateSandbox
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


OF_PARTS = (
    "{% for m in messages %}{{ m.role }}:{% for part in m.content if part.type == 'text' %}"
    "{{ part.text }}{% endfor %};{% endfor %}"
)
OF_BOTH = (
    "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content %}[{{ part.text }}]{% endfor %}{% endif %}{% endfor %}"
)


def test_a_template_that_shows_only_parts_gets_texts_as_parts() -> None:
    answer = {"role": "assistant", "content": ""}
    assert encoded(OF_PARTS, HI, answer, HI)[0] == "user:hi;assistant:;user:hi;"
    assert encoded(OF_BOTH, HI)[0] == "hi"
    own = PromptStyle(templates={"default": OF_PARTS}, special_tokens={}, tool_form=None)
    assert encoded(CHAT_TEMPLATE, HI, style=own)[0] == "user:hi;"


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


@pytest.mark.parametrize(
    ("template", "setting", "form"),
    [
        *((QWEN3, "auto", THINK), (DEEPSEEK_R1, "auto", THINK)),
        (MAGISTRAL, "auto", ReasoningForm.MISTRAL),
        ({"default": QWEN3, "tool_use": HERMES}, "auto", THINK),
        ("{% if add_generation_prompt %}<think>{% endif %}", "auto", THINK),
        *((CHAT_TEMPLATE, "auto", None), (HERMES, "auto", None), (None, "auto", None)),
        (QWEN3, "none", None),
        (CHAT_TEMPLATE, "mistral", ReasoningForm.MISTRAL),
    ],
)
def test_the_form_is_the_settings_or_the_one_whose_markers_the_template_has(
    template: Any, setting: Any, form: ReasoningForm | None
) -> None:
    assert base_reasoning_form(tokenizer(template), setting) is form


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


SHORTENING = "</think>{% for m in messages %}{{ m.content[:4] }}{% endfor %}"
LAST = {"role": "assistant", "content": "<think>a</think>b" + "c" * 5000}


def test_what_a_template_rejects_and_a_last_message_that_it_shortens_are_refused() -> None:
    two_calls = {**CALLED, "tool_calls": [CALL, CALL]}
    with pytest.raises(JobFailed, match="only single tool-calls") as rejected:
        encoded(LLAMA3, HI, two_calls)
    with pytest.raises(JobFailed) as shortened:
        encoded(SHORTENING, HI, LAST, prompt_end=MESSAGE)
    for error in (rejected.value.error, shortened.value.error):
        assert error.param == "messages"
        assert len(error.message) < 1000


def test_reasoning_in_messages_and_variables_reach_the_template() -> None:
    last = {"role": "assistant", "content": "4", "reasoning_content": "2+2"}
    text, _ = encoded(QWEN3, HI, last, prompt_end=NOTHING)
    assert "<think>\n2+2\n</think>\n\n4" in text
    kwargs = {"reasoning_effort": "high", "enable_thinking": True}
    assert encoded(EFFORT, template_kwargs=kwargs)[0] == "high True hi"


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
    ("template", "setting", "form"),
    [
        (LLAMA3_WITHOUT_INSTRUCTIONS, "auto", ToolForm.LLAMA3_JSON),
        ({"default": CHAT_TEMPLATE, "tool_use": HERMES}, "auto", ToolForm.HERMES),
        (OFFERED_TOOLS_ALONE, "auto", ToolForm.GENERIC),
        *((CHAT_TEMPLATE, "auto", ToolForm.GENERIC), (None, "auto", None)),
        ("{{ raise_exception('no') }}", "auto", ToolForm.GENERIC),
        *((HERMES, "generic", ToolForm.GENERIC), (CHAT_TEMPLATE, "generic", ToolForm.GENERIC)),
        *((CHAT_TEMPLATE, "none", None), (UNKNOWN_FORM, "auto", ToolForm.GENERIC)),
        (UNKNOWN_FORM, "hermes", ToolForm.HERMES),
        (HERMES, "llama3_json", ToolForm.LLAMA3_JSON),
        (HERMES, "none", None),
    ],
)
def test_the_form_is_the_settings_or_the_one_that_the_template_teaches(
    template: Any, setting: Any, form: ToolForm | None
) -> None:
    assert base_tool_form(tokenizer(template), ToolSettings(form=setting)) is form


def test_without_the_generic_form_a_model_has_only_its_templates() -> None:
    settings = ToolSettings(allows_generic=False)
    for template in (CHAT_TEMPLATE, OFFERED_TOOLS_ALONE):
        assert base_tool_form(tokenizer(template), settings) is None
        assert adapter_tool_form(tiny_tokenizer(), template, {}, settings) is None
    assert base_tool_form(tokenizer(HERMES), settings) is ToolForm.HERMES


def test_an_unknown_form_is_logged_and_one_without_tools_in_the_template_is_refused() -> None:
    with capture_logs() as logs:
        assert base_tool_form(tokenizer(UNKNOWN_FORM), ToolSettings()) is ToolForm.GENERIC
    assert [entry["event"] for entry in logs] == ["tool_call_form_unknown"]
    assert "--tool-call-parser" in logs[0]["hint"]
    for template in (CHAT_TEMPLATE, None):
        with pytest.raises(SettingsError, match="--tool-call-parser hermes"):
            base_tool_form(tokenizer(template), ToolSettings(form="hermes"))


@pytest.mark.parametrize("form", [form for form in ToolForm if form is not ToolForm.GENERIC])
def test_each_form_is_detected_from_instructions_or_an_earlier_call(form: ToolForm) -> None:
    name = "LLAMA3" if form is ToolForm.LLAMA3_JSON else form.name
    template = getattr(tool_templates, name)
    assert base_tool_form(tokenizer(template), ToolSettings()) is form
    assert adapter_tool_form(tiny_tokenizer(), template, {}, ToolSettings()) is form


HF = tiny_tokenizer()
USER = {"role": "user", "content": "你好"}
CHATS: list[dict[str, Any]] = [
    {"messages": [USER]},
    {"messages": [USER, {"role": "assistant", "content": "a"}], "prompt_end": PromptEnd.MESSAGE},
    {"messages": [USER], "prompt_end": PromptEnd.NOTHING, "variables": {"enable_thinking": False}},
    {"messages": [USER], "special_tokens": {"bos_token": "<own>"}},
    {
        "messages": [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}],
        "tools": [{"type": "function", "function": {"name": "add", "parameters": {}}}],
    },
    {"messages": [{"role": "unheard of", "content": "x"}]},
    {"messages": []},
]
COSTLY = [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 10 ** (10 ** 10) }}",
    "{{ 'x' * 10 ** 10 }}",
    "{% set n = namespace(x='x') %}{% for i in range(40) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "{{ ('%' ~ 10 ** 10 ~ 'd') | format(1) }}",
]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[TemplateSandbox]:
    sandbox = TemplateSandbox()
    yield sandbox
    sandbox.close()


def chat(template: str, **fields: Any) -> TemplateChat:
    fields = {"messages": [USER], **fields}
    return TemplateChat(template=template, base_tokens=HF.special_tokens_map, **fields)


def rendered_here(template: str, messages: list[dict[str, Any]], **fields: Any) -> str | None:
    try:
        return render_chat(HF, messages, template=template, **fields)
    except TEMPLATE_ERRORS:
        return None


@pytest.mark.parametrize("fields", CHATS)
@pytest.mark.parametrize(
    "template", [CHAT_TEMPLATE, HERMES, LLAMA3, DEEPSEEK_V3, DEEPSEEK_R1, QWEN3]
)
def test_a_chat_is_rendered_as_by_transformers(
    sandbox: TemplateSandbox, template: str, fields: dict[str, Any]
) -> None:
    rendered = sandbox.render(chat(template, **fields))
    assert (None if rendered.error else rendered.text) == rendered_here(template, **fields)


@pytest.mark.parametrize(
    "template", slow_unless(lambda template: template in COSTLY[:3:2], zip(COSTLY))
)
@pytest.mark.slow
def test_a_costly_chat_is_refused_and_later_ones_are_rendered(
    sandbox: TemplateSandbox, template: str
) -> None:
    refused = sandbox.render(chat(template))
    assert (refused.text, refused.error) == ("", TOO_COSTLY)
    assert refused.cpu_s >= 1
    assert sandbox.render(chat("fine")).text == "fine"


def test_a_text_is_bounded_and_a_syntax_error_is_told_apart(sandbox: TemplateSandbox) -> None:
    assert len(sandbox.render(chat("{{ 'x' * 2 ** 20 }}")).text) == MAX_TEXT_CHARS
    assert "writes more than" in sandbox.render(chat("{{ 'x' * (2 ** 20 + 1) }}")).error
    assert sandbox.render(chat("{% if %}")).is_malformed
    assert not sandbox.render(chat("{{ 1 // 0 }}")).is_malformed


def test_processes_that_were_killed_are_replaced(sandbox: TemplateSandbox) -> None:
    sandbox.render(chat("fine"))
    for process in psutil.Process().children():
        if "worker.text.templates.process" in " ".join(process.cmdline()):
            process.kill()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert sandbox.render(chat("fine")).text == "fine"


@pytest.mark.slow
async def test_another_tenant_is_served_beside_costly_chats() -> None:
    templates = AdapterTemplates()
    await templates.render("blue", chat("fine"))
    costly = [asyncio.create_task(templates.render("red", chat(COSTLY[0]))) for _ in range(2)]
    done: list[Rendered] = []
    while not costly[-1].done():
        done.append(await templates.render("blue", chat("fine")))
        await asyncio.sleep(0.01)
    assert [(await each).error for each in costly] == [TOO_COSTLY] * 2
    assert {each.text for each in done} == {"fine"}
    assert len(done) > 20


STRICT = """
{%- for m in messages %}
{%- if m.role == 'system' and not loop.first %}{{ raise_exception('not first') }}{% endif %}
{%- if m.role != 'system' and loop.previtem is defined and loop.previtem.role == m.role %}
{{- raise_exception('roles must alternate') }}{% endif %}<{{ m.role }}>{{ m.content }}
{%- endfor %}"""
"""Template that accepts one system message, at the start, and other roles in turns."""


def said(*pairs: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in pairs]


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (said(("system", "A"), ("user", "B")), "<system>A<user>B"),
        (said(("system", "A"), ("system", "B"), ("user", "C")), "<system>A\n\nB<user>C"),
        (said(("user", "A"), ("system", "B")), "<user>A\n\nB"),
        (said(("user", "A"), ("system", "B"), ("user", "C")), "<user>A\n\nB\n\nC"),
        (
            said(
                ("system", "A"), ("user", "B"), ("assistant", "C"), ("system", "D"), ("user", "E")
            ),
            "<system>A<user>B<assistant>C<user>D\n\nE",
        ),
    ],
)
def test_system_messages_that_the_template_rejects_become_the_users(
    messages: list[dict[str, Any]], expected: str
) -> None:
    assert rendered_here(STRICT, messages) == expected


def test_a_template_that_shows_later_system_messages_gets_them() -> None:
    shown = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    assert rendered_here(shown, said(("user", "A"), ("system", "B"))) == "<user>A<system>B"
