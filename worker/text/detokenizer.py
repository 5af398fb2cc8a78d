"""Token ids to text, one token at a time, without cutting characters or showing stop strings.

The text is a function of the ids alone, so that another worker goes on exactly where a stream
stopped.
"""

import codecs
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from shared.protocol.tools import HERMES_CLOSE, HERMES_OPEN

REPLACEMENT = "\ufffd"
_SHOWN = (HERMES_OPEN, HERMES_CLOSE)
"""Some models have these as special tokens, which aren't text: without them no call is found."""


class TokenBytes:
    """What each token id adds to the text, in UTF-8 bytes; a token may hold part of a character.

    Works by asking the tokenizer once per id, and so with any whose tokens mean the same wherever
    they stand, but for the first: byte-level BPE, sentencepiece with byte fallback, and others.
    """

    def __init__(self, hf_tokenizer: Any) -> None:
        self._hf = hf_tokenizer
        self._is_byte_level = _has_byte_level_decoder(hf_tokenizer)
        self._context = self._find_context()
        self._context_text = self._decode(self._context)
        self._inside: dict[int, bytes] = {}
        self._at_start: dict[int, bytes] = {}

    def inside(self, token_id: int) -> bytes:
        """Its bytes after other text; none for an unknown token, or a special one but tool tags."""
        if token_id not in self._inside:
            self._inside[token_id] = self._look_up(self._context, self._context_text, token_id)
        return self._inside[token_id]

    def name(self, token_id: int) -> str:
        """What the tokenizer calls the token; empty for one that it doesn't know."""
        name: str | None = self._hf.convert_ids_to_tokens(token_id)
        return name or ""

    def at_start(self, token_id: int) -> bytes:
        """Its bytes as the first visible token: sentencepiece drops a leading space there."""
        if token_id not in self._at_start:
            self._at_start[token_id] = self._look_up([], "", token_id)
        return self._at_start[token_id]

    def _look_up(self, context: list[int], before: str, token_id: int) -> bytes:
        if (name := self.name(token_id)) in _SHOWN:
            return name.encode()
        text = self._decode([*context, token_id])[len(before) :]
        return self._name_bytes(token_id) if REPLACEMENT in text else text.encode()

    def _name_bytes(self, token_id: int) -> bytes:
        name = self.name(token_id)
        if self._is_byte_level and all(c in BYTE_OF_CHARACTER for c in name):
            return bytes(BYTE_OF_CHARACTER[c] for c in name)
        if len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
            return bytes([int(name[3:5], 16)])
        return name.encode()

    def _decode(self, ids: list[int]) -> str:
        # Clean-up would make a token's text depend on its neighbours (" ." -> ".").
        text: str = self._hf.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _find_context(self) -> list[int]:
        """A visible token for others to be decoded behind."""
        for token_id in range(len(self._hf)):
            text = self._decode([token_id])
            if text.strip() and REPLACEMENT not in text:
                return [token_id]
        return []


class TextStream:
    """The text of one choice, as far as it may be shown.

    Held back are incomplete characters, and text that may turn out to begin a stop string. The
    text ends before the stop string that is complete first.
    """

    def __init__(
        self,
        token_bytes: TokenBytes,
        stop: Sequence[str],
        *,
        opens: bool,
        min_tokens: int = 0,
        echo: str = "",
    ) -> None:
        """Start with no text.

        Args:
            token_bytes: the tokenizer's table.
            stop: strings that end the text.
            opens: whether a new text begins here (a chat answer), rather than one that goes on
                from its prompt, where a leading space counts.
            min_tokens: the stop strings are looked for in the text of later tokens only.
            echo: what is shown in front of the text.
        """
        self.token_bytes = token_bytes
        self._stop = tuple(s for s in stop if s)
        self._at_start = opens
        self._num_unsearched = min_tokens
        self._decode: Callable[..., str] = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._held = ""
        self._echo = echo
        self.num_chars = len(echo)
        """Length of the echo, and of the text of all tokens so far, be it shown or not."""
        self.is_stopped = False
        """Whether a stop string was found: nothing is shown any more."""

    def feed(self, token_id: int) -> str:
        """The text that this token makes visible, often none."""
        new = self._decode(self._bytes(token_id))
        self.num_chars += len(new)
        if self._num_unsearched > 0:
            self._num_unsearched -= 1
            return self._take_echo() + new
        return self._take_echo() + self._show(new)

    def spelling(self, token_id: int) -> tuple[str, bytes | None]:
        """The token's text and its bytes, if it came next; name and None of a special token."""
        if not self.token_bytes.inside(token_id):
            return self.token_bytes.name(token_id), None
        at_start, inside = self.token_bytes.at_start, self.token_bytes.inside
        raw = (at_start if self._at_start else inside)(token_id)
        return raw.decode(errors="replace"), raw

    def replay(self, ids: Iterable[int]) -> str:
        """The text that these tokens make visible."""
        return "".join([self.feed(token_id) for token_id in ids])

    def close(self) -> str:
        """What was held back and is visible now that no token follows."""
        shown = self._show(self._decode(b"", final=True))
        rest, self._held = self._held, ""
        return self._take_echo() + shown + rest

    def _take_echo(self) -> str:
        echo, self._echo = self._echo, ""
        return echo

    def _bytes(self, token_id: int) -> bytes:
        raw = self.token_bytes.inside(token_id)
        if raw and self._at_start:
            self._at_start = False
            return self.token_bytes.at_start(token_id)
        return raw

    def _show(self, new: str) -> str:
        if self.is_stopped or not new:
            return ""
        text = self._held + new
        cut = _stop_start(text, self._stop)
        if cut is not None:
            self.is_stopped, self._held = True, ""
            return text[:cut]
        safe = _safe_length(text, self._stop)
        self._held = text[safe:]
        return text[:safe]


def _stop_start(text: str, stop: tuple[str, ...]) -> int | None:
    """Where the stop string begins that is complete first, the longest of several."""
    found = [(start + len(s), start) for s in stop if (start := text.find(s)) >= 0]
    return min(found)[1] if found else None


def _safe_length(text: str, stop: tuple[str, ...]) -> int:
    """Length of `text` up to where a stop string might begin."""
    return min((_possible_start(text, s) for s in stop), default=len(text))


def _possible_start(text: str, stop: str) -> int:
    start = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while start >= 0 and not stop.startswith(text[start:]):
        start = text.find(stop[0], start + 1)
    return start if start >= 0 else len(text)


def _has_byte_level_decoder(hf_tokenizer: Any) -> bool:
    backend = getattr(hf_tokenizer, "backend_tokenizer", None)
    return "ByteLevel" in repr(getattr(backend, "decoder", None))


def _byte_of_character() -> dict[str, int]:
    """GPT-2's printable stand-in of each byte: bytes that print stand for themselves."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    table = {chr(b): b for b in printable}
    return table | {chr(256 + i): b for i, b in enumerate(others)}


BYTE_OF_CHARACTER = _byte_of_character()
