"""Builds the grammar of answers that must call tools.

`grammar_source.py` combines this grammar with a JSON format or another constraint of the same
request.
"""

import json
from typing import Any, NamedTuple

from shared.protocol.tools import (
    DEEPSEEK_CALL,
    DEEPSEEK_CLOSE,
    DEEPSEEK_END,
    DEEPSEEK_OPEN,
    DEEPSEEK_SEPARATOR,
    GRANITE_OPEN,
    HERMES_CLOSE,
    HERMES_OPEN,
    LLAMA3_SEPARATOR,
    MISTRAL_ARGS,
    MISTRAL_OPEN,
    ToolForm,
    ToolUse,
)
from worker.engine.grammar import JSON_OPTIONS, GrammarSource
from worker.text.tool_value_grammar import VALUE_FORMS, literal, value_rules


class _Layout(NamedTuple):
    """Texts of one form before, between and after calls, and around a call's arguments.

    NAME stands for the tool's name.
    """

    head: str
    tail: str
    opens: str = ""
    between: str = ""
    closes: str = ""


_HERMES = _Layout(
    HERMES_OPEN + '\n{"name": "NAME", "arguments": ', "}\n" + HERMES_CLOSE, between="\n"
)
_LAYOUTS = {
    ToolForm.HERMES: _HERMES,
    ToolForm.GENERIC: _HERMES,
    ToolForm.LLAMA3_JSON: _Layout(
        '{"name": "NAME", "parameters": ', "}", between=f"{LLAMA3_SEPARATOR} "
    ),
    ToolForm.MISTRAL: _Layout(
        '{"name": "NAME", "arguments": ', "}", MISTRAL_OPEN + " [", ", ", "]"
    ),
    ToolForm.MISTRAL_ARGS: _Layout(f"{MISTRAL_OPEN}NAME{MISTRAL_ARGS}", ""),
    ToolForm.PYTHONIC: _Layout("NAME(", ")", "[", ", ", "]"),
    ToolForm.QWEN3_CODER: _Layout(
        HERMES_OPEN + "\n<function=NAME>\n", "</function>\n" + HERMES_CLOSE, between="\n"
    ),
    ToolForm.DEEPSEEK_V3: _Layout(
        f"{DEEPSEEK_CALL}function{DEEPSEEK_SEPARATOR}NAME\n```json\n",
        "\n```" + DEEPSEEK_END,
        DEEPSEEK_OPEN,
        "\n",
        DEEPSEEK_CLOSE,
    ),
    ToolForm.DEEPSEEK_V31: _Layout(
        f"{DEEPSEEK_CALL}NAME{DEEPSEEK_SEPARATOR}", DEEPSEEK_END, DEEPSEEK_OPEN, "", DEEPSEEK_CLOSE
    ),
    ToolForm.GLM45: _Layout(HERMES_OPEN + "NAME\n", HERMES_CLOSE, between="\n"),
    ToolForm.GRANITE: _Layout('{"name": "NAME", "arguments": ', "}", GRANITE_OPEN + "[", ", ", "]"),
}


def tool_source(use: ToolUse) -> GrammarSource:
    """Return a grammar of tool calls with arguments that are valid under the tools' schemas.

    Calls have the form that the chat template shows. The grammar is in llguidance's dialect of
    Lark. If the client names a tool or disables parallel calls, the grammar allows exactly one
    call. Otherwise it allows one or more calls.

    Raises:
        GrammarRejected: the name of a parameter can't be written in this form.
    """
    layout = _LAYOUTS[use.form]
    more = f"({literal(layout.between)} call)*" if use.name is None and use.is_parallel else ""
    start = f"start: {literal(layout.opens)} call {more} {literal(layout.closes)}"
    return _source(use, layout.head, [start])


def optional_tool_source(use: ToolUse) -> GrammarSource:
    """Return a grammar of any text in which each `<tool_call>` starts a valid call.

    The calls have the generic form. If the client disables parallel calls, the answer ends after
    its first call.

    Raises:
        GrammarRejected: the name of a parameter can't be written in this form.
    """
    start = f"start: {'(until_call call)* end' if use.is_parallel else 'until_call call | end'}"
    text = ["end: /(?s:.*)/", f'until_call[suffix="{HERMES_OPEN}"]: /(?s:.*)/']
    return _source(use, _HERMES.head.removeprefix(HERMES_OPEN), [start, *text])


def _source(use: ToolUse, head_of_call: str, start: list[str]) -> GrammarSource:
    """Return a grammar with the rules `start` and a rule `call`, to which they refer.

    A call begins with `head_of_call`, in which NAME stands for the tool's name.
    """
    layout, names = _LAYOUTS[use.form], use.names
    tools = [tool["function"] for tool in use.tools if tool["function"]["name"] in names]
    calls = "call: " + " | ".join(f"call_{i}" for i in range(len(tools)))
    rules = ["%llguidance {}", *start, calls]
    for i, tool in enumerate(tools):
        head = literal(head_of_call.replace("NAME", tool["name"]))
        rules.append(f"call_{i}: {head} arguments_{i} {literal(layout.tail)}")
        if use.form in VALUE_FORMS:
            rules += value_rules(use.form, tool, i)
        else:
            rules.append(f"arguments_{i}: %json {_schema(tool)}")
    if use.form in VALUE_FORMS:
        rules += VALUE_FORMS[use.form].shared_rules
    return GrammarSource("\n".join(rules) + "\n")


def _schema(tool: dict[str, Any]) -> str:
    """Return the JSON schema of a tool's arguments.

    It requires an object, because the parser of tool calls expects one.
    """
    parameters = tool.get("parameters") or {"additionalProperties": False}
    return json.dumps({"type": "object", **parameters, "x-guidance": JSON_OPTIONS})
