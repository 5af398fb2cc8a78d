"""Checks tensors that PEFT stores twice.

PEFT may store copies of the base's tables, which are the weights of the embedding and the head. If
an adapter ties the embedding and the head, PEFT stores each tied tensor twice: once for the
embedding and once for the head.
"""

import torch

from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint.expected_tensors import table_copy_key
from worker.lora.checkpoint.target_modules import TrainedModules
from worker.lora.checkpoint.tensor_names import TensorKey, TensorRole
from worker.lora.checkpoint.tensors import AdapterTensors

_TIED_ROLES = (
    (TensorRole.LORA_A, TensorRole.EMBEDDING_B),
    (TensorRole.LORA_B, TensorRole.EMBEDDING_A),
    (TensorRole.WEIGHT, TensorRole.WEIGHT),
)
"""Pairs of roles whose tensors PEFT ties. The first role is the head's, the second the embedding's.

Tied low-rank matrices are transposes of each other.
"""


def check_duplicates(tensors: AdapterTensors, base: BaseModules, trained: TrainedModules) -> None:
    """Check that tensors stored twice are equal, and drop copies of the base's tables.

    Raises:
        AdapterRejected: two tensors that PEFT requires to be equal are different.
    """
    for module, table in base.tables.items():
        key = tensors.find(table_copy_key(module, trained))
        if key is not None and module not in trained.saved:
            if not table.equals(tensors[key]):
                raise tensors.refusal(
                    key,
                    "differs from the base model's weight: the adapter was trained on another base",
                )
            tensors.drop(key)
    if trained.is_tied:
        _check_ties(tensors, base)


def _check_ties(tensors: AdapterTensors, base: BaseModules) -> None:
    assert base.embedding is not None
    assert base.head is not None
    for head_role, embedding_role in _TIED_ROLES:
        key = tensors.find(TensorKey(base.head, head_role))
        tied_key = tensors.find(TensorKey(base.embedding.name, embedding_role))
        if key is not None and tied_key is not None:
            tied = tensors[tied_key]
            if not torch.equal(tensors[key], tied if head_role is embedding_role else tied.t()):
                raise tensors.refusal(key, "differs from the embedding's, to which it is tied")
