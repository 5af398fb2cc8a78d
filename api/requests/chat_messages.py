"""Converts chat messages and tools into the form that chat templates expect. Pure."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import orjson

from api.schema.chat import ChatCompletionRequest
from api.schema.chat_messages import AssistantMessage, ImagePart, Message, ToolMessage
from api.schema.tools import (
    AllowedTools,
    FunctionDefinition,
    NamedTool,
    Tool,
    ToolCall,
    ToolChoiceValue,
    mode_of,
)
from shared.errors import ErrorCode, failed, invalid_value
from shared.json_budget import JsonBudget
from shared.protocol.images import PLACE
from shared.protocol.tools import ToolChoice, ToolForm, ToolUse


def template_messages(messages: Sequence[Message]) -> tuple[dict[str, Any], ...]:
    """Return the messages as chat templates expect them.

    Message contents become strings, or lists if they have images. The arguments of tool calls are
    parsed, unless they aren't valid JSON or are too complex.
    """
    budget = JsonBudget()
    plain = tuple(_template_message(message, budget) for message in messages)
    names = {c["id"]: c["function"]["name"] for m in plain for c in m.get("tool_calls", ())}
    for message in plain:
        if name := names.get(message.get("tool_call_id")):
            message.setdefault("name", name)  # some templates show which tool answers
    return plain


def tool_use(request: ChatCompletionRequest, form: ToolForm | None) -> ToolUse | None:
    """Return the tools that the model may call, or None if it may not call any tool.

    `form` is the syntax in which the model writes calls. It is None if the model's chat template
    doesn't support tools.

    Raises:
        JobFailed: two tools have the same name, `tool_choice` names a tool that isn't in `tools`,
            or the model's chat template doesn't support tools.
    """
    choice, mode = request.tool_choice, mode_of(request.tool_choice)
    _check_choice(choice, mode, [tool.function.name for tool in request.tools or ()])
    tools = tuple(map(_template_tool, _allowed(request.tools or (), choice)))
    if not tools or mode == "none":
        return None
    if form is None:
        message = (
            "tools: this model's chat template doesn't support tools; leave them out, or send "
            'tool_choice "none"'
        )
        raise failed(ErrorCode.UNSUPPORTED_PARAMETER, message, "tools")
    return ToolUse(
        tools=tools,
        form=form,
        choice=ToolChoice.AUTO if mode == "auto" else ToolChoice.REQUIRED,
        name=choice.function.name if isinstance(choice, NamedTool) else None,
        is_parallel=_is_parallel(request.parallel_tool_calls, form),
    )


def _is_parallel(asked: bool | None, form: ToolForm) -> bool:
    """Return whether an answer may contain several calls, as `parallel_tool_calls` asks.

    By default, it may contain several, except in the generic form. Models that weren't trained for
    this form tend to repeat their call until they reach the token limit.
    """
    return form is not ToolForm.GENERIC if asked is None else asked


def _template_message(message: Message, budget: JsonBudget) -> dict[str, Any]:
    # Chat templates only know "system", which OpenAI's newer models call "developer".
    role = "system" if message.role == "developer" else message.role
    plain: dict[str, Any] = {"role": role, "content": _template_content(message)}
    if message.name is not None:
        plain["name"] = message.name
    if isinstance(message, ToolMessage):
        plain["tool_call_id"] = message.tool_call_id
    if isinstance(message, AssistantMessage):
        if message.tool_calls:
            plain["tool_calls"] = [_template_call(call, budget) for call in message.tool_calls]
        if reasoning := message.reasoning_content or message.reasoning:
            plain["reasoning_content"] = reasoning
    return plain


def _template_content(message: Message) -> str | list[dict[str, Any]]:
    if not any(isinstance(part, ImagePart) for part in message.content):
        return message.text
    return [
        dict(PLACE)
        if isinstance(part, ImagePart)
        else {"type": "text", "text": (part if isinstance(part, str) else part.content) or ""}
        for part in message.content
    ]


def _template_tool(tool: Tool) -> dict[str, Any]:
    """Return a tool as chat templates show it, without unknown fields and without `strict`."""
    shown = set(FunctionDefinition.model_fields) - {"strict"}
    function = tool.function.model_dump(include=shown, exclude_unset=True)
    return {"type": tool.type, "function": function}


def _allowed(tools: Sequence[Tool], choice: ToolChoiceValue) -> Sequence[Tool]:
    if not isinstance(choice, AllowedTools):
        return tools
    names = {named.function.name for named in choice.allowed_tools.tools}
    return [tool for tool in tools if tool.function.name in names]


def _template_call(call: ToolCall, budget: JsonBudget) -> dict[str, Any]:
    """Return the call in the form that chat templates expect, with parsed arguments.

    Arguments stay text if they aren't valid JSON, are nested too deeply, or exceed the budget that
    all calls share. They aren't refused, because the client might only repeat what the model wrote.
    """
    try:
        text = (call.function.arguments or "{}").encode()
        budget.spend(text)
        arguments = orjson.loads(text)
    except ValueError:
        arguments = call.function.arguments
    function = {"name": call.function.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}


def _check_choice(choice: ToolChoiceValue, mode: str, names: Sequence[str]) -> None:
    if repeated := {name for name, number in Counter(names).items() if number > 1}:
        raise invalid_value(f"tools: several have the name {min(repeated)!r}; rename one", "tools")
    if not names and (mode == "required" or isinstance(choice, AllowedTools)):
        raise invalid_value("tool_choice: is only allowed with tools", "tool_choice")
    named = choice.allowed_tools.tools if isinstance(choice, AllowedTools) else ()
    for tool in (choice,) if isinstance(choice, NamedTool) else named:
        if tool.function.name not in names:
            message = f"tool_choice: there is no tool {tool.function.name[:100]!r} in tools"
            raise invalid_value(message, "tool_choice")
