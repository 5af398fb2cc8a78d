"""Tool calls that are written as calls in Python. Pure."""

import re
from collections.abc import Iterator
from contextlib import suppress

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
_COMPLETE = re.compile(
    r"(?:[^\\]|\\(?:[^xuU0-7]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}))*",
    re.DOTALL,
)
"""Matches the start of a string literal, up to an escape that may be incomplete."""
_OPEN_ENDED = ("word", "number")
"""Kinds of tokens that may become longer when more text arrives."""
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

    def cut(self) -> tuple[str, str]:
        """Return the name of an incomplete call, and the start of its arguments as JSON."""
        literals = _Literals(self.text(), is_cut=True)
        with suppress(ValueError):
            literals.arguments()
        return self._name, literals.written

    def _accept_outside(self, char: str, index: int) -> bool:
        if char in "([{":
            self._open.append(char)
            return len(self._open) <= MAX_DEPTH
        if char in _CLOSES:
            return self._open.pop() == _CLOSES[char]
        return char in _OUTSIDE_STRINGS


class _Literals:
    """Recursive-descent parser that translates Python literals to JSON text.

    All methods raise `ValueError` if the text isn't as expected.
    """

    def __init__(self, text: str, *, is_cut: bool = False) -> None:
        """Create a reader of `text`. With `is_cut`, its last token may be incomplete."""
        self._written = list[str]()
        self._tokens = _tokens(text, is_cut=is_cut)
        self._kind, self._token = next(self._tokens)

    @property
    def written(self) -> str:
        """The JSON text so far."""
        return "".join(self._written)

    def arguments(self) -> str:
        """Return the keyword arguments in parentheses as a JSON object."""
        keys = set[str]()
        self._take("(")
        self._write("{")
        while self._token != ")":
            key = self._take_kind("word")
            self._take("=")
            if key in keys:
                raise ValueError(key)
            self._write(f"{', ' if keys else ''}{_dumps(key)}: ")
            keys.add(key)
            self._value()
            self._separator(")")
        self._write("}")
        return self.written

    def _value(self) -> None:
        match self._kind:
            case "string":
                self._write(_dumps(_unescaped(self._take_kind("string"))))
            case "cut_string":
                self._write(_dumps(_unescaped_start(self._take_kind("cut_string")))[:-1])
            case "number":
                self._write(self._take_kind("number"))
            case "word":
                self._word()
            case _ if self._token == "{":
                self._mapping()
            case _:
                self._sequence()

    def _word(self) -> None:
        if self._token not in _WORDS:
            raise ValueError(self._token)
        self._write(_WORDS[self._take_kind("word")])

    def _mapping(self) -> None:
        is_first = True
        self._take("{")
        self._write("{")
        while self._token != "}":
            key = _unescaped(self._take_kind("string"))
            self._take(":")
            self._write(f"{'' if is_first else ', '}{_dumps(key)}: ")
            is_first = False
            self._value()
            self._separator("}")
        self._take("}")
        self._write("}")

    def _sequence(self) -> None:
        close = {"[": "]", "(": ")"}.get(self._token, "")
        self._take("[" if close == "]" else "(")
        self._write("[")
        is_first = True
        while self._token != close and self._kind:
            self._write("" if is_first else ", ")
            is_first = False
            self._value()
            self._separator(close)
        self._take(close)
        self._write("]")

    def _write(self, text: str) -> None:
        self._written.append(text)

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


def _tokens(text: str, *, is_cut: bool) -> Iterator[tuple[str, str]]:
    """Yield the kind and the text of each token, and then pairs of empty texts forever.

    With `is_cut`, a word or number at the end is left out, because more of it may be missing. A
    string without its closing mark has the kind "cut_string".
    """
    at, end = 0, len(text) if is_cut else len(text.rstrip())
    while at < end:
        found = _TOKEN.match(text, at)
        if is_cut and (found is None or (found.end() == end and found.lastgroup in _OPEN_ENDED)):
            break
        if found is None:
            raise ValueError(text[at])
        yield found.lastgroup or "", found[found.lastgroup or 0]
        at = found.end()
    rest = text[at:].lstrip()
    if is_cut and rest.startswith(("'", '"')):
        yield "cut_string", rest
    while True:
        yield "", ""


def _dumps(text: str) -> str:
    return orjson.dumps(text).decode()


def _unescaped(literal: str) -> str:
    """Return the text of a string literal. Raise `ValueError` if an escape isn't a character."""
    text = _ESCAPE.sub(_character, literal[1:-1])
    # Models write characters beyond U+FFFF as two surrogates, as JSON does.
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")


def _unescaped_start(literal: str) -> str:
    """Return the text at the start of a string literal, without an incomplete escape at its end."""
    found = _COMPLETE.match(literal, 1)
    text = _ESCAPE.sub(_character, found[0] if found else "")
    if text and "\ud800" <= text[-1] < "\udc00":
        text = text[:-1]
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")


def _character(escape: re.Match[str]) -> str:
    *codes, octal, char = escape.groups()
    if octal is not None:
        return chr(int(octal, 8))
    code = next((code for code in codes if code is not None), None)
    if code is not None:
        return chr(int(code, 16))
    return _CHARACTERS.get(char, "\\" + char)
