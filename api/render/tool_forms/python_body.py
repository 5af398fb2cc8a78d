"""Tool calls that are written as calls in Python. Pure."""

import re
from collections.abc import Iterator

import orjson

from api.render.tool_forms.body import Bracketed, Types

MAX_DEPTH = 64
"""Maximum nesting depth of lists and dictionaries in arguments."""
_OUTSIDE_STRINGS = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.,:= \t\n\r"
)
_CLOSES = {")": "(", "]": "[", "}": "{"}
_TOKEN = re.compile(
    r"\s*(?:(?P<word>[A-Za-z_]\w*)|(?P<number>-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)"
    r"|(?P<string>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")|(?P<mark>[()\[\]{},:=]))",
    re.ASCII | re.DOTALL,
)
_WORDS = {"True": "true", "False": "false", "None": "null"} | {
    word: word for word in ("true", "false", "null")
}
_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{1,3})|(.))", re.DOTALL
)
_CHARACTERS = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v"}
_CHARACTERS |= {"\n": "", "\\": "\\", "'": "'", '"': '"', "/": "/"}


class PythonBody(Bracketed):
    """Arguments of a call, in parentheses. All are keyword arguments with literal values.

    The call is emitted when it is complete.
    """

    quotes = "'\""

    def __init__(self, name: str, types: Types) -> None:
        super().__init__()
        self._name = name

    def call(self) -> tuple[str, str] | None:
        """Return the name and the arguments as JSON, or None if they aren't literals."""
        try:
            return self._name, _Literals(self.text()).arguments()
        except ValueError:
            return None

    def _accept_outside(self, char: str, index: int) -> bool:
        if char in "([{":
            self._open.append(char)
            return len(self._open) <= MAX_DEPTH
        if char in _CLOSES:
            return self._open.pop() == _CLOSES[char]
        return char in _OUTSIDE_STRINGS


class _Literals:
    """Recursive-descent reader of Python literals that translates them to JSON text.

    All methods raise `ValueError` if the text isn't as expected.
    """

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._kind, self._token = next(self._tokens)

    def arguments(self) -> str:
        """Return the keyword arguments in parentheses as a JSON object."""
        members = dict[str, str]()
        self._take("(")
        while self._token != ")":
            key = self._take_kind("word")
            self._take("=")
            if key in members:
                raise ValueError(key)
            members[key] = self._value()
            self._separator(")")
        return _object(members)

    def _value(self) -> str:
        if self._kind == "string":
            return _dumps(_unescaped(self._take_kind("string")))
        if self._kind == "number":
            return self._take_kind("number")
        if self._kind == "word":
            if self._token not in _WORDS:
                raise ValueError(self._token)
            return _WORDS[self._take_kind("word")]
        return self._mapping() if self._token == "{" else self._sequence()

    def _mapping(self) -> str:
        members = dict[str, str]()
        self._take("{")
        while self._token != "}":
            key = _unescaped(self._take_kind("string"))
            self._take(":")
            members[key] = self._value()
            self._separator("}")
        self._take("}")
        return _object(members)

    def _sequence(self) -> str:
        close = {"[": "]", "(": ")"}.get(self._token, "")
        self._take("[" if close == "]" else "(")
        items = list[str]()
        while self._token != close:
            items.append(self._value())
            self._separator(close)
        self._take(close)
        return f"[{', '.join(items)}]"

    def _separator(self, close: str) -> None:
        if self._token != close or self._kind != "mark":
            self._take(",")

    def _take(self, mark: str) -> None:
        if (self._kind, self._token) != ("mark", mark):
            raise ValueError(mark)
        self._kind, self._token = next(self._tokens)

    def _take_kind(self, kind: str) -> str:
        token = self._token
        if self._kind != kind:
            raise ValueError(kind)
        self._kind, self._token = next(self._tokens)
        return token


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    """Yield the kind and the text of each token, and then pairs of empty texts forever."""
    at, end = 0, len(text.rstrip())
    while at < end:
        found = _TOKEN.match(text, at)
        if found is None:
            raise ValueError(text[at])
        yield found.lastgroup or "", found[found.lastgroup or 0]
        at = found.end()
    while True:
        yield "", ""


def _object(members: dict[str, str]) -> str:
    return "{" + ", ".join(f"{_dumps(key)}: {value}" for key, value in members.items()) + "}"


def _dumps(text: str) -> str:
    return orjson.dumps(text).decode()


def _unescaped(literal: str) -> str:
    """Return the text of a string literal. Raise `ValueError` if an escape isn't a character."""
    text = _ESCAPE.sub(_character, literal[1:-1])
    # Models write characters beyond U+FFFF as two surrogates, as JSON does.
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")


def _character(escape: re.Match[str]) -> str:
    *codes, octal, char = escape.groups()
    if octal is not None:
        return chr(int(octal, 8))
    code = next((code for code in codes if code is not None), None)
    if code is not None:
        return chr(int(code, 16))
    return _CHARACTERS.get(char, "\\" + char)
