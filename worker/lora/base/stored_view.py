"""Describes a base model's modules under the names of its checkpoint's dialect.

PEFT's rules then apply to an adapter exactly as they did when it was trained on that checkpoint.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TypeVar

import torch
from torch import Tensor

from worker.lora.base.base_weight import BaseWeight
from worker.lora.base.dialect import Dialect
from worker.lora.base.modules import BaseModules, ModuleShape

T = TypeVar("T")


@lru_cache(maxsize=4)
def stored_view(base: BaseModules, dialect: Dialect) -> BaseModules:
    """Return the modules of `base` under the names and shapes of a checkpoint in `dialect`.

    If a checkpoint's module consists of several served modules, its output width is the sum of
    theirs. A linear is left out if adapters can't target one of its served modules.
    """

    def renamed(found: Mapping[str, T]) -> dict[str, T]:
        named = {dialect.stored(name): value for name, value in found.items()}
        return {name: value for name, value in named.items() if name is not None}

    linears = {
        stored: _joined_shape([base.linears[name] for name in dialect.served(stored)])
        for stored in renamed(base.linears)
        if all(name in base.linears for name in dialect.served(stored))
    }
    return replace(
        base,
        model_type=dialect.model_type,
        linears=linears,
        head=base.head and dialect.stored(base.head),
        embedding=base.embedding
        and replace(base.embedding, name=dialect.stored(base.embedding.name) or ""),
        others=renamed(base.others),
        all_linear=frozenset(renamed(dict.fromkeys(base.all_linear))),
        tables=renamed(base.tables),
        norms=renamed(base.norms),
        weights={
            stored: _joined_weight([base.weights[name] for name in dialect.served(stored)])
            for stored in linears
            if all(name in base.weights for name in dialect.served(stored))
        },
        dialect=None,
    )


def _joined_shape(shapes: Sequence[ModuleShape]) -> ModuleShape:
    return ModuleShape(shapes[0].in_features, sum(shape.out_features for shape in shapes))


def _joined_weight(weights: Sequence[BaseWeight]) -> BaseWeight:
    """Return the properties of the weight that consists of the rows of all `weights`.

    Either all `weights` have a bias, or none has.
    """
    if len(weights) == 1:
        return weights[0]

    def product(x: Tensor) -> Tensor:
        return torch.cat([weight.product(x) for weight in weights], -1)

    biases = [weight.bias for weight in weights if weight.bias is not None]
    squares = torch.cat([weight.squares for weight in weights])
    return BaseWeight(squares, torch.cat(biases) if biases else None, product)
