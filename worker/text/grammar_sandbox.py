"""Builds and compiles one grammar in its own process: `python -m worker.text.grammar_sandbox`.

llguidance limits most costs of a grammar, but not all. For example, a `multipleOf` of 10^8 takes
minutes of CPU time and gigabytes of memory. The process reads a `Constraint`, builds and compiles
its grammar, and writes the grammar as text.
"""

import json
from dataclasses import replace
from typing import NamedTuple

import orjson
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from shared.errors import GrammarRejected
from shared.protocol.tools import ToolChoice, ToolForm, ToolUse
from shared.sandbox import SandboxAnswer, answer_once, ask_sandbox
from worker.engine.grammar import GrammarSource
from worker.text.grammar_reason import plain_reason
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
    """Return the grammar of a constraint, after compiling it in this process.

    Raises:
        GrammarRejected: the grammar can't be built or compiled.
    """
    decoded = _decode(constraint)
    if (source := _compiled(decoded)).error:
        found = _bad_tool(decoded.tools) if decoded.tools else None
        raise GrammarRejected(found or source.error)
    return source.text


class _Compiled(NamedTuple):
    """A grammar that compiles, or the reason (`error`) why it can't be built or compiled."""

    text: GrammarSource
    error: str


def _compiled(constraint: Constraint) -> _Compiled:
    try:
        source = source_of(constraint)
    except GrammarRejected as rejected:
        return _Compiled(GrammarSource(""), str(rejected))
    tokenizer = LLTokenizer(TokenizerWrapper(_ByteTokenizer()), slices=[])
    limits = LLParserLimits(verbose_errors=False)
    error = LLMatcher(tokenizer, source, log_level=0, limits=limits).get_error()
    is_own = constraint.grammar is not None  # its author knows its lines
    return _Compiled(source, error if is_own else plain_reason(error))


def _bad_tool(use: ToolUse) -> str | None:
    """Return why the tools' grammars don't compile, as text.

    The text names the field of the first tool whose grammar doesn't compile, and the reason. Return
    None if the grammar of each tool compiles alone.
    """
    for i, tool in enumerate(use.tools):
        if tool["function"]["name"] in use.names:
            alone = _compiled(Constraint(tools=replace(use, tools=(tool,))))
            if alone.error:
                return f"tools[{i}].function.parameters: {alone.error}"
    return None


def _decode(constraint: bytes) -> Constraint:
    fields = json.loads(constraint)
    if tools := fields["tools"]:
        form, choice = ToolForm(tools.pop("form")), ToolChoice(tools.pop("choice"))
        fields["tools"] = ToolUse(**tools, form=form, choice=choice)
    return Constraint(**fields)


if __name__ == "__main__":
    answer_once(compiled_source, rejections=(GrammarRejected,))
