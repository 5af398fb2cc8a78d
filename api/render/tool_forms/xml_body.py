"""Tool calls whose arguments are written as tags with a key and a value. Pure."""

import re
from collections.abc import Callable, Set
from dataclasses import dataclass

import orjson

from api.render.tool_forms.body import Head, TextParts, Types, loads
from api.render.tool_forms.pattern import SPACE, Match, Pattern, Unfinished, match, unfinished_at

MAX_KEY = 256
"""Maximum number of characters in the name of a parameter."""
_KEY = re.compile(rf"[^<>\n]{{1,{MAX_KEY}}}")
_IN_STRING = re.compile(r'(?:[^"\\]|\\.)*', re.DOTALL)
_PYTHON_WORDS = {"True": "true", "False": "false", "None": "null"}


@dataclass(frozen=True, slots=True)
class Tags:
    """Tags around the keys and values of calls in one form."""

    key_open: str
    key_close: str
    value_open: str
    """Tag between a key and its value, after optional whitespace; empty if there is none."""
    value_close: str
    end: str
    """Text after the last parameter."""


QWEN3_CODER = Tags("<parameter=", ">", "", "</parameter>", "</function>")
GLM45 = Tags("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "</tool_call>")


class XmlBody:
    """Parameters of a call. The tool's name stands before them and is already known.

    The call is emitted when it is complete, because the JSON type of a value depends on its end.
    """

    def __init__(self, tags: Tags, name: str, types: Types) -> None:
        """Create an empty body of a call of the tool `name`. `tags` are the markers of its form."""
        self.is_closed = False
        self.is_broken = False
        self._name, self._tags, self._types = name, tags, types
        self._read, self._pending = TextParts(), ""
        self._key, self._value = "", TextParts()
        self._members: dict[str, str] = {}
        self._step: Callable[[], int] = self._read_tag

    def feed(self, text: str) -> str:
        """Read more text, and return the rest that isn't part of the call.

        The rest starts after the call's end, or at an invalid character. It is empty while more
        text of the call can follow.
        """
        self._pending += text
        while not (self.is_closed or self.is_broken):
            length = self._step()
            if not length:
                break
            self._read.append(self._pending[:length])
            self._pending = self._pending[length:]
        if not (self.is_closed or self.is_broken):
            return ""
        rest, self._pending = self._pending, ""
        return rest

    def text(self, start: int = 0) -> str:
        """Return the text of the body so far, from the index `start` on."""
        return (str(self._read) + self._pending)[start:]

    def head(self) -> Head | None:
        """Return None, because the call is emitted as a whole."""
        return None

    def arguments(self, start: int) -> str:
        """Return an empty text, because the call is emitted as a whole."""
        return ""

    def call(self) -> tuple[str, str]:
        """Return the name, and the values as a JSON object."""
        members = (f"{orjson.dumps(key).decode()}: {v}" for key, v in self._members.items())
        return self._name, "{" + ", ".join(members) + "}"

    def cut(self) -> tuple[str, str]:
        """Return the name of an incomplete call, and the start of its arguments as JSON.

        An incomplete last value is included only if it is a string, because a value of
        another type depends on its end.
        """
        name, text = self.call()
        start = text.removesuffix("}")
        is_string = self._key not in self._types
        if self._step != self._read_value or not is_string:
            return name, start
        value = str(self._value) + self._pending
        close = self._tags.value_close
        value = self._inner(value[: unfinished_at(value, (close, "\n" + close))])
        separator = ", " if self._members else ""
        key = orjson.dumps(self._key).decode()
        return name, f"{start}{separator}{key}: " + orjson.dumps(value).decode()[:-1]

    # Each step returns the number of characters that it read. The number is 0 if the step needs
    # more text, or found text that can't belong to the call.

    def _read_tag(self) -> int:
        end = match((SPACE, self._tags.end), self._pending, 0, ())
        if isinstance(end, Match):
            self.is_closed = True
            return end.end
        key = match((SPACE, self._tags.key_open), self._pending, 0, ())
        if isinstance(key, Match):
            self._step = self._read_key
            return key.end
        self.is_broken = not (isinstance(end, Unfinished) or isinstance(key, Unfinished))
        return 0

    def _read_key(self) -> int:
        found = _KEY.match(self._pending)
        at = found.end() if found else 0
        pattern: Pattern = (self._tags.key_close,)
        if self._tags.value_open:
            pattern = (*pattern, SPACE, self._tags.value_open)
        end = match(pattern, self._pending, at, ())
        if isinstance(end, Match) and found:
            self._key, self._value = found[0], TextParts()
            types = self._types.get(self._key, frozenset())
            has_strings = bool(types & {"array", "object"}) and "string" not in types
            self._step = self._read_json_value if has_strings else self._read_value
            return end.end
        self.is_broken = end is None or (not found and bool(self._pending))
        return 0

    def _read_value(self) -> int:
        close = self._tags.value_close
        at = self._pending.find(close)
        if at < 0:
            length = max(0, len(self._pending) - len(close) + 1)
            self._value.append(self._pending[:length])
            return length
        self._value.append(self._pending[:at])
        self._members[self._key] = self._json(str(self._value))
        self._step = self._read_tag
        return at + len(close)

    def _read_json_value(self) -> int:
        """Read a list or an object. Its strings may contain the closing tag."""
        quote, close = self._pending.find('"'), self._pending.find(self._tags.value_close)
        if quote < 0 or 0 <= close < quote:
            return self._read_value()
        self._value.append(self._pending[: quote + 1])
        self._step = self._read_json_string
        return quote + 1

    def _read_json_string(self) -> int:
        found = _IN_STRING.match(self._pending)
        end = found.end() if found else 0
        if self._pending.startswith('"', end):
            end += 1
            self._step = self._read_json_value
        self._value.append(self._pending[:end])
        return end

    def _json(self, value: str) -> str:
        return to_json(self._inner(value), self._types.get(self._key, frozenset()))

    def _inner(self, value: str) -> str:
        """Return a value without the line breaks that the template writes around it."""
        return value if self._tags.value_open else value.removeprefix("\n").removesuffix("\n")


def to_json(value: str, types: Set[str]) -> str:
    """Convert to JSON a value that a model wrote without quotes.

    `types` are the JSON types of its parameter. A value of another type becomes a string.
    """
    text = value.strip()
    text = _PYTHON_WORDS.get(text, text)
    is_json = bool(types) and (text == "null" or loads(text) is not None)
    if is_json and _kinds(loads(text)) & types:
        return text
    return orjson.dumps(value).decode()


def _kinds(value: object) -> set[str]:
    """Return JSON Schema's names for the type of a value; none if the value is a string."""
    match value:
        case bool():
            return {"boolean"}
        case int():
            return {"integer", "number"}
        case float():
            return {"number", "integer"} if value.is_integer() else {"number"}
        case list():
            return {"array"}
        case dict():
            return {"object"}
        case None:
            return {"null"}
        case _:
            return set()
