"""Matches texts against grammars, byte by byte."""

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from worker.engine.grammar import GrammarSource


class ByteTokenizer:
    """Tokenizer whose tokens are single bytes."""

    eos_token_id = 256
    bos_token_id = None
    special_token_ids = (256,)
    tokens = (*(bytes([byte]) for byte in range(256)), b"<eos>")

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


TOKENIZER = LLTokenizer(TokenizerWrapper(ByteTokenizer()), slices=[])


def is_answer(source: GrammarSource, text: str) -> bool:
    """Return whether `text` is a complete answer under a grammar."""
    matcher = LLMatcher(TOKENIZER, source, log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    ids = list(text.encode())
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()
