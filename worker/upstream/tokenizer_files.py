"""What transformers knows about the tokenizers of other libraries."""

from worker.upstream.changes import names_of

with names_of("transformers"):
    from transformers.convert_slow_tokenizer import bytes_to_unicode, import_protobuf

__all__ = ["bytes_to_unicode", "import_protobuf"]
