"""Builds and compiles one grammar in its own process: `python -m worker.text.grammar_sandbox`.

llguidance limits most costs of a grammar, but not all. For example, a `multipleOf` of 10^8 takes
minutes of CPU time and gigabytes of memory. The process's input is a `Constraint`. Its output is
the grammar, once it has compiled there.
"""

import json

import orjson
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from shared.errors import GrammarRejected
from shared.protocol.tools import ToolChoice, ToolForm, ToolUse
from shared.sandbox import SandboxAnswer, answer_once, ask_sandbox
from worker.engine.grammar import GrammarSource
from worker.text.grammar_source import Constraint, source_of

_EOS_ID = 256


class _ByteTokenizer:
    """Tokenizer with one token per byte. It hardly affects the cost of compiling a grammar."""

    eos_token_id = _EOS_ID
    bos_token_id = None
    special_token_ids = (_EOS_ID,)
    tokens = (*(bytes([byte]) for byte in range(256)), b"<eos>")

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


def encode_constraint(constraint: Constraint) -> bytes:
    """Return a constraint as JSON. Equal constraints have equal JSON."""
    return orjson.dumps(constraint)


def build_grammar(constraint: bytes) -> SandboxAnswer:
    """Build and compile the grammar of an encoded constraint in another process. Blocks."""
    return ask_sandbox(__name__, constraint)


def compiled_source(constraint: bytes) -> GrammarSource:
    """Return the grammar of a constraint, compiled here. Raises GrammarRejected if it's invalid."""
    source = source_of(_decode(constraint))
    tokenizer = LLTokenizer(TokenizerWrapper(_ByteTokenizer()), slices=[])
    limits = LLParserLimits(verbose_errors=False)
    if reason := LLMatcher(tokenizer, source, log_level=0, limits=limits).get_error():
        raise GrammarRejected(reason)
    return source


def _decode(constraint: bytes) -> Constraint:
    fields = json.loads(constraint)
    if tools := fields["tools"]:
        form, choice = ToolForm(tools.pop("form")), ToolChoice(tools.pop("choice"))
        fields["tools"] = ToolUse(**tools, form=form, choice=choice)
    return Constraint(**fields)


if __name__ == "__main__":
    answer_once(compiled_source, rejections=(GrammarRejected,))
