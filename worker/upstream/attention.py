"""The registry of attention functions in transformers."""

from worker.upstream.changes import names_of

with names_of("transformers"):
    from transformers import AttentionInterface

__all__ = ["AttentionInterface"]
