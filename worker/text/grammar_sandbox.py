"""Compiles one grammar in its own process: `python -m worker.text.grammar_sandbox`.

llguidance limits most costs of a grammar, but not all. For example, a `multipleOf` of 10^8 takes
minutes of CPU time and gigabytes of memory. The process reads the grammar from stdin. If the
grammar can't be compiled, the process writes the reason to stdout. Otherwise it writes nothing. If
the process exceeds a resource limit, the kernel kills it.
"""

import resource
import sys

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

MAX_CPU_S = 2
"""Limit of the process's CPU time, in seconds."""
MAX_BYTES = 256 << 20
"""Limit of the process's address space in bytes, including the interpreter."""
_EOS_ID = 256


class _ByteTokenizer:
    """Tokenizer with one token per byte, used instead of the model's tokenizer.

    The choice of the tokenizer hardly affects the cost of compiling a grammar.
    """

    eos_token_id = _EOS_ID
    bos_token_id = None
    special_token_ids = (_EOS_ID,)
    tokens = (*(bytes([byte]) for byte in range(256)), b"<eos>")

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


def main() -> None:
    """Read a grammar from stdin and compile it. Write the error, if any, to stdout."""
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_S, MAX_CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    tokenizer = LLTokenizer(TokenizerWrapper(_ByteTokenizer()), slices=[])
    limits = LLParserLimits(verbose_errors=False)
    source = sys.stdin.buffer.read().decode()
    matcher = LLMatcher(tokenizer, source, log_level=0, limits=limits)
    sys.stdout.buffer.write(matcher.get_error().encode())


if __name__ == "__main__":
    main()
