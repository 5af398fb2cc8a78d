"""Pools, adapters and wrapped models for tests of LoRA."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from shared.protocol.ids import AdapterVersion
from worker.kernels.interface import Kernels, LoRASite
from worker.kernels.reference import ReferenceKernels
from worker.lora.base.modules import BaseModules, ModuleShape, base_modules
from worker.lora.batch import BatchCache, build_batch
from worker.lora.checkpoint.adapter import LoRAAdapter, read_checkpoint
from worker.lora.checkpoint.adapter_files import AdapterFiles
from worker.lora.checkpoint.low_rank import LowRank, LowRankStack
from worker.lora.layers import LoRAContext, Siblings, serve_linears, weights_of
from worker.lora.memory.layout import AdapterImage
from worker.lora.memory.pool import LoRAPool

CPU = torch.device("cpu")


def small_base(num_layers: int = 2, *, width: int = 16, out: int = 24) -> BaseModules:
    """Return a base with two linears per layer, `q` and `up`, and one outside the layers."""
    linears = {"project_in": ModuleShape(out, width)}
    for layer in range(num_layers):
        linears[f"layers.{layer}.q"] = ModuleShape(width, width)
        linears[f"layers.{layer}.up"] = ModuleShape(width, out)
    return BaseModules(
        model_type="made",
        linears=linears,
        conv1d=frozenset(),
        others={},
        all_linear=frozenset(linears),
    )


def random_adapter(
    base: BaseModules,
    name: str,
    ranks: Mapping[str, int],
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> LoRAAdapter:
    generator = torch.Generator().manual_seed(seed)
    stacks = []
    for module, rank in ranks.items():
        shape = base.linears[module]
        a = torch.randn(rank, shape.in_features, generator=generator)
        b = torch.randn(rank, shape.out_features, generator=generator)
        matrices = a.to(dtype)[None], b.to(dtype).t()[None]
        stacks.append(LowRankStack([module], *matrices, 1.0, 1.0))
    modules = LowRank(stacks, list(ranks))
    return LoRAAdapter(
        name=name,
        version=AdapterVersion(f"{name}@{seed:012d}"),
        digest="",
        weights_digest="",
        source="",
        folder=Path(),
        rank=max(ranks.values()),
        num_bytes=modules.num_bytes,
        modules=modules,
    )


def empty_pool(
    base: BaseModules, max_bytes: int = 1 << 20, dtype: torch.dtype = torch.float32
) -> LoRAPool:
    return LoRAPool(base, max_bytes=max_bytes, dtype=dtype, device=CPU)


@dataclass
class WrappedModel:
    """A model whose linears are served, with an adapter pool."""

    model: nn.Module
    base: BaseModules
    pool: LoRAPool
    context: LoRAContext

    def load(self, folder: Path, name: str = "a") -> AdapterVersion:
        """Make the adapter in `folder` resident and return its version."""
        adapter = read_checkpoint(
            name, AdapterFiles(folder), self.base, dtype=self.pool.layout.dtype
        )
        assert self.pool.add(adapter)
        return adapter.version

    def logits(self, ids: torch.Tensor, rows: Sequence[AdapterVersion | None]) -> torch.Tensor:
        """Return the logits of `ids` `[rows, length]`, each row with its adapter or the base."""
        self.context.batch = build_batch(self.pool, [(version, ids.shape[1]) for version in rows])
        logits: torch.Tensor = self.model(input_ids=ids).logits
        return logits


def wrap(model: nn.Module) -> WrappedModel:
    """Serve `model` with an empty pool of 64 MiB, computing each linear on its own."""
    base = base_modules(model)
    pool = empty_pool(base, 64 << 20, next(model.parameters()).dtype)
    kernels = ReferenceKernels()
    siblings = serve_linears(model, [[name] for name in base.linears], kernels)
    base = replace(base, weights=weights_of(siblings, base.linears))
    context = attach_siblings(siblings, pool, kernels)
    pool.side.attach(model, context.hook_of)
    return WrappedModel(model, base, pool, context)


def attach_siblings(siblings: Sequence[Siblings], pool: LoRAPool, kernels: Kernels) -> LoRAContext:
    context = LoRAContext(kernels, BatchCache(pool))
    for group in siblings:
        group.attach(pool, context)
    return context


def image_tensor(image: AdapterImage) -> torch.Tensor:
    """Return the contents of a float32 image as a flat tensor."""
    memory = torch.zeros(image.num_bytes // 4)
    image.copy_to([memory])
    return memory


def site_of(pool: LoRAPool, name: str) -> LoRASite:
    (site,) = pool.sibling_sites([name], [0]).storage.sites
    return site


def check(pool: LoRAPool, adapter: LoRAAdapter) -> None:
    """Check that the pool holds the adapter's weights, and zeros in unused rows."""
    for name, (group, layer) in pool.sites.items():
        pages = torch.from_numpy(pool.pages(adapter.version, group))[layer]
        if not len(pages):
            assert name not in adapter.modules
            continue
        site = site_of(pool, name)
        assert (site.group, site.layer) == (group, layer)
        a, b = site.a[pages.long()].flatten(0, 1), site.b[pages.long()].flatten(0, 1)
        rank = 0
        if name in adapter.modules:
            weights = adapter.modules[name]
            rank = len(weights.a)
            assert torch.equal(a[:rank], weights.a)
            assert torch.equal(b[:rank].t(), weights.b)
        assert not a[rank:].any()
        assert not b[rank:].any()
