"""Grammars that answers must follow, with llguidance: which tokens may come next in each.

A grammar's state is a function of the tokens that it was advanced by, so a moved or recomputed
answer goes on alike.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NewType

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from shared.errors import ErrorCode, GrammarRejected, JobError, JobFailed

GrammarSource = NewType("GrammarSource", str)
"""A grammar as text: llguidance's JSON form or its Lark dialect."""

# All of them, as a client's schema could set each by a field "x-guidance" of its own.
JSON_OPTIONS: Any = {  # its TypedDict exists for type checkers only
    "item_separator": ",",
    "key_separator": ":",
    "whitespace_flexible": True,
    # Enough for both usual styles, and bounded: else a model may write spaces until it is cut.
    "whitespace_pattern": r" |\n {0,32}",
    "coerce_one_of": False,
    "lenient": False,
    # With \u only for what can't be written otherwise: half surrogate pairs aren't characters.
    "json_allowed_escapes": 'nrbtf\\"u',
    "json_allow_general_unicode_escapes": False,
}
"""How JSON is written, under the key "x-guidance" of a schema."""
_LIMITS = LLParserLimits(max_lexer_states=32_000, verbose_errors=False)
"""1-2 kB a state, for each running answer. A step's cost is bounded by llguidance's defaults."""

TOO_COMPLEX = JobError(
    code=ErrorCode.INVALID_VALUE,
    message="the schema that the answer must follow became too complex to enforce: simplify it",
)


def json_source(schema: str) -> GrammarSource:
    """The grammar of the JSON texts that are valid under `schema`, a JSON Schema as JSON text.

    Raises:
        GrammarRejected: it isn't an object, or nested too deeply to be read.
    """
    try:
        return GrammarSource(LLMatcher.grammar_from_json_schema(schema, overrides=JSON_OPTIONS))
    except ValueError as error:
        raise GrammarRejected(str(error)) from None


class GrammarState:
    """Where one answer is in its grammar."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def allowed(self) -> bytes:
        """The tokens that may come next: bit `i % 8` of byte `i // 8` stands for token i.

        All states of a tokenizer's grammars give equally many bytes. No bit is set when the
        grammar has become too complex to go on.
        """
        mask = self._matcher.compute_bitmask()
        # llguidance itself would allow the end there.
        return bytes(len(mask)) if self._matcher.is_error() else mask

    def advance(self, token_id: int) -> None:
        """Take the token that was drawn, one of those that were allowed."""
        self._matcher.consume_token(token_id)


class Grammar:
    """A compiled grammar; any number of answers may follow it, on any threads."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def start(self, shown: Sequence[int] = ()) -> GrammarState:
        """The state of an answer of which the tokens `shown` exist already.

        Raises:
            JobFailed: they don't follow the grammar.
        """
        matcher = self._matcher.deep_copy()
        if not matcher.consume_tokens(list(shown)):
            message = "another worker showed an answer that doesn't follow its schema here"
            raise JobFailed(JobError(code=ErrorCode.RESUME_DIVERGED, message=message))
        return GrammarState(matcher)


class GrammarCompiler:
    """Compiles grammars for one tokenizer. Thread-safe."""

    def __init__(self, hf_tokenizer: Any, *, vocab_size: int, eos_ids: Iterable[int]) -> None:
        """Take the tokenizer in.

        Args:
            hf_tokenizer: of transformers.
            vocab_size: rows of the model's embedding; those beyond the tokenizer are never allowed.
            eos_ids: what ends an answer, allowed where the grammar ends and only there.
        """
        self._tokenizer, self._reason = _read(hf_tokenizer, vocab_size, sorted(eos_ids))

    def compile(self, source: GrammarSource) -> Grammar:
        """The grammar, compiled; releases the GIL while it works.

        Raises:
            GrammarRejected: it can't be enforced, or none can with this tokenizer.
        """
        if self._tokenizer is None:
            raise GrammarRejected(f"the model's tokenizer can't be constrained: {self._reason}")
        matcher = LLMatcher(self._tokenizer, source, log_level=0, limits=_LIMITS)
        if not matcher.is_error():
            matcher.compute_bitmask()  # finds what allows nothing at all, or too much
        if matcher.is_error():
            raise GrammarRejected(_reason(matcher))
        return Grammar(matcher)


def _reason(matcher: LLMatcher) -> str:
    """Why the matcher is in an error state, in words for whoever wrote the schema."""
    error = matcher.get_error().removesuffix("<non-verbose/>").strip()
    return "no text follows it" if error == "NoExtensionBias" else error


def _read(hf: Any, vocab_size: int, eos_ids: list[int]) -> tuple[LLTokenizer | None, str]:
    """The tokenizer as llguidance reads it, or None and why it can't."""
    # Only here: it imports transformers, which takes seconds.
    from llguidance.hf import from_tokenizer

    if not eos_ids:
        return None, "the model has no end-of-sequence token"
    try:
        return from_tokenizer(hf, n_vocab=max(vocab_size, len(hf)), eos_token=eos_ids), ""
    except ValueError as error:
        return None, str(error)
