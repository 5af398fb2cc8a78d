"""The rules by which the tokenizers in GGUF files split text, as transformers knows them."""

from worker.upstream.changes import names_of

with names_of("transformers"):
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

__all__ = ["GGUF_PRE_TOKENIZER_SPLITS"]
