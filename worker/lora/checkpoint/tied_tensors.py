"""Tensors that PEFT stores twice: copies of the base's own, and both halves of a tied pair."""

import torch

from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint.expected_tensors import copy_key
from worker.lora.checkpoint.target_modules import Trained
from worker.lora.checkpoint.tensor_names import Part, TensorKey
from worker.lora.checkpoint.tensors import AdapterTensors

_TIED = (
    (Part.LORA_A, Part.EMBEDDING_B),
    (Part.LORA_B, Part.EMBEDDING_A),
    (Part.WEIGHT, Part.WEIGHT),
)
"""What of the head PEFT ties to what of the embedding; the first two are transposed."""


def check_copies(tensors: AdapterTensors, base: BaseModules, trained: Trained) -> None:
    """Drop copies of the base's own tables, and check that what PEFT ties is equal.

    Raises:
        AdapterRejected: what should be equal isn't, so that PEFT would do something else.
    """
    for module, table in base.tables.items():
        key = tensors.find(copy_key(module, trained))
        if key is not None and module not in trained.saved:
            if not table.equals(tensors[key]):
                raise tensors.refusal(
                    key, "isn't what the base model has: the adapter belongs to another base"
                )
            tensors.drop(key)
    if trained.is_tied:
        _check_ties(tensors, base)


def _check_ties(tensors: AdapterTensors, base: BaseModules) -> None:
    assert base.embedding is not None
    assert base.head is not None
    for of_head, of_embedding in _TIED:
        key = tensors.find(TensorKey(base.head, of_head))
        tied = tensors.find(TensorKey(base.embedding.name, of_embedding))
        if key is not None and tied is not None:
            other = tensors[tied]
            if not torch.equal(tensors[key], other if of_head is of_embedding else other.t()):
                raise tensors.refusal(key, "differs from the embedding's, which it is tied to")
