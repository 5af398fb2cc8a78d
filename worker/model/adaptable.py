"""Which modules beside the decoder's linears adapters can change: those called as expected.

A change is made to the outputs of modules, token by token. What a model doesn't call, calls twice
or calls with other rows than the batch's tokens can't be changed so.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from worker.lora.base.modules import BaseModules
from worker.model.trace import Call


def changeable(base: BaseModules) -> list[str]:
    """The names of all modules that an adapter may ask to be changed."""
    embedding = [base.embedding.name] if base.embedding else []
    return [*embedding, *base.linears, *base.norms]


def without_uncalled(base: BaseModules, calls: Sequence[Call]) -> BaseModules:
    """`base` without the head, the embedding and the norms that weren't called as they must be."""
    counts = Counter(call.name for call in calls)
    found = {call.name for call in calls if counts[call.name] == 1 and _is_by_token(call)}
    lost = {base.head or "", base.embedding.name if base.embedding else ""} - found - {""}
    return replace(
        base,
        norms={name: sizes for name, sizes in base.norms.items() if name in found},
        linears={name: shape for name, shape in base.linears.items() if name not in lost},
        head=None if base.head in lost else base.head,
        embedding=None if base.embedding and base.embedding.name in lost else base.embedding,
        others={**base.others, **dict.fromkeys(lost, "called in a way of its own")},
    )


def _is_by_token(call: Call) -> bool:
    """Whether input and output are `[1, tokens, ...]`."""
    if len(call.args) != 1 or call.kwargs or not isinstance(call.output, Tensor):
        return False
    shape = call.input.shape
    return len(shape) >= 2 and shape[0] == 1 and call.output.shape[:2] == shape[:2]
