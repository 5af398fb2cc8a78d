"""Translates messages and tools of /api/chat into the format of chat requests. Pure.

Each message becomes one chat message, so paths of messages stay the same.
"""

from collections import OrderedDict, defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from api.requests.object_kinds import refuse, string_of

ChatMessage = dict[str, Any]
_TYPES = {"/9j/": "jpeg", "R0lG": "gif", "UklG": "webp"}
"""Type of an image, by the first four characters of its file in base64. Other images are PNG."""


class _Calls:
    """Calls of tools that no message has answered yet, oldest first.

    In Ollama's API, calls need no ids, because a message with a result names the tool.
    """

    def __init__(self) -> None:
        self._open = OrderedDict[str, None]()
        """Ids of the calls that no message has answered yet, oldest first."""
        self._by_name = defaultdict[str, deque[str]](deque)
        """For each tool, the ids of its calls, oldest first. Some of these calls may be
        answered."""

    def add(self, call_id: str, name: str) -> None:
        """Add a call of the tool `name`."""
        self._open[call_id] = None
        self._by_name[name].append(call_id)

    def answered(self, call_id: Any, name: str) -> str:
        """Remove the call that a message answers, and return the id of the call.

        The message answers the open call with this id. If there is none, it answers the oldest open
        call of this tool, or else the oldest open call. If no call is open, no call is removed.
        """
        is_text = isinstance(call_id, str)
        found = call_id if is_text and call_id in self._open else self._first_of(name)
        found = found or next(iter(self._open), None)
        if found is None:
            return call_id if is_text else "call"
        del self._open[found]
        return found

    def _first_of(self, name: str) -> str | None:
        waiting = self._by_name[name]
        while waiting and waiting[0] not in self._open:
            waiting.popleft()
        return waiting[0] if waiting else None


def chat_messages(messages: Sequence[Any]) -> list[ChatMessage]:
    """Return the chat messages of a conversation.

    Raises:
        JobFailed: a message is invalid. The error names it.
    """
    calls = _Calls()
    return [_message(message, f"messages[{i}]", calls) for i, message in enumerate(messages)]


def prompt_messages(prompt: str, system: str | None, images: Sequence[str]) -> list[ChatMessage]:
    """Return the chat messages of a request to /api/generate."""
    first = [{"role": "system", "content": system}] if system else []
    return [*first, {"role": "user", "content": _content(prompt, images)}]


def chat_tools(tools: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Return the tools in the form of a chat request. Ollama's clients may omit their type."""
    return [{"type": "function", **tool} for tool in tools] if tools else None


def _message(message: Any, path: str, calls: _Calls) -> ChatMessage:
    if not isinstance(message, dict):
        refuse(path, "must be an object")
    role = string_of(message, "role", path).lower()
    text = message.get("content")
    if not isinstance(text, str | None):
        refuse(f"{path}.content", "must be a string; send images in the field images")
    content = _content(text or "", _images(message.get("images"), path))
    translated: ChatMessage = {"role": role, "content": content}
    if role == "assistant":
        translated |= _answer_fields(message, path, calls)
    elif role == "tool":
        name = string_of(message, "tool_name", path) if message.get("tool_name") else ""
        answered = calls.answered(message.get("tool_call_id"), name)
        translated |= {"tool_call_id": answered, **({"name": name} if name else {})}
    return translated


def _answer_fields(message: Mapping[str, Any], path: str, calls: _Calls) -> dict[str, Any]:
    """Return the fields that have the thinking and the tool calls of an earlier answer."""
    fields: dict[str, Any] = {}
    if message.get("thinking"):
        fields["reasoning_content"] = string_of(message, "thinking", path)
    called = message.get("tool_calls") or []
    if not isinstance(called, list):
        refuse(f"{path}.tool_calls", "must be a list")
    if called:
        paths = (f"{path}.tool_calls[{i}]" for i in range(len(called)))
        fields["tool_calls"] = [
            _call(call, call_path, calls) for call, call_path in zip(called, paths, strict=True)
        ]
    return fields


def _call(call: Any, path: str, calls: _Calls) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        refuse(f"{path}.function", "must be an object")
    arguments = function.get("arguments")
    if not isinstance(arguments, dict | None):
        refuse(f"{path}.function.arguments", "must be an object")
    name = string_of(function, "name", f"{path}.function")
    call_id = string_of(call, "id", path) if call.get("id") else path
    calls.add(call_id, name)
    written = {"name": name, "arguments": orjson.dumps(arguments or {}).decode()}
    return {"id": call_id, "type": "function", "function": written}


def _images(images: Any, path: str) -> Sequence[str]:
    if images is None:
        return ()
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        refuse(f"{path}.images", "must be a list of strings")
    return images


def _content(text: str, images: Sequence[str]) -> str | list[dict[str, Any]]:
    """Return a chat message's content. As in Ollama, images come before the text."""
    if not images:
        return text
    shown = [{"type": "image_url", "image_url": {"url": _data_url(image)}} for image in images]
    return [*shown, {"type": "text", "text": text}] if text else shown


def _data_url(image: str) -> str:
    """Return an image as a data URL. `image` is base64, or already a data URL."""
    if image.startswith("data:"):
        return image
    return f"data:image/{_TYPES.get(image[:4], 'png')};base64,{image}"
