"""Computes the experts of a mixture, including LoRA terms.

Each row of an expert's input is a token that was routed to it. The rows of a layer are sorted by
expert, and then by adapter. The rows of one adapter at one expert form a pair. The LoRA kernels
treat each pair as an adapter of its own, with the pages that the adapter has for this expert.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from worker.kernels.interface import LoRAPages, LoRAPlan
from worker.kernels.transfer import to_device
from worker.lora.base.experts import DOWN, GATE_UP, ROUTER, UP, MixtureWeight
from worker.lora.batch import NO_ADAPTER, LoRABatch, starts_of
from worker.lora.layers import LoRAContext
from worker.lora.memory.layout import Site
from worker.lora.memory.pages import PAGE_ROWS
from worker.lora.memory.pool import LoRAPool
from worker.lora.router_weight import attach_routers
from worker.upstream.experts import (
    ALL_EXPERTS_FUNCTIONS,
    grouped_linear,
    grouped_mm_experts_forward,
)

SORTED_EXPERTS = "lorikeet_sorted"
"""Name under which `compute_experts` is registered in transformers."""
_ATTRIBUTE = "lorikeet_adapters"
"""Attribute of a module of experts that holds its `ExpertAdapters`."""


@dataclass(frozen=True, slots=True)
class Routing:
    """The rows of a layer's experts, sorted by expert, and then by adapter."""

    tokens: NDArray[np.int64]
    """`[S]`: the token of each row."""
    places: NDArray[np.int64]
    """`[S]`: index of each row in `top_k_index`, flattened."""
    experts: NDArray[np.int64]
    """`[S]`: the expert of each row."""
    adapters: NDArray[np.int64]
    """`[S]`: the adapter of each row, or NO_ADAPTER."""


class ExpertAdapters:
    """The LoRA terms of one layer's experts."""

    def __init__(
        self, weights: Iterable[MixtureWeight], pool: LoRAPool, context: LoRAContext
    ) -> None:
        self._sites = {weight.parameter: pool.expert_sites(weight) for weight in weights}
        self._pool = pool
        self._context = context

    @property
    def batch(self) -> LoRABatch | None:
        """Batch of the tokens that are computed now. None if no adapter of it changes an expert."""
        batch = self._context.batch
        groups = [first.group for _, first in self._sites.values()]
        return batch if batch is not None and batch.targets(groups) else None

    def add_(
        self, y: Tensor, x: Tensor, parameter: str, batch: LoRABatch, routing: Routing
    ) -> None:
        """Add LoRA terms to `y` `[S, out]`, the output of a weight for `x` `[S, in]`, in place."""
        if parameter not in self._sites:
            return
        sites, first = self._sites[parameter]
        plan = self._plan(first, batch, routing, y.device)
        if plan is not None:
            self._context.kernels.add_lora_(y, x, sites, plan)

    def _plan(
        self, first: Site, batch: LoRABatch, routing: Routing, device: torch.device
    ) -> LoRAPlan | None:
        """Return the plan of one weight, or None if no adapter of the batch targets it."""
        pages_of = [self._pool.pages(version, first.group) for version in batch.owners.versions]
        pairs = [
            (start, end, pages_of[adapter][first.layer + expert])
            for start, end, expert, adapter in _pairs(routing)
            if pages_of[adapter].shape[1]
        ]
        if not pairs:
            return None
        starts, ends, pages = zip(*pairs, strict=True)
        rows = [np.arange(start, end) for start, end in zip(starts, ends, strict=True)]
        tables = [
            starts_of([len(part) for part in rows]),
            np.concatenate(rows),
            starts_of([len(part) for part in pages]),
            np.concatenate(pages)[None],
        ]
        token_starts, tokens, page_starts, flat_pages = to_device(
            [table.astype(np.int32) for table in tables], device
        )
        return LoRAPlan(
            token_starts=token_starts,
            tokens=tokens,
            pages=[LoRAPages(page_starts, flat_pages)],
            page_rows=PAGE_ROWS,
        )


def serve_experts(model: PreTrainedModel) -> None:
    """Let transformers compute the experts of `model` by `compute_experts`, if it can."""
    if model._can_set_experts_implementation():
        model.set_experts_implementation(SORTED_EXPERTS)


def attach_experts(
    model: nn.Module, weights: Iterable[MixtureWeight], pool: LoRAPool, context: LoRAContext
) -> None:
    """Let the adapters in `pool` change the outputs of experts and routers.

    `context` has each step's batch.
    """
    by_module: dict[str, list[MixtureWeight]] = {}
    weights = list(weights)
    attach_routers(model, [one for one in weights if one.parameter == ROUTER], pool, context)
    for weight in weights:
        if weight.parameter == ROUTER:
            continue
        by_module.setdefault(weight.module, []).append(weight)
    for name, its_weights in by_module.items():
        module: Any = model.get_submodule(name)
        object.__setattr__(module, _ATTRIBUTE, ExpertAdapters(its_weights, pool, context))


def compute_experts(
    self: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor
) -> Tensor:
    """Return the sum of the experts' outputs for each token. Transformers calls this in each layer.

    Args:
        self: the module of experts.
        hidden_states: `[T, hidden]`.
        top_k_index: `[T, K]` int64: the experts of each token.
        top_k_weights: `[T, K]`: their weights in the sum.

    Returns:
        `[T, hidden]`, in the dtype of `hidden_states`.
    """
    adapters: ExpertAdapters | None = getattr(self, _ATTRIBUTE, None)
    batch = adapters.batch if adapters else None
    if adapters is None or batch is None:  # without reading the routing on the host
        base: Tensor = grouped_mm_experts_forward(self, hidden_states, top_k_index, top_k_weights)
        return base
    num_tokens, num_top = top_k_index.shape
    device = hidden_states.device
    batch.check_size(["experts"], num_tokens)
    routing = _routing(top_k_index, batch)
    counts = np.bincount(routing.experts, minlength=self.num_experts)
    tokens, places, experts, ends = to_device(
        [routing.tokens, routing.places, routing.experts, counts.cumsum()], device
    )
    ends = ends.to(torch.int32)

    def product(x: Tensor, parameter: str) -> Tensor:
        bias = getattr(self, f"{parameter}_bias")[experts] if self.has_bias else None
        weight = getattr(self, parameter)
        y: Tensor = grouped_linear(x, weight, ends, bias=bias, is_transposed=self.is_transposed)
        adapters.add_(y, x, parameter, batch, routing)
        return y

    inner = product(hidden_states[tokens], GATE_UP if self.has_gate else UP)
    inner = self._apply_gate(inner) if self.has_gate else self.act_fn(inner)
    outer = product(inner, DOWN)
    if self.has_post_expert_norm:
        outer = self.post_expert_norm(outer)
    products = outer * top_k_weights.reshape(-1)[places].unsqueeze(-1)
    weighted = torch.empty_like(products)
    weighted[places] = products
    total: Tensor = weighted.view(num_tokens, num_top, -1).sum(dim=1)
    return total.to(hidden_states.dtype)


def _routing(top_k_index: Tensor, batch: LoRABatch) -> Routing:
    experts = top_k_index.reshape(-1).cpu().numpy()
    tokens = np.arange(len(experts)) // top_k_index.shape[1]
    adapters = batch.owners.numbers[tokens]
    order = np.lexsort((adapters, experts))
    return Routing(tokens[order], order, experts[order], adapters[order])


def _pairs(routing: Routing) -> Iterator[tuple[int, int, int, int]]:
    """Yield the first row, the end, the expert and the adapter of each pair with an adapter."""
    experts, adapters = routing.experts, routing.adapters
    is_first = (np.diff(experts) != 0) | (np.diff(adapters) != 0)
    starts = [0, *(np.flatnonzero(is_first) + 1).tolist()]
    for start, end in zip(starts, [*starts[1:], len(experts)], strict=True):
        if adapters[start] != NO_ADAPTER:
            yield start, end, int(experts[start]), int(adapters[start])


ALL_EXPERTS_FUNCTIONS.register(SORTED_EXPERTS, compute_experts)
