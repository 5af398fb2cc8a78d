"""Detects the form of a model's tool calls from the example in its chat template."""

import re
from collections.abc import Mapping
from typing import Any, Literal

import structlog
from jinja2 import TemplateSyntaxError

from shared.errors import SettingsError
from shared.protocol.tools import ToolForm
from worker.text.chat_template import TEMPLATE_ERRORS, render_chat

_TOOL_NAME = "probe_of_the_template"
_FIELD = {"type": "string", "description": "a field"}
_FUNCTION = {
    "name": _TOOL_NAME,
    "description": "a function",
    "parameters": {"type": "object", "properties": {"field": _FIELD}, "required": ["field"]},
}
_MESSAGES = ({"role": "user", "content": "hi"},)
_TOOLS = ({"type": "function", "function": _FUNCTION},)
_HERMES = re.compile(r'<tool_call>\s*\{"(name|arguments)"')
# The name is quoted in the offered tool's JSON, but not in the example that instructs the model.
_LLAMA3 = re.compile(r'\{"name": [^"{}]+, "parameters": ')

ToolSetting = Literal["auto", "hermes", "llama3_json", "none"]
"""Values of --tool-call-parser."""

log = structlog.get_logger()


def base_tool_form(hf_tokenizer: Any, setting: ToolSetting) -> ToolForm | None:
    """Return the form of the base model's tool calls, or None if the model is served without tools.

    With the setting "auto", return the form that the chat template shows.

    Raises:
        SettingsError: `setting` names a form, but the chat template doesn't show tools.
    """
    text = "" if setting == "none" else _render_base_probe(hf_tokenizer)
    if setting in ("none", "auto") and _TOOL_NAME not in text:
        return None
    if _TOOL_NAME not in text:
        message = (
            f"--tool-call-parser {setting}: the model's chat template doesn't show tools; "
            "use auto or none"
        )
        raise SettingsError(message)
    form = _taught_form(text) if setting == "auto" else ToolForm(setting)
    if form is None:
        log.warning("tool_calls_not_served", hint="set the form with --tool-call-parser")
    return form


def adapter_tool_form(
    hf_tokenizer: Any, template: str, special_tokens: Mapping[str, str], setting: ToolSetting
) -> ToolForm | None:
    """Return the form of an adapter's tool calls, or None if the adapter can't call tools.

    With the setting "auto", return the form that `template` shows.

    Raises:
        TemplateSyntaxError: the template has a syntax error.
    """
    text = _render_adapter_probe(hf_tokenizer, template, special_tokens)
    if setting == "none" or _TOOL_NAME not in text:
        return None
    return _taught_form(text) if setting == "auto" else ToolForm(setting)


def _render_base_probe(hf_tokenizer: Any) -> str:
    """Render a chat that offers a tool, or return an empty string if rendering fails."""
    if not hf_tokenizer.chat_template:
        return ""
    try:
        return render_chat(hf_tokenizer, _MESSAGES, tools=_TOOLS, add_generation_prompt=False)
    except TEMPLATE_ERRORS:
        return ""


def _render_adapter_probe(
    hf_tokenizer: Any, template: str, special_tokens: Mapping[str, str]
) -> str:
    """Render the chat of `_render_base_probe` with an adapter's template.

    Raises:
        TemplateSyntaxError: the template has a syntax error.
    """
    try:
        return render_chat(
            hf_tokenizer,
            _MESSAGES,
            tools=_TOOLS,
            template=template,
            special_tokens=special_tokens,
            add_generation_prompt=False,
        )
    except TemplateSyntaxError:
        raise
    except TEMPLATE_ERRORS:
        return ""


def _taught_form(text: str) -> ToolForm | None:
    if _HERMES.search(text):
        return ToolForm.HERMES
    return ToolForm.LLAMA3_JSON if _LLAMA3.search(text) else None
