"""Computes routers, which multiply by a parameter of their own, including LoRA terms."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from torch import Tensor, nn

from worker.lora.base.experts import ROUTER, MixtureWeight
from worker.lora.layers import LoRAContext
from worker.lora.memory.pool import LoRAPool

OnProduct = Callable[[Tensor, Tensor], None]
"""Function that is called with the input `[..., in]` and the output `[..., out]` of a product."""
_CASTS = {Tensor.to, Tensor.type, Tensor.float, Tensor.contiguous, Tensor.detach}
"""Methods whose result still stands for the same weight."""


class RouterWeight(Tensor):
    """A router's weight `[out, in]`. `F.linear` with it calls `on_product` with its output."""

    on_product: OnProduct

    @staticmethod
    def of(weight: Tensor, on_product: OnProduct) -> "RouterWeight":
        """Return `weight` as a router's weight, without a copy."""
        wrapped = weight.as_subclass(RouterWeight)
        wrapped.on_product = on_product
        return wrapped

    @classmethod
    def __torch_function__(
        cls,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Compute `func` on plain tensors. Keep casts of the weight what they are."""
        plain = [each.as_subclass(Tensor) if isinstance(each, cls) else each for each in args]
        result = func(*plain, **(kwargs or {}))
        if func is F.linear and isinstance(args[1], cls):
            args[1].on_product(plain[0], result)
        elif func in _CASTS and isinstance(args[0], cls):
            return cls.of(result, args[0].on_product)
        return result


def watch_routers(
    model: nn.Module, names: Iterable[str], on_product: Callable[[str], OnProduct]
) -> None:
    """Let the routers `names` call the function that `on_product` returns for each of them."""
    for name in names:
        module: Any = model.get_submodule(name)
        weight = module._parameters.pop(ROUTER, None)
        weight = module.__dict__.get(ROUTER) if weight is None else weight
        module.__dict__[ROUTER] = RouterWeight.of(_plain(weight), on_product(name))


def release_routers(model: nn.Module, names: Iterable[str]) -> None:
    """Give the routers `names` their plain parameters back."""
    for name in names:
        module: Any = model.get_submodule(name)
        weight = _plain(module.__dict__.pop(ROUTER))
        module._parameters[ROUTER] = nn.Parameter(weight, requires_grad=False)


def attach_routers(
    model: nn.Module, weights: Iterable[MixtureWeight], pool: LoRAPool, context: LoRAContext
) -> None:
    """Let the adapters in `pool` change the routers' products. `context` has each step's batch."""
    sites = {weight.module: pool.sibling_sites(weight.linears, [0]) for weight in weights}

    def adding(name: str) -> OnProduct:
        def add_(x: Tensor, y: Tensor) -> None:
            batch = context.batch
            found = batch.sites(sites[name]) if batch else None
            if batch is None or found is None:
                return
            x, y = x.reshape(-1, x.shape[-1]), y.view(-1, y.shape[-1])
            batch.check_size([name], len(x))
            if x.dtype == y.dtype == pool.layout.dtype:
                context.kernels.add_lora_(y, x, found, batch.plan)
                return
            term = torch.zeros_like(y, dtype=pool.layout.dtype)
            context.kernels.add_lora_(term, x.to(term.dtype), found, batch.plan)
            y += term.to(y.dtype)

        return add_

    watch_routers(model, sites, adding)


def _plain(weight: Tensor) -> Tensor:
    return weight.detach().as_subclass(Tensor)
