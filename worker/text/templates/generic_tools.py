"""Describes tools to models whose chat template doesn't show tools. Pure.

The tools, the form of calls, earlier calls and the calls' results become text in system, user and
assistant messages.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from shared.protocol.tools import HERMES_CLOSE, HERMES_OPEN
from worker.text.templates.contents import Message, joined

RESULT_OPEN, RESULT_CLOSE = "<tool_response>", "</tool_response>"
_FORM = (
    "To call a tool, write exactly this, with the tool's name and with arguments that match its "
    f"parameters:\n{HERMES_OPEN}\n"
    '{"name": "the name of the tool", "arguments": {"name of a parameter": "value"}}'
    f"\n{HERMES_CLOSE}\nYou will then get the result between {RESULT_OPEN} and {RESULT_CLOSE}. "
    "Call a tool only if the answer needs one."
)


def instructions(tools: Sequence[Mapping[str, Any]]) -> str:
    """Return the text that describes the tools and the form of calls."""
    lines = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    return f"You can call tools. Each of these lines describes one as JSON:\n{lines}\n\n{_FORM}"


def with_tools_in_system(messages: Sequence[Message], text: str) -> list[Message]:
    """Return the messages with `text` at the end of the first system message, or in a new one."""
    plain = _plain(messages)
    if plain and plain[0]["role"] == "system":
        return [_extended(plain[0], after=text), *plain[1:]]
    return [{"role": "system", "content": text}, *plain]


def with_tools_in_question(messages: Sequence[Message], text: str) -> list[Message]:
    """Return the messages with `text` before the first user message, or in a new user message."""
    plain = _plain(messages)
    for i, message in enumerate(plain):
        if message["role"] == "user":
            return [*plain[:i], _extended(message, before=text), *plain[i + 1 :]]
    return [{"role": "user", "content": text}, *plain]


def _plain(messages: Sequence[Message]) -> list[Message]:
    """Return the messages, with tool calls and their results written as text.

    Results become user messages. A user message that follows them is joined to them, because many
    templates require that the roles alternate.
    """
    plain = list[Message]()
    follows_result = False
    for message in messages:
        if message["role"] == "tool":
            content = joined(RESULT_OPEN, message["content"], RESULT_CLOSE)
            message = {"role": "user", "content": content}
            joins, follows_result = follows_result, True
        else:
            joins, follows_result = follows_result and message["role"] == "user", False
        if joins:
            content = joined(plain[-1]["content"], message["content"])
            plain[-1] = {**plain[-1], "content": content}
        else:
            plain.append(_without_calls(message))
    return plain


def _without_calls(message: Message) -> Message:
    calls = message.get("tool_calls")
    if not calls:
        return message
    written = (f"{HERMES_OPEN}\n{_call(call['function'])}\n{HERMES_CLOSE}" for call in calls)
    fields = {name: value for name, value in message.items() if name != "tool_calls"}
    return {**fields, "content": joined(message.get("content"), *written)}


def _call(function: Mapping[str, Any]) -> str:
    arguments = function["arguments"]
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return f'{{"name": {json.dumps(function["name"])}, "arguments": {arguments}}}'


def _extended(message: Message, *, before: str = "", after: str = "") -> Message:
    return {**message, "content": joined(before, message["content"], after, gap="\n\n")}
