"""Decides whether adapters can change a model's head, embedding and norms.

Adapters change a module's output token by token. This isn't possible if the model doesn't call the
module, calls it twice, or calls it with rows other than the batch's tokens.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from shared.errors import ModelRejected
from worker.lora.base.modules import BaseModules
from worker.model.loading.refusals import OTHER_ENGINE
from worker.model.trace import Call


def adaptable_modules(base: BaseModules) -> list[str]:
    """Return the names of the modules that adapters may be able to change.

    Pass the model's calls of these modules to `without_unsuitable`, which decides whether adapters
    can change them.
    """
    embedding = [base.embedding.name] if base.embedding else []
    return [*embedding, *base.linears, *base.norms]


def without_unsuitable(base: BaseModules, calls: Sequence[Call]) -> BaseModules:
    """Return `base` without the modules that, according to `calls`, adapters can't change.

    Only the head, the embedding and norms can be removed. Each of these modules stays if it was
    called exactly once, with one row per token.
    """
    counts = Counter(call.name for call in calls)
    suitable = {call.name for call in calls if counts[call.name] == 1 and _is_by_token(call)}
    tables = {base.head or "", base.embedding.name if base.embedding else ""}
    unsuitable = tables - suitable - {""}
    return replace(
        base,
        norms={name: sizes for name, sizes in base.norms.items() if name in suitable},
        linears={name: shape for name, shape in base.linears.items() if name not in unsuitable},
        head=None if base.head in unsuitable else base.head,
        embedding=None if base.embedding and base.embedding.name in unsuitable else base.embedding,
        others={**base.others, **dict.fromkeys(unsuitable, "not called once for each token")},
    )


def check_each_is_called_once(source: str, base: BaseModules, calls: list[Call]) -> None:
    """Check that the model calls each linear except the head exactly once per forward pass.

    Some models multiply by a linear's weight without calling the linear. An adapter on such a
    linear would have no effect.

    Raises:
        ModelRejected: such a linear isn't called, or is called more than once.
    """
    counts = Counter(call.name for call in calls)
    missed = [name for name in base.linears if name != base.head and counts[name] != 1]
    if missed:
        raise ModelRejected(
            f"--model {source}: adapters on {', '.join(missed)} would be computed wrongly, because "
            f"the model doesn't call each of these linears once per forward; {OTHER_ENGINE}"
        )


def _is_by_token(call: Call) -> bool:
    """Return whether the call's input and output have the shape `[1, tokens, ...]`."""
    if len(call.args) != 1 or call.kwargs or not isinstance(call.output, Tensor):
        return False
    shape = call.input.shape
    return len(shape) >= 2 and shape[0] == 1 and call.output.shape[:2] == shape[:2]
