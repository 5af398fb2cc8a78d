"""Detects the form of a model's tool calls from the example in its chat template."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import structlog
from jinja2 import TemplateSyntaxError

from shared.errors import SettingsError
from shared.protocol.jobs import PromptEnd
from shared.protocol.tools import DEEPSEEK_CALL, DEEPSEEK_SEPARATOR, ToolForm, ToolSettings
from worker.text.templates.chat_template import TEMPLATE_ERRORS, render_chat
from worker.text.templates.sandbox import TEMPLATES, TemplateChat, TemplateTooCostly

_TOOL_NAME = "probe_of_the_template"
_FIELD = {"type": "string", "description": "a field"}
_FUNCTION = {
    "name": _TOOL_NAME,
    "description": "a function",
    "parameters": {"type": "object", "properties": {"field": _FIELD}, "required": ["field"]},
}
_MESSAGES = ({"role": "user", "content": "hi"},)
_TOOLS = ({"type": "function", "function": _FUNCTION},)
_DEEPSEEK = re.escape(DEEPSEEK_CALL)
_SIGNS = (
    (ToolForm.DEEPSEEK_V3, re.compile(_DEEPSEEK + r"\s*function" + re.escape(DEEPSEEK_SEPARATOR))),
    (ToolForm.DEEPSEEK_V31, re.compile(_DEEPSEEK)),
    (ToolForm.GRANITE, re.compile(r"<\|tool_call\|>|<tool_call>\s*\[")),
    (ToolForm.MISTRAL, re.compile(r"\[TOOL_CALLS\]\s*\[")),
    (ToolForm.MISTRAL_ARGS, re.compile(r"\[TOOL_CALLS\]")),
    (ToolForm.QWEN3_CODER, re.compile(r"<function=[^<>]+>\s*<parameter=[^<>]+>")),
    (ToolForm.GLM45, re.compile(r"<arg_key>[^<>]+</arg_key>\s*<arg_value>")),
    (ToolForm.HERMES, re.compile(r'<tool_call>\s*\{"(name|arguments)"')),
    # The name is quoted in the offered tool's JSON, but not in an example that instructs the model.
    (ToolForm.LLAMA3_JSON, re.compile(r'\{"name": [^"{}]+, "parameters": ')),
    (ToolForm.PYTHONIC, re.compile(r"\[[A-Za-z_]\w*\([A-Za-z_]\w*=[^()\[\]]*\)")),
)
"""Pairs of a form and a pattern that identifies it in instructions or in a rendered call.

The first pattern that matches decides."""
_LLAMA3_CALL = re.compile(rf'\{{"name": "{_TOOL_NAME}", "parameters": ')

log = structlog.get_logger()


def base_tool_form(hf_tokenizer: Any, settings: ToolSettings) -> ToolForm | None:
    """Return the form of the base model's tool calls, or None if the model is served without tools.

    With the setting "auto", return the form that the chat template shows. If it shows none, return
    the generic form, provided that the settings allow it.

    Raises:
        SettingsError: the settings name a form other than the generic one, but the chat template
            doesn't show tools.
    """
    setting = settings.form
    if setting == "none":
        return None
    form, shows_tools = None, False
    if hf_tokenizer.chat_template:
        with suppress(*TEMPLATE_ERRORS):
            form, shows_tools = _probe(partial(render_chat, hf_tokenizer))
    if setting != "auto":
        if not shows_tools and setting != "generic":
            raise SettingsError(
                f"--tool-call-parser {setting}: the model's chat template doesn't show tools; "
                "use auto, generic or none"
            )
        return ToolForm(setting)
    if shows_tools and form is None:
        log.warning("tool_call_form_unknown", hint="set the form with --tool-call-parser")
    is_generic = settings.allows_generic and bool(hf_tokenizer.chat_template)
    return form or (ToolForm.GENERIC if is_generic else None)


def adapter_tool_form(
    hf_tokenizer: Any, template: str, special_tokens: Mapping[str, str], settings: ToolSettings
) -> ToolForm | None:
    """Return the form of an adapter's tool calls, or None if the adapter can't call tools.

    With the setting "auto", return the form that `template` shows. If it shows none, return the
    generic form, provided that the settings allow it.

    Raises:
        TemplateSyntaxError: the template has a syntax error.
        TemplateTooCostly: rendering it takes too much time or memory.
    """

    def render(messages: Sequence[Mapping[str, Any]], **fields: Any) -> str:
        return TEMPLATES.render_text(
            TemplateChat(
                template=template,
                messages=messages,
                base_tokens=hf_tokenizer.special_tokens_map,
                special_tokens=special_tokens,
                **fields,
            )
        )

    form, shows_tools = None, False
    try:
        form, shows_tools = _probe(render)
    except (TemplateSyntaxError, TemplateTooCostly):
        raise
    except TEMPLATE_ERRORS:  # it can't render the tools of the probe
        pass
    setting = settings.form
    if setting in ("none", "generic"):
        return None if setting == "none" else ToolForm.GENERIC
    if not shows_tools:
        form = None
    elif setting != "auto":
        form = ToolForm(setting)
    return form or (ToolForm.GENERIC if settings.allows_generic else None)


def _probe(render: Callable[..., str]) -> tuple[ToolForm | None, bool]:
    """Return the form of calls that a template shows, if any, and whether it shows tools."""
    render = partial(render, tools=_TOOLS, prompt_end=PromptEnd.NOTHING)
    text = render(_MESSAGES)
    if _TOOL_NAME not in text:
        return None, False
    # Instructions come first, because a template may show an earlier call in another form.
    return _form_in(text) or _form_in(_earlier_call(render, text), is_call=True), True


def _earlier_call(render: Callable[..., str], text: str) -> str:
    """Return the text that a template writes for a call in an earlier message.

    `text` is the rendered chat without the call. The returned text is empty if the template rejects
    calls.
    """
    function = {"name": _TOOL_NAME, "arguments": {"field": "value"}}
    call = {"id": "probe0001", "type": "function", "function": function}
    message = {"role": "assistant", "content": "", "tool_calls": [call]}
    try:
        called = render((*_MESSAGES, message))
    except TEMPLATE_ERRORS:
        return ""
    pairs = enumerate(zip(called, text, strict=False))
    return called[next((i for i, (a, b) in pairs if a != b), len(text)) :]


def _form_in(text: str, *, is_call: bool = False) -> ToolForm | None:
    """Return the form of tool calls that `text` shows, or None if it is unknown.

    `text` has a template's instructions or, with `is_call`, a rendered call.
    """
    if is_call and _LLAMA3_CALL.search(text):
        return ToolForm.LLAMA3_JSON
    return next((form for form, sign in _SIGNS if sign.search(text)), None)
