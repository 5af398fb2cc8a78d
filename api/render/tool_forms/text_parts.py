"""Text that grows by appending. Pure."""


class TextParts:
    """Text in parts, so that appending to a long text doesn't copy it."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __str__(self) -> str:
        return "".join(self._parts)

    def append(self, text: str) -> None:
        """Add `text` at the end."""
        self._parts.append(text)
        self._length += len(text)

    def since(self, start: int) -> str:
        """Return the text from the index `start` on, in time that doesn't depend on `start`."""
        tail, at = list[str](), self._length
        for part in reversed(self._parts):
            if at <= start:
                break
            tail.append(part)
            at -= len(part)
        return "".join(reversed(tail))[max(0, start - at) :]
