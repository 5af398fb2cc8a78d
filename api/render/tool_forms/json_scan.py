"""Finds the end of a JSON object that arrives in pieces. Pure."""

from api.render.tool_forms.text_parts import TextParts

_OUTSIDE_STRINGS = frozenset("0123456789+-.eE,: \t\n\r" + "true" + "false" + "null")
_CLOSES = {"}": "{", "]": "["}


class ObjectScan:
    """Incremental scanner that finds the end of one JSON object.

    The scanner also finds the first object that is nested directly in this object. It checks that
    brackets match and that only characters of JSON's syntax occur outside strings. It doesn't check
    the whole grammar of JSON.
    """

    def __init__(self) -> None:
        self.text = TextParts()
        """Text of the object so far."""
        self.is_closed = False
        """Whether the object is complete."""
        self.is_broken = False
        """Whether a character has arrived that can't belong to a JSON object."""
        self.inner_start: int | None = None
        """Index in `text` at which the first nested object starts; None until it starts."""
        self.inner_end: int | None = None
        """Index in `text` after the end of the first nested object; None until it ends."""
        self._open: list[str] = []
        self._is_string = False
        self._is_escaped = False

    def feed(self, text: str) -> str:
        """Scan more text. In the first call, `text` must start with `{`.

        Returns:
            The part of `text` that wasn't scanned. It starts after the end of the object, or at the
            first character that can't belong to the object. The part is empty while the scan
            can continue.
        """
        start = len(self.text)
        for i, char in enumerate(text):
            if not self._accept(char, start + i):
                self.is_broken = True
                self.text.append(text[:i])
                return text[i:]
            if not self._open:
                self.is_closed = True
                self.text.append(text[: i + 1])
                return text[i + 1 :]
        self.text.append(text)
        return ""

    def _accept(self, char: str, index: int) -> bool:
        if self._is_string:
            self._accept_in_string(char)
            return True
        if char == '"':
            self._is_string = True
            return True
        if char in "{[":
            self._enter(char, index)
            return True
        if char in _CLOSES:
            return self._leave(char, index)
        return char in _OUTSIDE_STRINGS

    def _accept_in_string(self, char: str) -> None:
        if self._is_escaped:
            self._is_escaped = False
        elif char == "\\":
            self._is_escaped = True
        else:
            self._is_string = char != '"'

    def _enter(self, char: str, index: int) -> None:
        if char == "{" and len(self._open) == 1 and self.inner_start is None:
            self.inner_start = index
        self._open.append(char)

    def _leave(self, char: str, index: int) -> bool:
        is_matching = self._open.pop() == _CLOSES[char]
        if len(self._open) == 1 and self.inner_start is not None and self.inner_end is None:
            self.inner_end = index + 1
        return is_matching
