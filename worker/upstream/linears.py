"""The linear of GPT-2 in transformers, whose weight is transposed."""

from worker.upstream.changes import names_of

with names_of("transformers"):
    from transformers.pytorch_utils import Conv1D

__all__ = ["Conv1D"]
