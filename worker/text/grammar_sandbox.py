"""Compiles one grammar in its own process: `python -m worker.text.grammar_sandbox`.

llguidance bounds most of what a grammar may cost, but not all: a `multipleOf` of 10^8 takes minutes
and gigabytes. Reads the grammar from stdin and writes why it can't be compiled, or nothing; is
killed when it takes too much.
"""

import resource
import sys

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

MAX_CPU_S = 2
MAX_BYTES = 256 << 20
"""Address space, the interpreter's included."""
_EOS_ID = 256


class _Bytes:
    """A tokenizer of single bytes: what a grammar costs hardly depends on the tokenizer."""

    eos_token_id = _EOS_ID
    bos_token_id = None
    special_token_ids = (_EOS_ID,)
    tokens = (*(bytes([byte]) for byte in range(256)), b"<eos>")

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


def main() -> None:
    """Compile, and say what is wrong."""
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_S, MAX_CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    tokenizer = LLTokenizer(TokenizerWrapper(_Bytes()), slices=[])
    limits = LLParserLimits(verbose_errors=False)
    source = sys.stdin.buffer.read().decode()
    matcher = LLMatcher(tokenizer, source, log_level=0, limits=limits)
    sys.stdout.buffer.write(matcher.get_error().encode())


if __name__ == "__main__":
    main()
