"""Tool calls whose arguments are JSON. Pure."""

import re

import orjson

from api.render.tool_forms.body import Head, loads
from api.render.tool_forms.json_scan import ObjectScan

_HEAD = re.compile(
    r'\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*'
    r'"(?:arguments|parameters)"\s*:\s*'
)
"""Start of a call's object, up to the arguments.

Only calls that start in this form can be emitted before they are complete.
"""


class _JsonObject:
    """Text of one JSON object."""

    def __init__(self) -> None:
        self._scan = ObjectScan()

    @property
    def is_closed(self) -> bool:
        """Whether the object is complete."""
        return self._scan.is_closed

    @property
    def is_broken(self) -> bool:
        """Whether text has arrived that can't belong to the object."""
        return self._scan.is_broken

    def feed(self, text: str) -> str:
        """Read more text, and return the part of `text` after the object."""
        return self._scan.feed(text)

    def text(self, start: int = 0) -> str:
        """Return the object's text so far from the index `start` on."""
        return self._scan.text.since(start)


class NamedObject(_JsonObject):
    """A call that is a JSON object with the tool's name and its arguments."""

    def __init__(self) -> None:
        super().__init__()
        self._name: str | None = None
        self._is_head_read = False

    def head(self) -> Head | None:
        """Return the name, if `_HEAD` matches the text before the arguments."""
        start = self._scan.inner_start
        if start is None:
            return None
        if not self._is_head_read:
            self._is_head_read = True
            found = _HEAD.fullmatch(self.text(), 0, start)
            name = loads(found[1]) if found else None
            self._name = name if isinstance(name, str) else None
        return None if self._name is None else Head(self._name, start)

    def arguments(self, start: int) -> str:
        """Return the arguments' text so far from index `start` of the object on."""
        end, text = self._scan.inner_end, self._scan.text.since(start)
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


class BareObject(_JsonObject):
    """A call whose name precedes a JSON object with its arguments."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def head(self) -> Head | None:
        """Return the name, which is known before the object starts."""
        return Head(self._name, 0)

    def arguments(self, start: int) -> str:
        """Return the object's text so far from the index `start` on."""
        return self.text(start)

    def call(self) -> tuple[str, str] | None:
        """Return the name and the object, or None if the object isn't valid JSON."""
        text = self.text()
        return (self._name, text) if isinstance(loads(text), dict) else None
