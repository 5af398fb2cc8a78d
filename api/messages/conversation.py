"""Translates messages and tools of /v1/messages into the format of chat requests. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import orjson

from api.requests.object_kinds import refuse, string_of
from shared.errors import ErrorCode

_SERVER_CALLS = ("server_tool_use", "mcp_tool_use")
_SERVER_RESULT = "_tool_result"
"""Suffix of a block's type if the block has the result of a tool that Anthropic's servers ran."""

ChatMessage = dict[str, Any]
ChatPart = str | dict[str, Any]
"""A part of a chat message's content. Strings are text."""


def chat_messages(system: Any, messages: Sequence[Any]) -> list[ChatMessage]:
    """Return the chat messages of a conversation.

    Raises:
        JobFailed: a message is invalid, or has a block that isn't supported. The error names it.
    """
    is_given = system not in (None, "", [])  # 0 and false count as given, so they are refused
    first = [{"role": "system", "content": _text(system, "system")}] if is_given else []
    return [*first, *(m for i, given in enumerate(messages) for m in _translated(given, i))]


def left_out_blocks(messages: Sequence[Any]) -> Iterator[str]:
    """Yield the paths of the blocks of assistant messages that `chat_messages` leaves out.

    Calls and results of tools that Anthropic's servers ran are left out, because they are encrypted
    or have forms of their own.
    """
    for i, message in enumerate(messages):
        content = message.get("content") if isinstance(message, dict) else None
        for j, block in enumerate(content if isinstance(content, list) else ()):
            kind = block.get("type") if isinstance(block, dict) else None
            if isinstance(kind, str) and _is_of_server(kind):
                yield f"messages[{i}].content[{j}]"


def _is_of_server(kind: str) -> bool:
    return kind in _SERVER_CALLS or kind.endswith(_SERVER_RESULT)


def chat_tools(tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the tools of a chat request.

    Raises:
        JobFailed: a tool has a type that isn't supported. The error names it.
    """
    return [_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools)]


def _tool(tool: Mapping[str, Any], path: str) -> dict[str, Any]:
    kind = tool.get("type")
    if kind not in (None, "custom"):
        message = f"tools of type {kind!r:.60} aren't supported; send tools with an input_schema"
        refuse(f"{path}.type", message, ErrorCode.UNSUPPORTED_PARAMETER)
    function = {"name": tool.get("name"), "parameters": tool.get("input_schema")}
    for name in ("description", "strict"):
        if tool.get(name) is not None:
            function[name] = tool[name]
    return {"type": "function", "function": function}


def _translated(message: Any, index: int) -> Iterator[ChatMessage]:
    path = f"messages[{index}]"
    role = message.get("role") if isinstance(message, dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    match role:
        case "assistant":
            yield _assistant(_blocks(content, f"{path}.content"))
        case "user":
            yield from _user(_blocks(content, f"{path}.content"))
        case "system":
            yield {"role": "system", "content": _text(content, f"{path}.content")}
        case _:
            refuse(f"{path}.role", "must be user or assistant")


def _assistant(blocks: list[tuple[str, Mapping[str, Any]]]) -> ChatMessage:
    texts, thoughts, calls = [], [], []
    for path, block in blocks:
        match block["type"]:
            case "text":
                texts.append(string_of(block, "text", path))
            case "thinking":
                thoughts.append(string_of(block, "thinking", path))
            case "tool_use":
                calls.append(_call(block, path))
            case kind if kind != "redacted_thinking" and not _is_of_server(kind):
                _refuse_block(kind, path)
    message: ChatMessage = {"role": "assistant", "content": "".join(texts)}
    message |= {"reasoning_content": "".join(thoughts)} if thoughts else {}
    return message | ({"tool_calls": calls} if calls else {})


def _user(blocks: list[tuple[str, Mapping[str, Any]]]) -> Iterator[ChatMessage]:
    """Yield a tool message for each tool result, and a user message for the blocks between them."""
    parts: list[ChatPart] = []
    for path, block in blocks:
        if block["type"] != "tool_result":
            parts.append(_part(block, path))
            continue
        if parts:
            yield {"role": "user", "content": _content(parts)}
            parts = []
        answered = string_of(block, "tool_use_id", path)
        found = _blocks(block.get("content") or "", f"{path}.content")
        content = _content([_part(each, each_path) for each_path, each in found])
        yield {"role": "tool", "tool_call_id": answered, "content": content}
    if parts or not blocks:
        yield {"role": "user", "content": _content(parts)}


def _content(parts: list[ChatPart]) -> str | list[ChatPart]:
    """Return a chat message's content from its parts.

    Content without images is one string, with line breaks between the parts.
    """
    texts = [part for part in parts if isinstance(part, str)]
    return "\n".join(texts) if len(texts) == len(parts) else parts


def _part(block: Mapping[str, Any], path: str) -> ChatPart:
    if block["type"] == "text":
        return string_of(block, "text", path)
    if block["type"] != "image":
        _refuse_block(block["type"], path)
    return {"type": "image_url", "image_url": {"url": _image_url(block.get("source"), path)}}


def _image_url(source: Any, path: str) -> str:
    path, kind = f"{path}.source", source.get("type") if isinstance(source, dict) else None
    if kind not in ("base64", "url"):
        refuse(path, "must be an object with the type base64 or url")
    if kind == "url":
        return string_of(source, "url", path)
    media_type = string_of(source, "media_type", path)
    return f"data:{media_type};base64,{string_of(source, 'data', path)}"


def _call(block: Mapping[str, Any], path: str) -> dict[str, Any]:
    arguments = block.get("input")
    if not isinstance(arguments, dict):
        refuse(f"{path}.input", "must be an object")
    function = {
        "name": string_of(block, "name", path),
        "arguments": orjson.dumps(arguments).decode(),
    }
    return {"id": string_of(block, "id", path), "type": "function", "function": function}


def _text(content: Any, path: str) -> str:
    """Join the text blocks of `content` into one string, with line breaks between the blocks."""
    texts = []
    for block_path, block in _blocks(content, path):
        if block["type"] != "text":
            _refuse_block(block["type"], block_path)
        texts.append(string_of(block, "text", block_path))
    return "\n".join(texts)


def _blocks(content: Any, path: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the blocks of a message's content with their paths. Each block has a type."""
    if isinstance(content, str):
        return [(path, {"type": "text", "text": content})]
    if not isinstance(content, list):
        refuse(path, "must be a string or a list of blocks")
    blocks = [(f"{path}[{index}]", block) for index, block in enumerate(content)]
    for block_path, block in blocks:
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            refuse(block_path, "must be an object with a type")
    return blocks


def _refuse_block(kind: str, path: str) -> NoReturn:
    reason = f"blocks of type {kind[:60]!r} aren't supported here"
    refuse(f"{path}.type", reason, ErrorCode.UNSUPPORTED_PARAMETER)
