"""Builds the grammar of answers that must call tools."""

import json
from typing import Any

from shared.protocol.tools import HERMES_CLOSE, HERMES_OPEN, LLAMA3_SEPARATOR, ToolForm, ToolUse
from worker.engine.grammar import JSON_OPTIONS, GrammarSource


def tool_source(use: ToolUse) -> GrammarSource:
    """Return a grammar of tool calls whose arguments are valid under the tools' schemas.

    Calls have the form that the chat template shows. The grammar is in llguidance's dialect of
    Lark. If the client names a tool or disables parallel calls, the grammar allows exactly one
    call. Otherwise it allows one or more calls.
    """
    tools = [tool["function"] for tool in use.tools if tool["function"]["name"] in use.names]
    rules = [
        "%llguidance {}",
        f"start: {_call_sequence(use)}",
        "call: " + " | ".join(f"call_{i}" for i in range(len(tools))),
    ]
    for i, tool in enumerate(tools):
        head, tail = _around_arguments(use.form, tool["name"])
        rules.append(f"call_{i}: {json.dumps(head)} arguments_{i} {json.dumps(tail)}")
        rules.append(f"arguments_{i}: %json {_schema(tool)}")
    return GrammarSource("\n".join(rules) + "\n")


def _call_sequence(use: ToolUse) -> str:
    if use.name is not None or not use.is_parallel:
        return "call"
    separator = "\n" if use.form is ToolForm.HERMES else f"{LLAMA3_SEPARATOR} "
    return f"call ({json.dumps(separator)} call)*"


def _around_arguments(form: ToolForm, name: str) -> tuple[str, str]:
    if form is ToolForm.HERMES:
        return f'{HERMES_OPEN}\n{{"name": "{name}", "arguments": ', f"}}\n{HERMES_CLOSE}"
    return f'{{"name": "{name}", "parameters": ', "}"


def _schema(tool: dict[str, Any]) -> str:
    """Return the schema of a tool's arguments.

    The schema requires an object, because the parser of tool calls expects one.
    """
    parameters = tool.get("parameters") or {"additionalProperties": False}
    return json.dumps({"type": "object", **parameters, "x-guidance": JSON_OPTIONS})
