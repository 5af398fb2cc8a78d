"""Joins the chunks of a streamed chat to the message that they contain."""

from collections.abc import Iterable
from typing import Any


def joined_choice(chunks: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the message and the finish reason of a stream with one choice."""
    message: dict[str, Any] = {"content": None, "tool_calls": None}
    finish = None
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        assert finish is None, "the stream goes on after its end"
        finish = choice["finish_reason"]
        for field, value in choice["delta"].items():
            if field == "tool_calls":
                message[field] = message[field] or []
                _add_calls(message[field], value)
            elif value is not None:
                message[field] = (message.get(field) or "") + value
    return normal({"message": message, "finish_reason": finish})


def normal(choice: dict[str, Any]) -> dict[str, Any]:
    """Return the message and the finish reason of a choice. Texts that are empty are None."""
    names = ("content", "reasoning_content", "reasoning", "tool_calls", "role")
    message = {name: choice["message"].get(name) or None for name in names}
    return {"message": message, "finish_reason": choice["finish_reason"]}


def _add_calls(calls: list[dict[str, Any]], parts: Iterable[dict[str, Any]]) -> None:
    for part in parts:
        if part["index"] == len(calls):
            calls.append({name: part[name] for name in ("id", "type", "function")})
        else:
            assert part["index"] == len(calls) - 1
            calls[-1]["function"]["arguments"] += part["function"]["arguments"]
