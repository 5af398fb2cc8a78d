"""The class that renders chat templates in transformers."""

from worker.upstream.changes import names_of

with names_of("transformers"):
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

__all__ = ["PreTrainedTokenizerBase"]
