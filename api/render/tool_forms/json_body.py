"""Tool calls whose arguments are JSON. Pure.

`families.py` selects the reader for each form of tool calls, and passes it the JSON types of the
tool's parameters. The readers here ignore these types, because JSON states the types of its values.
"""

import re
from collections.abc import Collection

import orjson

from api.render.tool_forms.body import Bracketed, Head, Types, loads

_BEFORE_NAME = r'\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*'
_NAMED = re.compile(_BEFORE_NAME + r'("(?:[^"\\]|\\.)*")')
"""Matches the start of a call's object, including the tool's name."""
_NAME_OPEN = re.compile(_BEFORE_NAME + r'"([^"]*)')
"""Matches the start of a call's object if the text ends in the middle of the tool's name."""
_HEAD = re.compile(_NAMED.pattern + r'\s*,\s*"(?:arguments|parameters)"\s*:\s*')
"""Matches the start of a call's object, up to the arguments.

Only calls that start in this form can be emitted before they are complete.
"""
_STARTS = ('{"name":"', '{"type":"function","name":"')
"""Starts of a call's object, up to the tool's name, without whitespace."""
_WHITESPACE = re.compile(r"\s+")
_OUTSIDE_STRINGS = frozenset("0123456789+-.eE,: \t\n\r" + "true" + "false" + "null")
_CLOSES = {"}": "{", "]": "["}


class _JsonObject(Bracketed):
    """Text of one JSON object, with the indexes of the first object directly inside it.

    Brackets must match, and only characters of JSON's syntax may occur outside strings. The rest of
    JSON's grammar isn't checked.
    """

    def __init__(self) -> None:
        super().__init__()
        self._inner_start: int | None = None
        """Index at which the first nested object starts; None until it starts."""
        self._inner_end: int | None = None
        """Index after the end of the first nested object; None until it ends."""

    def _accept_outside(self, char: str, index: int) -> bool:
        if char in "{[":
            if char == "{" and len(self._open) == 1 and self._inner_start is None:
                self._inner_start = index
            self._open.append(char)
            return True
        return self._leave(char, index) if char in _CLOSES else char in _OUTSIDE_STRINGS

    def _leave(self, char: str, index: int) -> bool:
        is_matching = self._open.pop() == _CLOSES[char]
        if len(self._open) == 1 and self._inner_start is not None and self._inner_end is None:
            self._inner_end = index + 1
        return is_matching


class NamedObject(_JsonObject):
    """A call that is a JSON object with the tool's name and its arguments."""

    def __init__(self, name: str, types: Types) -> None:
        super().__init__()
        self._name: str | None = None
        self._is_head_read = False

    def head(self) -> Head | None:
        """Return the tool's name and the start of the arguments, if `_HEAD` matches."""
        start = self._inner_start
        if start is None:
            return None
        if not self._is_head_read:
            self._is_head_read = True
            found = _HEAD.fullmatch(self.text(), 0, start)
            name = loads(found[1]) if found else None
            self._name = name if isinstance(name, str) else None
        return None if self._name is None else Head(self._name, start)

    def arguments(self, start: int) -> str:
        """Return the text of the arguments so far, from the index `start` on."""
        end, text = self._inner_end, self.text(start)
        return text if end is None else text[: max(0, end - start)]

    def call(self) -> tuple[str, str] | None:
        """Return the tool name and arguments in a complete object, or None if it isn't a call."""
        call = loads(self.text())
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            return None
        arguments = call.get("arguments", call.get("parameters"))
        if isinstance(arguments, str):  # some models write the arguments as a JSON string
            return (call["name"], arguments) if isinstance(loads(arguments), dict) else None
        if not isinstance(arguments, dict | None):
            return None
        if head := self.head():  # keeps the arguments as the model wrote them
            return call["name"], self.arguments(head.start)
        try:
            return call["name"], orjson.dumps(arguments or {}).decode()
        except orjson.JSONEncodeError:  # nested more deeply than orjson can write
            return None

    def cut(self) -> tuple[str, str] | None:
        """Return the name, and the arguments so far, of a call that isn't complete.

        Returns None if the name isn't complete, or isn't at the start of the object.
        """
        found = _NAMED.match(self.text())
        name = loads(found[1]) if found else None
        if not isinstance(name, str):
            return None
        head = self.head()
        return name, self.arguments(head.start) if head else ""


class BareObject(_JsonObject):
    """Arguments of a call as a JSON object. The tool's name stands before the object."""

    def __init__(self, name: str, types: Types) -> None:
        super().__init__()
        self._name = name

    def head(self) -> Head | None:
        """Return the tool's name, which is known before the object starts, and the index 0."""
        return Head(self._name, 0)

    def call(self) -> tuple[str, str] | None:
        """Return the name and the object, or None if the object isn't valid JSON."""
        text = self.text()
        return (self._name, text) if isinstance(loads(text), dict) else None

    def cut(self) -> tuple[str, str]:
        """Return the name and the arguments so far of a call that isn't complete."""
        return self._name, self.text()


def may_be_call(text: str, names: Collection[str], *, is_marked: bool) -> bool:
    """Return whether an object that starts with `text` can become a call of one of these tools.

    `is_marked` states that a marker of tool calls precedes the object. Without a marker, the object
    could also be JSON that the answer contains for the user.
    """
    if found := _NAME_OPEN.fullmatch(text):
        return any(name.startswith(found[1]) for name in names)
    start = _WHITESPACE.sub("", text)
    return is_marked or any(whole.startswith(start) for whole in _STARTS)
