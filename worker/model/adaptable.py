"""Decides whether adapters can change a model's linears, head, embedding and norms.

Adapters change a module's output token by token. This isn't possible if the model doesn't call the
module, or calls it with rows other than the batch's tokens.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import torch
from torch import Size, Tensor, nn
from transformers import PreTrainedModel

from shared.errors import ModelRejected
from worker.lora.base.experts import ROUTER
from worker.lora.base.modules import BaseModules
from worker.lora.router_weight import OnProduct, release_routers, watch_routers
from worker.model.loading.refusals import OTHER_ENGINE, some_of
from worker.model.module_calls import Call, record_calls

Calls = Sequence[Call]

_NOT_BY_TOKEN = "not called with a row for each token"
_NO_TENSOR = "doesn't return one tensor"


def adaptable_modules(base: BaseModules) -> list[str]:
    """Return the names of the modules whose calls must be recorded for `without_unsuitable`.

    They are the embedding, the linears, the norms and the experts of `base`.
    """
    embedding = [base.embedding.name] if base.embedding else []
    return [*embedding, *base.linears, *base.norms, *_mixtures(base)]


def by_token_routers(
    model: nn.Module, base: BaseModules, num_tokens: int, run: Callable[[], None]
) -> set[str]:
    """Run a forward pass by `run`. Return the routers that are called with a row for each token.

    Each of them multiplies by its weight exactly once.
    """
    rows: dict[str, list[int]] = {
        weight.module: [] for weight in base.experts.values() if weight.parameter == ROUTER
    }

    def counting(name: str) -> OnProduct:
        return lambda x, _: rows[name].append(x.shape[:-1].numel())

    watch_routers(model, rows, counting)
    try:
        run()
    finally:
        release_routers(model, rows)
    return {name for name, counts in rows.items() if counts == [num_tokens]}


def _mixtures(base: BaseModules) -> list[str]:
    """Return the names of the modules of experts."""
    weights = base.experts.values()
    return list(dict.fromkeys(each.module for each in weights if each.parameter != ROUTER))


@torch.inference_mode()
def check_each_is_called(source: str, model: PreTrainedModel, base: BaseModules) -> None:
    """Check, by a forward pass, that the model calls each of its linears except the head.

    Some models multiply by a linear's weight without calling the linear. Such a linear can't be
    quantised, as its weight is dequantised only while it is called.

    Raises:
        ModelRejected: such a linear isn't called.
    """
    ids = torch.zeros(1, 2, dtype=torch.int64, device=model.device)
    with record_calls(model, base.linears) as calls:
        model(input_ids=ids, use_cache=False)
    called = {call.name for call in calls}
    missed = [name for name in base.linears if name != base.head and name not in called]
    if missed:
        raise ModelRejected(
            f"--model {source}: {type(model).__name__} doesn't call each of its linears, so "
            f"{some_of(missed)} can't be quantised; leave --quantize out, or {OTHER_ENGINE}"
        )


def check_adaptable(source: str, model: nn.Module, base: BaseModules) -> None:
    """Check that adapters can change a linear besides the head. `base` has the suitable modules.

    Raises:
        ModelRejected: there is no such linear.
    """
    if base.linears.keys() <= {base.head}:
        raise ModelRejected(
            f"--model {source}: adapters can't change any linear of {type(model).__name__}; "
            f"{OTHER_ENGINE}"
        )


def without_unsuitable(
    base: BaseModules, calls: Calls, *, num_tokens: int, num_logits: int, routers: Collection[str]
) -> BaseModules:
    """Return `base` without the modules that adapters can't change, according to `calls`.

    `calls` are the calls in one forward pass. A module stays if it was called, and each call had
    one row for each of the pass's `num_tokens` tokens. The head must get one row for each of the
    `num_logits` tokens whose logits are computed. Callers choose different values for `num_tokens`
    and `num_logits`. Modules that get only the head's rows are recognised by this difference. Of
    the routers, those in `routers` stay.
    """
    calls_of: dict[str, list[Call]] = {name: [] for name in adaptable_modules(base)}
    for call in calls:
        if call.name in calls_of:
            calls_of[call.name].append(call)
    unsuitable = {}
    found = _mixtures(base)
    mixtures = {name for name in found if _routes_each_token(calls_of.pop(name), num_tokens)}
    for name, its_calls in calls_of.items():
        num_rows = num_logits if name == base.head else num_tokens
        if problem := _problem(its_calls, num_rows, is_linear=name in base.linears):
            unsuitable[name] = problem
    return replace(
        base,
        norms={name: sizes for name, sizes in base.norms.items() if name not in unsuitable},
        linears={name: shape for name, shape in base.linears.items() if name not in unsuitable},
        head=None if base.head in unsuitable else base.head,
        embedding=None if base.embedding and base.embedding.name in unsuitable else base.embedding,
        others={**base.others, **unsuitable},
        experts={
            name: weight
            for name, weight in base.experts.items()
            if weight.module in routers or weight.module in mixtures
        },
    )


def _problem(calls: Calls, num_rows: int, *, is_linear: bool) -> str | None:
    """Return why adapters can't change a module, or None if they can."""
    if not all(isinstance(call.output, Tensor) for call in calls):
        return _NO_TENSOR
    are_by_token = [_is_by_token(call, num_rows, is_linear=is_linear) for call in calls]
    return None if are_by_token and all(are_by_token) else _NOT_BY_TOKEN


def _is_by_token(call: Call, num_rows: int, *, is_linear: bool) -> bool:
    if len(call.args) != 1 or call.kwargs:
        return False
    shapes = (call.input.shape, call.output.shape)
    return all(_has_rows(shape, num_rows, is_linear=is_linear) for shape in shapes)


def _routes_each_token(calls: Calls, num_tokens: int) -> bool:
    """Return whether experts are called once, with a row for each token and `[T, K]` experts."""
    if len(calls) != 1:
        return False
    inputs = [*calls[0].args, *calls[0].kwargs.values()]
    shapes = [value.shape for value in inputs if isinstance(value, Tensor)]
    return len(shapes) == len(inputs) == 3 and all(
        len(shape) == 2 and shape[0] == num_tokens for shape in shapes
    )


def _has_rows(shape: Size, num_rows: int, *, is_linear: bool) -> bool:
    """Return whether a tensor of this shape has `num_rows` rows.

    A linear's tensors have the shape `[..., width]`, and others `[1, num_rows, ...]`.
    """
    return shape[:-1].numel() == num_rows if is_linear else shape[:2] == (1, num_rows)
