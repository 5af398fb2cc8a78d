"""Input items of /v1/responses: their validation, and the chat messages that they form. Pure.

A checked item has only the fields that the conversation needs, so that it can be stored.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from api.requests.object_kinds import refuse, string_of
from api.responses.tools import joined_name
from shared.errors import ErrorCode
from shared.protocol.answers import AnswerSpec

ROLES = ("user", "assistant", "system", "developer")
TEXT_PARTS = {
    "input_text": "text",
    "output_text": "text",
    "text": "text",
    "refusal": "refusal",
}
"""For each type of text part, the field that has its text."""
IMAGE_PART = "input_image"
_UNSUPPORTED_PARTS = ("input_file", "input_audio", "computer_screenshot")

Item = dict[str, Any]
Content = str | list[Item]
"""Text, or text and images in the form of a message's parts."""


def checked_items(given: Any) -> list[Item]:
    """Return the field `input` as checked items.

    Raises:
        JobFailed: the field is invalid, or has an item or a part that isn't supported. The error
            names it.
    """
    if isinstance(given, str):
        return [_message("user", given)]
    if not isinstance(given, list) or not given:
        refuse("input", "must be a string, or a list of at least one item")
    return [_checked(item, f"input[{index}]") for index, item in enumerate(given)]


def stored_input(spec: AnswerSpec) -> list[Item] | None:
    """Return the input items of a response, or None if it isn't stored."""
    return (spec.request or {}).get("input")


def chat_messages(items: Iterable[Item]) -> list[dict[str, Any]]:
    """Convert validated items to chat messages.

    Consecutive items of reasoning, text and calls become one message of the assistant.
    """
    messages: list[dict[str, Any]] = []
    for item in items:
        new = _chat_message(item)
        if messages and _belongs_to(new, messages[-1]):
            _merge(messages[-1], new)
        else:
            messages.append(new)
    return messages


def _checked(item: Any, path: str) -> Item:
    if not isinstance(item, dict):
        refuse(path, "must be an object")
    kind = item.get("type", "message")
    if not isinstance(kind, str):
        refuse(f"{path}.type", "must be a string")
    if kind == "message":
        return _checked_message(item, path)
    if kind == "function_call":
        fields = ("call_id", "name", "arguments")
        call = {"type": kind, **{name: string_of(item, name, path) for name in fields}}
        if item.get("namespace") is not None:
            call["name"] = joined_name(string_of(item, "namespace", path), call["name"])
        return call
    if kind == "function_call_output":
        output = _content(item.get("output"), f"{path}.output")
        return {"type": kind, "call_id": string_of(item, "call_id", path), "output": output}
    if kind != "reasoning":
        message = f"items of type {kind[:60]!r} aren't supported"
        refuse(f"{path}.type", message, ErrorCode.UNSUPPORTED_PARAMETER)
    return {"type": kind, "summary": [], "content": _reasoning(item, path)}


def _checked_message(item: Mapping[str, Any], path: str) -> Item:
    role = item.get("role")
    if role not in ROLES:
        refuse(f"{path}.role", f"must be one of {', '.join(ROLES)}")
    return _message(str(role), _content(item.get("content"), f"{path}.content"))


def _message(role: str, content: Content) -> Item:
    kind = "output_text" if role == "assistant" else "input_text"
    parts = [{"type": kind, "text": content}] if isinstance(content, str) else content
    return {"type": "message", "role": role, "content": parts}


def _content(content: Any, path: str) -> Content:
    """Return checked content. Without images it is one string, with line breaks between parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        refuse(path, "must be a string or a list of text parts")
    parts = [_part(part, f"{path}[{index}]") for index, part in enumerate(content)]
    if any(part["type"] == IMAGE_PART for part in parts):
        return parts
    return "\n".join(part["text"] for part in parts)


def _part(part: Any, path: str) -> Item:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in _UNSUPPORTED_PARTS:
        message = f"parts of type {kind!r} aren't supported; send parts of type input_text or "
        refuse(f"{path}.type", f"{message}{IMAGE_PART}", ErrorCode.UNSUPPORTED_PARAMETER)
    if kind == IMAGE_PART:
        return {"type": kind, "image_url": string_of(part, "image_url", path), "detail": "auto"}
    if not isinstance(kind, str) or kind not in TEXT_PARTS:
        kinds = ", ".join((*TEXT_PARTS, IMAGE_PART))
        refuse(path, f"must be an object with one of the types {kinds}")
    return {"type": "input_text", "text": string_of(part, TEXT_PARTS[kind], path)}


def _reasoning(item: Mapping[str, Any], path: str) -> list[Item]:
    """Return the text parts of a reasoning item. Summaries and encrypted content are left out."""
    content = item.get("content")
    if content is None:
        return []
    if not isinstance(content, list):
        refuse(f"{path}.content", "must be a list")
    parts = []
    for index, part in enumerate(content):
        if not isinstance(part, dict):
            refuse(f"{path}.content[{index}]", "must be an object")
        text = string_of(part, "text", f"{path}.content[{index}]")
        parts.append({"type": "reasoning_text", "text": text})
    return parts


def _chat_message(item: Item) -> dict[str, Any]:
    match item["type"]:
        case "message":
            return {"role": item["role"], "content": _chat_content(item["content"])}
        case "function_call":
            function = {"name": item["name"], "arguments": item["arguments"]}
            call = {"id": item["call_id"], "type": "function", "function": function}
            return {"role": "assistant", "tool_calls": [call]}
        case "function_call_output":
            output = _chat_content(item["output"])
            return {"role": "tool", "tool_call_id": item["call_id"], "content": output}
    text = "\n".join(part["text"] for part in item["content"])
    return {"role": "assistant", "reasoning_content": text}


def _chat_content(content: Content) -> Any:
    if isinstance(content, str):
        return content
    if not any(part["type"] == IMAGE_PART for part in content):
        return "\n".join(part["text"] for part in content)
    return [
        {"type": "image_url", "image_url": {"url": part["image_url"]}}
        if part["type"] == IMAGE_PART
        else part["text"]
        for part in content
    ]


def _belongs_to(new: Mapping[str, Any], last: Mapping[str, Any]) -> bool:
    """Return whether the message `new` continues the message `last`, so that both become one.

    A message of the assistant has reasoning, then text, then tool calls.
    """
    if not new["role"] == last["role"] == "assistant":
        return False
    if "tool_calls" in new:
        return True
    return "content" in new and not {"content", "tool_calls"} & last.keys()


def _merge(last: dict[str, Any], new: Mapping[str, Any]) -> None:
    if "tool_calls" in last:  # only more calls can follow calls
        last["tool_calls"].extend(new["tool_calls"])
    else:
        last.update(new)
