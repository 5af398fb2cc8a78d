"""Constrains answers to grammars, with llguidance.

The state of an answer's grammar depends only on the answer's tokens. Therefore an answer that is
recomputed or moved to another worker continues with the same constraints.
"""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NewType

from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance.gbnf_to_lark import any_to_lark

from shared.errors import ErrorCode, GrammarRejected, JobError, JobFailed

GrammarSource = NewType("GrammarSource", str)
"""A grammar as text, either in llguidance's JSON format or in llguidance's dialect of Lark."""

# All options are listed, as a client's schema could set any missing one in its "x-guidance" field.
JSON_OPTIONS: Any = {  # llguidance defines its TypedDict for type checkers only
    "item_separator": ",",
    "key_separator": ":",
    "whitespace_flexible": True,
    # Allows the compact and the indented style. Unbounded whitespace would let a model write spaces
    # until it reaches its token limit.
    "whitespace_pattern": r" |\n {0,32}",
    "coerce_one_of": False,
    "lenient": False,
    # \u escapes are limited to control characters, as lone surrogates aren't valid characters.
    "json_allowed_escapes": 'nrbtf\\"u',
    "json_allow_general_unicode_escapes": False,
}
"""Options of JSON grammars, in the format of a schema's "x-guidance" field."""
_LIMITS = LLParserLimits(max_lexer_states=32_000, verbose_errors=False)
"""Limits on the grammar state of one running answer. Each lexer state takes 1-2 kB."""

MAX_TOKEN_S = 0.002
"""CPU time that a grammar may take per token on average, in seconds.

Schemas take at most a quarter of it. Ambiguous grammars take more time with each token of the
answer, and all requests of a step wait for them.
"""
MAX_EXTRA_S = 0.25
"""CPU time in seconds that all answers under a grammar together may take beyond MAX_TOKEN_S per
token."""

TOO_COMPLEX = JobError(
    code=ErrorCode.INVALID_VALUE,
    message="the schema became too complex to enforce while the answer was generated: simplify it",
)

_DIVERGED = JobError(
    code=ErrorCode.RESUME_DIVERGED,
    message="the tokens published by another worker don't follow the schema on this one",
)


def json_source(schema: str) -> GrammarSource:
    """Return the grammar of JSON that matches a schema. Raises GrammarRejected for a bad schema."""
    try:
        return GrammarSource(LLMatcher.grammar_from_json_schema(schema, overrides=JSON_OPTIONS))
    except ValueError as error:
        raise GrammarRejected(str(error)) from None


def regex_source(regex: str) -> GrammarSource:
    """Return the grammar of texts that match a regular expression as a whole."""
    return GrammarSource(LLMatcher.grammar_from_regex(regex))


def choice_source(texts: Iterable[str]) -> GrammarSource:
    """Return the grammar that allows exactly the given texts."""
    quoted = (json.dumps(text, ensure_ascii=False) for text in texts)
    return GrammarSource("start: " + " | ".join(quoted))


def lark_source(grammar: str) -> GrammarSource:
    """Return the grammar of texts that match a Lark or GBNF grammar.

    The time that this takes can grow with the square of the grammar's length.

    Raises:
        GrammarRejected: the grammar has an error that is noticed before its compilation.
    """
    if grammar.lstrip().startswith("{"):
        raise GrammarRejected("it is neither a Lark nor a GBNF grammar")
    try:
        return GrammarSource(any_to_lark(grammar))
    except RecursionError:
        raise GrammarRejected("it is nested too deeply") from None
    except Exception as error:  # noqa: BLE001  (llguidance raises the class for an unknown rule)
        raise GrammarRejected(str(error)) from None


class GrammarCost:
    """CPU time that the answers under one grammar have taken. Thread-safe."""

    def __init__(self) -> None:
        self._extra_s = 0.0
        """CPU seconds that the answers have taken so far beyond `MAX_TOKEN_S` per token."""
        self.is_exceeded = False
        """Whether the answers have taken too much time and must end."""

    def add(self, cpu_s: float, *, num_tokens: int = 0) -> None:
        """Add CPU time spent on answers. `num_tokens` new tokens allow MAX_TOKEN_S seconds each."""
        self._extra_s = max(0.0, self._extra_s + cpu_s - num_tokens * MAX_TOKEN_S)
        self.is_exceeded = self.is_exceeded or self._extra_s > MAX_EXTRA_S

    @contextmanager
    def measured(self, *, num_tokens: int = 0) -> Iterator[None]:
        """Call `add` with the CPU time that this thread spends inside the context."""
        start_s = time.thread_time()
        try:
            yield
        finally:
            self.add(time.thread_time() - start_s, num_tokens=num_tokens)


class GrammarState:
    """Parser state of one answer. It determines the tokens that the grammar allows next."""

    def __init__(
        self, matcher: LLMatcher, source: GrammarSource, cost: GrammarCost, mask_bytes: int
    ) -> None:
        self._matcher = matcher
        self._cost = cost
        self._mask_bytes = mask_bytes
        self._mask: bytes | None = None
        """Result of `allowed`; None until it is computed."""
        self.source = source
        """The grammar's text. Another process can compile it again."""

    def allowed(self) -> bytes:
        """Return a bitmask of the tokens that may come next.

        Token i is bit `i % 8` of byte `i // 8`. The mask's length depends only on the tokenizer. No
        bit is set if the grammar has become too complex to continue.
        """
        if self._cost.is_exceeded:
            return bytes(self._mask_bytes)
        if self._mask is None:
            with self._cost.measured():
                self._mask = _allowed(self._matcher)
        return self._mask

    def only_token(self) -> int | None:
        """Return the next token if exactly one token is allowed, else None."""
        bits = int.from_bytes(self.allowed(), "little")
        return bits.bit_length() - 1 if bits.bit_count() == 1 else None

    def advance(self, token_id: int) -> bool:
        """Advance the state by an output token, and return whether the grammar allows the token.

        If the grammar has become too complex to continue, it allows no token.
        """
        self._mask = None
        with self._cost.measured(num_tokens=1):
            is_allowed = bool(self._matcher.consume_token(token_id))
        return is_allowed and not self._cost.is_exceeded

    def look_ahead(self, token_ids: Sequence[int]) -> list[bytes]:
        """Return the bitmask of allowed tokens after each of `token_ids`, if these come next.

        The state doesn't change. The result ends before the first token that isn't allowed.
        """
        # A copy takes some microseconds. Going back isn't possible in all grammars.
        mask, masks = self.allowed(), list[bytes]()
        with self._cost.measured():
            matcher = self._matcher.deep_copy()
            for token_id in token_ids:
                if not _has(mask, token_id) or not matcher.consume_token(token_id):
                    break
                mask = _allowed(matcher)
                masks.append(mask)
        return masks


def _allowed(matcher: LLMatcher) -> bytes:
    mask: bytes = matcher.compute_bitmask()
    # In an error state llguidance allows the end of the answer.
    return bytes(len(mask)) if matcher.is_error() else mask


def _has(mask: bytes, token_id: int) -> bool:
    return token_id < 8 * len(mask) and bool(mask[token_id // 8] >> token_id % 8 & 1)


class Grammar:
    """A compiled grammar, shared by any number of answers. Thread-safe."""

    def __init__(self, matcher: LLMatcher, source: GrammarSource, mask_bytes: int) -> None:
        self._matcher = matcher
        self._source = source
        self._mask_bytes = mask_bytes
        self._cost = GrammarCost()

    @property
    def is_too_complex(self) -> bool:
        """Whether answers under this grammar have taken too much CPU time and must end."""
        return self._cost.is_exceeded

    def start(self, output_ids: Sequence[int] = ()) -> GrammarState:
        """Return the state after `output_ids`. Raises JobFailed if these tokens aren't allowed."""
        matcher, cost = self._matcher.deep_copy(), self._cost
        if output_ids and not cost.is_exceeded:
            with cost.measured(num_tokens=len(output_ids)):
                is_allowed = matcher.consume_tokens(list(output_ids))
            if not is_allowed:
                raise JobFailed(_DIVERGED)
        return GrammarState(matcher, self._source, cost, self._mask_bytes)


class GrammarCompiler:
    """Compiles grammars for one tokenizer. Thread-safe."""

    def __init__(self, hf_tokenizer: Any, *, vocab_size: int, eos_ids: Iterable[int]) -> None:
        """Prepare a tokenizer of the transformers library for llguidance.

        Token ids beyond its vocabulary, up to the model's `vocab_size`, are never allowed. The
        tokens `eos_ids` are allowed only where the text may end.
        """
        self._tokenizer, self._reason = _read(hf_tokenizer, vocab_size, sorted(eos_ids))
        self._vocab: dict[str, int] = hf_tokenizer.get_vocab()

    def token_id(self, text: str) -> int | None:
        """Return the id of the token with this name, or None if there is none."""
        return self._vocab.get(text)

    def compile(self, source: GrammarSource) -> Grammar:
        """Compile a grammar. Other Python threads can run during the compilation.

        Raises:
            GrammarRejected: the grammar can't be enforced, or the tokenizer isn't supported.
        """
        if self._tokenizer is None:
            raise GrammarRejected(f"the model's tokenizer can't be constrained: {self._reason}")
        matcher = LLMatcher(self._tokenizer, source, log_level=0, limits=_LIMITS)
        mask = b""
        if not matcher.is_error():
            mask = matcher.compute_bitmask()  # detects grammars that allow no text
        if matcher.is_error():
            raise GrammarRejected(_reason(matcher))
        return Grammar(matcher, source, len(mask))


def _reason(matcher: LLMatcher) -> str:
    """Return the matcher's error message, worded for the author of the schema."""
    error = matcher.get_error().removesuffix("<non-verbose/>").strip()
    return "no text matches it" if error == "NoExtensionBias" else error


def _read(hf: Any, vocab_size: int, eos_ids: list[int]) -> tuple[LLTokenizer | None, str]:
    """Convert a transformers tokenizer to llguidance's, or return None and the reason."""
    # Imported here, as it imports transformers, which takes seconds.
    from llguidance.hf import from_tokenizer

    if not eos_ids:
        return None, "the model has no end-of-sequence token"
    try:
        return from_tokenizer(hf, n_vocab=max(vocab_size, len(hf)), eos_token=eos_ids), ""
    except ValueError as error:
        return None, str(error)
