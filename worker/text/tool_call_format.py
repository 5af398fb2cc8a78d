"""In which form a model writes tool calls, found by what its chat template shows of a tool."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import structlog
from jinja2 import TemplateSyntaxError

from shared.errors import SettingsError
from shared.protocol.tools import ToolForm
from worker.text.tokenizer import TEMPLATE_ERRORS

_NAME = "probe_of_the_template"
_FIELD = {"type": "string", "description": "a field"}
_FUNCTION = {
    "name": _NAME,
    "description": "a function",
    "parameters": {"type": "object", "properties": {"field": _FIELD}, "required": ["field"]},
}
_HERMES = re.compile(r'<tool_call>\s*\{"(name|arguments)"')
_LLAMA3 = re.compile(r'\{"name": [^"{}]+, "parameters": ')  # the tools themselves quote theirs

_NONE: Mapping[str, str] = MappingProxyType({})

ToolSetting = Literal["auto", "hermes", "llama3_json", "none"]
"""--tool-call-parser."""

log = structlog.get_logger()


def tool_form(hf_tokenizer: Any, setting: ToolSetting) -> ToolForm | None:
    """The form that `setting` names, or that the chat template teaches; None without tools.

    Raises:
        SettingsError: a form is named, and the template doesn't show tools to the model.
    """
    shown = "" if setting == "none" else _shown(hf_tokenizer)
    if setting in ("none", "auto") and _NAME not in shown:
        return None
    if _NAME not in shown:
        message = f"--tool-call-parser {setting}: the model's chat template doesn't show tools"
        raise SettingsError(message)
    form = _taught_form(shown) if setting == "auto" else ToolForm(setting)
    if form is None:
        log.warning("tool_calls_not_served", hint="--tool-call-parser names the model's form")
    return form


def form_of_template(
    hf_tokenizer: Any, template: str, variables: Mapping[str, str], setting: ToolSetting
) -> ToolForm | None:
    """The same for an adapter's `template`, in which special tokens are `variables`.

    Raises:
        TemplateSyntaxError: it can't be read.
    """
    shown = _shown(hf_tokenizer, template, variables)
    if setting == "none" or _NAME not in shown:
        return None
    return _taught_form(shown) if setting == "auto" else ToolForm(setting)


def _shown(
    hf_tokenizer: Any, template: str | None = None, variables: Mapping[str, str] = _NONE
) -> str:
    """A chat in which a tool is offered, as the model reads it; empty if there is no such chat."""
    if not template and not hf_tokenizer.chat_template:
        return ""
    messages = [{"role": "user", "content": "hi"}]
    tools = [{"type": "function", "function": _FUNCTION}]
    try:
        text: str = hf_tokenizer.apply_chat_template(
            messages, tools=tools, chat_template=template, tokenize=False, **variables
        )
    except TemplateSyntaxError:
        if template:
            raise
        return ""
    except TEMPLATE_ERRORS:
        return ""
    return text


def _taught_form(shown: str) -> ToolForm | None:
    if _HERMES.search(shown):
        return ToolForm.HERMES
    return ToolForm.LLAMA3_JSON if _LLAMA3.search(shown) else None
