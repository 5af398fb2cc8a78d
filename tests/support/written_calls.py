"""Writes tool calls as models of several families do."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from shared.protocol.tools import ToolForm, ToolUse

Call = tuple[str, dict[str, Any]]
"""Tool name and arguments."""

BEGIN, END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"  # noqa: RUF001
CALL, CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"  # noqa: RUF001
SEP = "<｜tool▁sep｜>"  # noqa: RUF001

FUNCTIONS = (
    {
        "name": "get_weather",
        "parameters": {
            "$defs": {"flag": {"type": "boolean"}},
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer"},
                "heat": {"anyOf": [{"type": "number"}, {"type": "null"}]},
                "wet": {"$ref": "#/$defs/flag"},
                "tags": {"type": "array", "items": {"type": "string"}},
                "area": {"type": "object"},
                "mode": {"enum": ["fast", "slow"]},
            },
            "required": ["city"],
        },
    },
    {"name": "get"},
    {"name": "get_weather-2", "parameters": {"properties": {"day": {"type": ["integer"]}}}},
)
TOOLS = tuple({"type": "function", "function": function} for function in FUNCTIONS)


def use(form: ToolForm, **fields: Any) -> ToolUse:
    """Return the use of `TOOLS` by a model that writes calls in `form`."""
    return ToolUse(tools=TOOLS, form=form, **fields)


def written(form: ToolForm, calls: Sequence[Call]) -> str:
    opens, call, between, closes = _WRITERS[form]
    return opens + between.join(map(call, calls)) + closes


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _named(call: Call) -> str:
    return f'{{"name": "{call[0]}", "arguments": {_dumps(call[1])}}}'


def _python(call: Call) -> str:
    return f"{call[0]}({', '.join(f'{key}={value!r}' for key, value in call[1].items())})"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else _dumps(value)


def _qwen(call: Call) -> str:
    values = "".join(f"<parameter={k}>\n{_plain(v)}\n</parameter>\n" for k, v in call[1].items())
    return f"<tool_call>\n<function={call[0]}>\n{values}</function>\n</tool_call>"


def _glm(call: Call) -> str:
    pairs = (
        f"<arg_key>{key}</arg_key>\n<arg_value>{_plain(value)}</arg_value>\n"
        for key, value in call[1].items()
    )
    return f"<tool_call>{call[0]}\n{''.join(pairs)}</tool_call>"


def _llama3(call: Call) -> str:
    return f'{{"name": "{call[0]}", "parameters": {_dumps(call[1])}}}'


def _deepseek_v3(call: Call) -> str:
    return f"{CALL}function{SEP}{call[0]}\n```json\n{_dumps(call[1])}\n```{CALL_END}"


_WRITERS: dict[ToolForm, tuple[str, Callable[[Call], str], str, str]] = {
    ToolForm.HERMES: ("", lambda c: f"<tool_call>\n{_named(c)}\n</tool_call>", "\n", ""),
    ToolForm.GENERIC: ("", lambda c: f"<tool_call>\n{_named(c)}\n</tool_call>", "\n", ""),
    ToolForm.LLAMA3_JSON: ("", _llama3, "; ", ""),
    ToolForm.MISTRAL: ("[TOOL_CALLS] [", _named, ", ", "]"),
    ToolForm.MISTRAL_ARGS: ("", lambda c: f"[TOOL_CALLS]{c[0]}[ARGS]{_dumps(c[1])}", "", ""),
    ToolForm.PYTHONIC: ("[", _python, ", ", "]"),
    ToolForm.QWEN3_CODER: ("", _qwen, "\n", ""),
    ToolForm.DEEPSEEK_V3: (BEGIN, _deepseek_v3, "\n", END),
    ToolForm.DEEPSEEK_V31: (BEGIN, lambda c: f"{CALL}{c[0]}{SEP}{_dumps(c[1])}{CALL_END}", "", END),
    ToolForm.GLM45: ("", _glm, "\n", ""),
    ToolForm.GRANITE: ("<|tool_call|>[", _named, ", ", "]"),
}
"""Text before the calls, writer of one call, text between calls, text after the calls."""
