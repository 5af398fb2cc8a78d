"""Side weights in adapter memory, batches with and without them, and DoRA's scale."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from kernel_sets import SET_IDS, SETS, kernels_of
from kinds import kinds
from lora import CPU, empty_pool, random_adapter, small_base, wrap
from tiny import roughen, save_adapter, tiny_model
from torch import nn

from worker.lora.batch import build_batch
from worker.lora.checkpoint.adapter import LoRAAdapter
from worker.lora.checkpoint.low_rank import LowRank
from worker.lora.checkpoint.side_reader import dora_scale
from worker.lora.layers import Siblings
from worker.lora.memory.host_tier import HostTier
from worker.lora.memory.pages import UNIT_BYTES, units_of
from worker.lora.memory.pool import LoRAPool
from worker.lora.side.weights import (
    FullLinear,
    LowRankVectors,
    SideWeights,
    TokenLogits,
    TokenVectors,
    packed_bytes,
    unpacked,
)

BASE = small_base()
Q = {"layers.0.q": 8, "layers.1.q": 8}
PAGE_Q = 2 * 8 * (16 + 16) * 4


def side(seed: int) -> SideWeights:
    """Return random side weights of every kind, in several dtypes."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    return SideWeights(
        scales={"layers.0.q": randn(16), "layers.1.q": randn(16).double()},
        shifts={"layers.1.q": randn(16)},
        linears={
            "layers.0.up": FullLinear(randn(2, 16), None),
            "layers.1.up": FullLinear(randn(2, 16).bfloat16(), randn(2)),
            "head": TokenLogits(torch.tensor([3, 1]), randn(2, 5)),
        },
        embeddings={
            "embedding": LowRankVectors(randn(9, 2), randn(2, 5), randn(5)),
            "tokens": TokenVectors(torch.tensor([1, 3]), randn(2, 5)),
        },
        parameters={"norm": {"weight": randn(5), "bias": randn(0)}},
    )


SIDE = units_of(packed_bytes(replace(side(0), parameters={}))) * UNIT_BYTES
"""Bytes of the side weights of `with_side`."""


def with_side(name: str, *, seed: int = 0) -> LoRAAdapter:
    """Return an adapter with one page per layer and `SIDE` bytes of side weights."""
    weights = replace(side(seed), parameters={})  # without a model there are no norms
    return replace(random_adapter(BASE, name, Q, seed=seed), side=weights)


def check(pool: LoRAPool, adapter: LoRAAdapter) -> None:
    """Check that the pool holds the adapter's side weights."""
    resident = pool.side[adapter.version].weights
    for ours, theirs in zip(resident.tensors, adapter.side.tensors, strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


def test_packed_side_weights_are_unpacked_unchanged() -> None:
    weights = side(1)
    memory = torch.full((packed_bytes(weights) + 7,), 255, dtype=torch.uint8)
    views = unpacked(weights.map(lambda tensor: tensor.to("meta")), memory)
    for view, tensor in zip(views.tensors, weights.tensors, strict=True):
        view.copy_(tensor)
    for view, tensor in zip(views.tensors, weights.tensors, strict=True):
        assert torch.equal(view, tensor)
    assert {view.untyped_storage().data_ptr() for view in views.tensors} == {memory.data_ptr()}


def test_side_weights_use_adapter_memory_until_they_are_removed() -> None:
    pool = empty_pool(BASE, max_bytes=PAGE_Q + SIDE)
    first, second = with_side("a"), with_side("b", seed=1)
    assert pool.add(first)
    assert pool.num_bytes == pool.bytes_of(first.version) == PAGE_Q + SIDE
    check(pool, first)
    assert not pool.add(second)
    pool.remove(first.version)
    assert pool.num_bytes == 0
    assert first.version not in pool.side
    assert pool.add(second)
    check(pool, second)
    small = empty_pool(BASE, max_bytes=PAGE_Q + SIDE - UNIT_BYTES)
    assert not small.add(first)


def test_side_weights_may_be_fragmented_in_the_host_tier() -> None:
    pool = empty_pool(BASE)
    host = HostTier(pool.layout, 3 * (PAGE_Q + SIDE), CPU)
    for seed, name in enumerate("abc"):
        host.release(host.put(with_side(name, seed=seed)))
    assert host.num_bytes == 3 * (PAGE_Q + SIDE)
    for name, seed in (("a", 0), ("c", 2)):
        host.drop(with_side(name, seed=seed).version)
    wide = random_adapter(BASE, "d", dict.fromkeys(Q, 16), seed=3)
    fragmented = replace(wide, side=with_side("d", seed=3).side)
    host.release(host.put(fragmented))
    image = host.take(fragmented.version)
    assert image is not None
    assert with_side("b", seed=1).version in host, "the new image uses the gaps on both sides of it"
    reserved = pool.reserve(image)
    assert reserved is not None
    pool.write(reserved, image)
    pool.activate(reserved)
    check(pool, fragmented)


def test_modules_are_hooked_only_while_an_adapter_needs_it(tmp_path: Path) -> None:
    case = wrap(roughen(tiny_model("gpt_neox")))
    configs = [kinds("gpt_neox")[name] for name in ("all biases", "embedding", "all biases")]
    folders = [
        save_adapter(tmp_path / str(i), base=roughen(tiny_model("gpt_neox")), seed=i, **config)
        for i, config in enumerate(configs)
    ]

    def hooked() -> set[str]:
        return {name for name, module in case.model.named_modules() if module._forward_hooks}

    assert hooked() == set()
    first, second, third = (case.load(folder, f"a{i}") for i, folder in enumerate(folders))
    norms = set(case.base.norms)
    assert hooked() == norms | {"gpt_neox.embed_in"}
    case.pool.remove(first)
    case.pool.remove(second)
    assert hooked() == norms
    case.pool.remove(third)
    assert hooked() == set()
    assert case.pool.num_bytes == 0


@pytest.mark.parametrize("kind", ["DoRA and biases", "saved embedding and head", "tokens"])
@torch.no_grad()
def test_base_rows_are_unchanged_bit_for_bit_in_a_batch_with_side_weights(
    kind: str, tmp_path: Path
) -> None:
    case = wrap(roughen(tiny_model("qwen2")))
    config = kinds("qwen2")[kind]
    version = case.load(save_adapter(tmp_path, base=roughen(tiny_model("qwen2")), **config))
    ids = torch.arange(40, 47).repeat(2, 1)
    plain = case.model(ids).logits
    case.context.batch = build_batch(case.pool, [(None, 7), (version, 7)])
    mixed = case.model(ids).logits
    assert torch.equal(mixed[0], plain[0])
    assert not torch.allclose(mixed[1], plain[1], atol=0.1)


def test_a_batch_has_the_side_weights_that_one_of_its_adapters_has_even_alone() -> None:
    pool = empty_pool(BASE)
    plain, other = random_adapter(BASE, "plain", Q), with_side("other", seed=1)
    alone = replace(with_side("alone"), modules=LowRank((), ()))
    for adapter in (plain, other, alone):
        assert pool.add(adapter)
    check(pool, alone)
    assert build_batch(pool, [(plain.version, 3), (None, 2)]).side is None
    for version in (other.version, alone.version):
        mixed = build_batch(pool, [(plain.version, 3), (version, 2)])
        assert mixed.changes(("layers.0.q",))
        assert not mixed.changes(("project_in",))


TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 1e-3, torch.float16: 1e-3}


@pytest.mark.parametrize(("name", "dtype"), SETS, ids=SET_IDS)
@torch.no_grad()
def test_magnitudes_are_divided_by_the_row_lengths_of_the_updated_weight(
    name: str, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    linears = [nn.Linear(96, out, bias=out != 7).to(dtype) for out in (40, 7, 16)]
    weights = [linear.weight.double() for linear in linears]
    siblings = Siblings(["q", "k", "v"], linears, kernels_of(name, dtype))
    for index, weight in enumerate(weights):
        a, b = torch.randn(5, 96).to(dtype), (torch.randn(len(weight), 5) * 0.02).to(dtype)
        magnitude = torch.rand(len(weight)) + 0.5
        base = siblings.weight(index)
        assert base is not None
        got = dora_scale(magnitude, a, b, base)
        assert got.dtype is torch.float32
        wanted = magnitude.double() / (weight + b.double() @ a.double()).norm(dim=1)
        torch.testing.assert_close(got.double(), wanted, rtol=TOLERANCE[dtype], atol=0)


def test_a_quantised_linear_has_no_readable_weight() -> None:
    class Quantised(nn.Linear):
        pass

    siblings = Siblings(["q"], [Quantised(4, 4)], kernels_of("torch", torch.float32))
    assert siblings.weight(0) is None
