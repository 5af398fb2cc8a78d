"""Converts token ids to text incrementally, without splitting characters or emitting stop strings.

The text depends on the ids alone, so another worker can continue a stream exactly.
"""

import codecs
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from shared.protocol.tools import VISIBLE_TAGS
from shared.reasoning_form import ReasoningForm

REPLACEMENT = "\ufffd"
_VISIBLE_TAGS = frozenset((*VISIBLE_TAGS, *(tag for form in ReasoningForm for tag in form.markers)))
"""Special tokens that are decoded to text for the parsers of tool calls and reasoning."""


class TokenTable(Protocol):
    """The bytes and the name of each token id."""

    def inside(self, token_id: int) -> bytes:
        """Return the bytes that the token adds after other text; empty if it has no text."""

    def at_start(self, token_id: int) -> bytes:
        """Return the bytes that the token adds as the first token of a text."""

    def name(self, token_id: int) -> str:
        """Return the token's name in the vocabulary, or an empty string for an unknown token."""


class TokenBytes:
    """Table of the UTF-8 bytes that each token id adds to a text.

    The table has two entries for each id: the bytes at the start of a text, and the bytes after
    other text. Two entries suffice if a token adds the same bytes at every position except the
    first. This is the case in byte-level BPE and in sentencepiece with byte fallback.
    """

    def __init__(self, hf_tokenizer: Any) -> None:
        self._hf = hf_tokenizer
        backend = getattr(hf_tokenizer, "backend_tokenizer", None)
        self._is_byte_level = "ByteLevel" in repr(getattr(backend, "decoder", None))
        self._prefix = self._find_prefix()
        self._prefix_text = self._decode(self._prefix)
        self._inside: dict[int, bytes] = {}
        self._at_start: dict[int, bytes] = {}

    def inside(self, token_id: int) -> bytes:
        """See `TokenTable.inside`. Special tokens have no text, except `_VISIBLE_TAGS`."""
        if token_id not in self._inside:
            self._inside[token_id] = self._look_up(self._prefix, self._prefix_text, token_id)
        return self._inside[token_id]

    def name(self, token_id: int) -> str:
        """Return the token's name in the vocabulary, or an empty string for an unknown token."""
        name: str | None = self._hf.convert_ids_to_tokens(token_id)
        return name or ""

    def at_start(self, token_id: int) -> bytes:
        """See `TokenTable.at_start`. Sentencepiece drops a leading space at the start of a text."""
        if token_id not in self._at_start:
            self._at_start[token_id] = self._look_up([], "", token_id)
        return self._at_start[token_id]

    def _look_up(self, prefix: list[int], prefix_text: str, token_id: int) -> bytes:
        if (name := self.name(token_id)) in _VISIBLE_TAGS:
            return name.encode()
        text = self._decode([*prefix, token_id])[len(prefix_text) :]
        return self._name_bytes(token_id) if REPLACEMENT in text else text.encode()

    def _name_bytes(self, token_id: int) -> bytes:
        name = self.name(token_id)
        if self._is_byte_level and all(c in BYTE_OF_CHARACTER for c in name):
            return bytes(BYTE_OF_CHARACTER[c] for c in name)
        if len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
            return bytes([int(name[3:5], 16)])
        return name.encode()

    def _decode(self, ids: list[int]) -> str:
        # Clean-up would make a token's text depend on the next one (" ." -> ".").
        text: str = self._hf.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _find_prefix(self) -> list[int]:
        """Return a list with the first token that has visible text, or an empty list."""
        for token_id in range(len(self._hf)):
            text = self._decode([token_id])
            if text.strip() and REPLACEMENT not in text:
                return [token_id]
        return []


class TextStream:
    """Converts the tokens of one choice to text, token by token.

    The stream holds back incomplete characters and any text that could be the start of a stop
    string. The text ends at the stop string that is completed first.
    """

    def __init__(
        self,
        token_bytes: TokenTable,
        stop: Sequence[str],
        *,
        is_text_start: bool,
        min_tokens: int = 0,
        includes_stop: bool = False,
        keeps_special_tokens: bool = False,
        tokens_as_ids: bool = False,
        echo: str = "",
    ) -> None:
        """Create an empty stream. Its text starts with `echo` and ends at a string of `stop`.

        With `is_text_start`, the text stands alone, like a chat answer. Otherwise it continues
        a prompt, and its first token keeps its leading space. The first `min_tokens` tokens aren't
        searched for stop strings. With `keeps_special_tokens`, the text contains the names of
        special tokens.
        """
        self.token_bytes = token_bytes
        self.includes_stop = includes_stop
        """Whether the text includes the stop string or stop token that ends it."""
        self.tokens_as_ids = tokens_as_ids
        """Whether logprobs identify tokens by their ids instead of their texts."""
        self._keeps_special_tokens = keeps_special_tokens
        self._stop = tuple(s for s in stop if s)
        self._at_start = is_text_start
        self._num_unsearched = min_tokens
        self._decode: Callable[..., str] = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._held = ""
        self._echo = echo
        self.num_chars = len(echo)
        """Number of characters in the echo and in all tokens so far, including held-back text."""
        self.stopped_by = ""
        """Stop string that was found; empty if none was. No text is emitted after it."""

    def of_prompt(self) -> "TextStream":
        """Return an empty stream for the text of the prompt, with the same `tokens_as_ids`."""
        return TextStream(
            self.token_bytes, (), is_text_start=True, tokens_as_ids=self.tokens_as_ids
        )

    def feed(self, token_id: int) -> str:
        """Add a token, and return the text that can be emitted now. The text is often empty."""
        new = self._decode(self._bytes(token_id))
        self.num_chars += len(new)
        if self._num_unsearched > 0:
            self._num_unsearched -= 1
            return self._take_echo() + new
        return self._take_echo() + self._emit(new)

    def next_token_text(self, token_id: int) -> tuple[str, bytes | None]:
        """Return the text and the bytes that a token would add if it came next.

        The token isn't added to the stream. For a special token, return its name and None.
        """
        if not self.token_bytes.inside(token_id):
            return self.token_bytes.name(token_id), None
        at_start, inside = self.token_bytes.at_start, self.token_bytes.inside
        raw = (at_start if self._at_start else inside)(token_id)
        return raw.decode(errors="replace"), raw

    def replay(self, ids: Iterable[int]) -> str:
        """Add tokens and return the text that can be emitted after them."""
        return "".join([self.feed(token_id) for token_id in ids])

    def close(self) -> str:
        """End the stream and return the text that was held back."""
        text = self._emit(self._decode(b"", final=True))
        held, self._held = self._held, ""
        return self._take_echo() + text + held

    def _take_echo(self) -> str:
        echo, self._echo = self._echo, ""
        return echo

    def _bytes(self, token_id: int) -> bytes:
        raw = self.token_bytes.inside(token_id)
        if raw and self._at_start:
            self._at_start = False
            return self.token_bytes.at_start(token_id)
        if not raw and self._keeps_special_tokens:
            return self.token_bytes.name(token_id).encode()
        return raw

    def _emit(self, new: str) -> str:
        """Add text, and return the part before a stop string or the possible start of one."""
        if self.stopped_by or not new:
            return ""
        text = self._held + new
        if found := _find_stop(text, self._stop):
            start, end = found
            self.stopped_by, self._held = text[start:end], ""
            return text[: end if self.includes_stop else start]
        safe = min((_possible_start(text, each) for each in self._stop), default=len(text))
        self._held = text[safe:]
        return text[:safe]


def _find_stop(text: str, stop: tuple[str, ...]) -> tuple[int, int] | None:
    """Return (start, end) of the stop string that ends first in `text`, or None if there is none.

    If several stop strings end at the same place, the longest of them is chosen.
    """
    found = [(start + len(s), start) for s in stop if (start := text.find(s)) >= 0]
    if not found:
        return None
    end, start = min(found)
    return start, end


def _possible_start(text: str, stop: str) -> int:
    """Return the index in `text` at which the possible start of `stop` begins.

    Return the length of `text` if it doesn't end with a start of `stop`.
    """
    start = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while start >= 0 and not stop.startswith(text[start:]):
        start = text.find(stop[0], start + 1)
    return start if start >= 0 else len(text)


def _byte_of_character() -> dict[str, int]:
    """Return GPT-2's map from characters to bytes.

    Characters with the codes of printable bytes are mapped to these bytes. Characters with codes
    from 256 on are mapped to the other bytes.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    table = {chr(b): b for b in printable}
    return table | {chr(256 + i): b for i, b in enumerate(others)}


BYTE_OF_CHARACTER = _byte_of_character()
"""Byte that each character represents in the vocabulary of byte-level BPE."""
