"""Follows the brackets and strings of a JSON object that arrives in pieces. Pure."""

_OUTSIDE_STRINGS = frozenset("0123456789+-.eE,: \t\n\r" + "true" + "false" + "null")
_CLOSES = {"}": "{", "]": "["}


class ObjectScan:
    """Tells where an object, and the first object inside of it, begin and end.

    Checks brackets and what may stand between strings, not all of JSON's grammar.
    """

    def __init__(self) -> None:
        self.text = ""
        """The object so far."""
        self.is_closed = False
        """Whether the object is whole."""
        self.is_broken = False
        """Whether what came next can't belong to a JSON object."""
        self.inner_start: int | None = None
        """Where the first nested object begins in `text`."""
        self.inner_end: int | None = None
        """Where it ends."""
        self._open: list[str] = []
        self._is_string = False
        self._is_escaped = False

    def feed(self, text: str) -> str:
        """Take what belongs to the object, from its `{` on.

        Returns:
            The rest: what follows the object, or begins with what broke it.
        """
        start = len(self.text)
        for i, char in enumerate(text):
            if not self._take(char, start + i):
                self.is_broken = True
                self.text += text[:i]
                return text[i:]
            if not self._open:
                self.is_closed = True
                self.text += text[: i + 1]
                return text[i + 1 :]
        self.text += text
        return ""

    def _take(self, char: str, at: int) -> bool:
        if self._is_string:
            self._take_in_string(char)
            return True
        if char == '"':
            self._is_string = True
            return True
        if char in "{[":
            self._enter(char, at)
            return True
        if char in _CLOSES:
            return self._leave(char, at)
        return char in _OUTSIDE_STRINGS

    def _take_in_string(self, char: str) -> None:
        if self._is_escaped:
            self._is_escaped = False
        elif char == "\\":
            self._is_escaped = True
        else:
            self._is_string = char != '"'

    def _enter(self, char: str, at: int) -> None:
        if char == "{" and len(self._open) == 1 and self.inner_start is None:
            self.inner_start = at
        self._open.append(char)

    def _leave(self, char: str, at: int) -> bool:
        is_matching = self._open.pop() == _CLOSES[char]
        if len(self._open) == 1 and self.inner_start is not None and self.inner_end is None:
            self.inner_end = at + 1
        return is_matching
