"""Joins the contents of messages, and moves later system messages into user messages. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

Message = Mapping[str, Any]


def joined(*contents: Any, gap: str = "\n") -> Any:
    """Join contents, each a text or a list of parts. Empty contents are left out.

    If all contents are texts, return one text with `gap` between them. Otherwise return a list of
    parts.
    """
    contents = tuple(filter(None, contents))
    if all(isinstance(content, str) for content in contents):
        return gap.join(contents)
    parts = list[Any]()
    for content in contents:
        parts += [{"type": "text", "text": content}] if isinstance(content, str) else content
    return parts


def has_later_system(messages: Sequence[Message]) -> bool:
    """Return whether a message other than the first is a system message."""
    return any(message["role"] == "system" for message in messages[1:])


def without_later_system(messages: Sequence[Message]) -> list[Message]:
    """Join the system messages at the start, and turn later system messages into user messages.

    A message that was turned is joined to adjacent user messages, because many templates require
    that the roles alternate.
    """
    moved = list[Message]()
    joins_next = False
    for message in messages:
        role, last = message["role"], moved[-1]["role"] if moved else None
        is_later = role == "system" and last not in (None, "system")
        if is_later:
            message = {**message, "role": "user"}
        joins = last == message["role"] and (is_later or joins_next or role == "system")
        joins_next = is_later
        if joins:
            content = joined(moved[-1]["content"], message["content"], gap="\n\n")
            moved[-1] = {**moved[-1], "content": content}
        else:
            moved.append(message)
    return moved
