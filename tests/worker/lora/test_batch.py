"""Served linears: joint products of siblings, and batches compared with a loop over tokens."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_sets import NATIVE, SET_IDS, SETS, kernels_of
from lora import attach_siblings, empty_pool, random_adapter, small_base, wrap
from tiny import save_adapter, tiny_model
from torch import nn

from shared.protocol.ids import AdapterVersion
from worker.kernels.interface import Kernels
from worker.kernels.reference import ReferenceKernels
from worker.lora.batch import BatchCache, build_batch
from worker.lora.checkpoint.adapter import LoRAAdapter
from worker.lora.layers import ServedLinear, Siblings

BASE = small_base()
GROUPS = [["project_in"], *([f"layers.{i}.q", f"layers.{i}.up"] for i in range(2))]
RANKS = {
    "plain": dict.fromkeys(BASE.linears, 8),
    "wide": dict.fromkeys(BASE.linears, 48),
    "odd": {"layers.0.q": 1, "layers.1.q": 3, "layers.1.up": 24},
    "one layer": {"layers.1.up": 5},
    "outside": {"project_in": 2},
}
ADAPTERS = [
    random_adapter(BASE, name.replace(" ", ""), ranks, seed=seed)
    for seed, (name, ranks) in enumerate(RANKS.items())
]
BY_VERSION = {adapter.version: adapter for adapter in ADAPTERS}
VERSIONS = [None, *BY_VERSION]
ONE_PAGE_OF_ALL = 4 * 8 * sum(s.in_features + s.out_features for s in BASE.linears.values())

Sequences = list[tuple[AdapterVersion | None, int]]

two_sets = pytest.mark.parametrize("name", ["torch", NATIVE])
"""Decorator that runs a test with two sets of kernels."""


@pytest.fixture
def kernels(name: str) -> Kernels:
    return kernels_of(name, torch.float32)


class Case:
    """Siblings of a small base, attached to a pool."""

    def __init__(
        self,
        kernels: Kernels,
        adapters: Sequence[LoRAAdapter] = ADAPTERS,
        max_bytes: int = 1 << 20,
    ) -> None:
        torch.manual_seed(0)
        self.linears = {
            name: nn.Linear(shape.in_features, shape.out_features)
            for name, shape in BASE.linears.items()
        }
        self.pool = empty_pool(BASE, max_bytes)
        self.siblings = [
            # Siblings take the memory of their linears' weights, so they get copies.
            Siblings(names, [deepcopy(self.linears[name]) for name in names], kernels)
            for names in GROUPS
        ]
        self.context = attach_siblings(self.siblings, self.pool, kernels)
        for adapter in adapters:
            assert self.pool.add(adapter)

    @torch.no_grad()
    def check(self, sequences: Sequences) -> None:
        """Check that every linear adds each token's own LoRA term to its output."""
        self.context.batch = self.context.batches.batch_of(sequences)
        num_tokens = sum(n for _, n in sequences)
        for siblings in self.siblings:
            x = torch.randn(1, num_tokens, BASE.linears[siblings.names[0]].in_features)
            want = torch.cat([self.expected(name, x[0], sequences) for name in siblings.names], -1)
            torch.testing.assert_close(siblings.joint_output(x)[0], want, rtol=1e-5, atol=1e-4)

    def expected(self, name: str, x: torch.Tensor, sequences: Sequences) -> torch.Tensor:
        """Compute the output of one linear token by token from the adapters' matrices."""
        y = self.linears[name](x)
        token = 0
        for version, num_tokens in sequences:
            for _ in range(num_tokens):
                weights = BY_VERSION[version].modules.get(name) if version else None
                if weights is not None:
                    y[token] += weights.b @ (weights.a @ x[token])
                token += 1
        return y


SEQUENCES = st.lists(
    st.tuples(st.sampled_from(VERSIONS), st.integers(1, 9)), min_size=1, max_size=12
)


@two_sets
@settings(max_examples=40, derandomize=True)
@given(SEQUENCES, st.permutations(ADAPTERS))
def test_any_batch_equals_token_by_token(
    name: str, sequences: Sequences, order: list[LoRAAdapter]
) -> None:
    Case(kernels_of(name, torch.float32), order).check(sequences)


@two_sets
@settings(max_examples=60, derandomize=True)
@given(st.lists(st.sampled_from(ADAPTERS), min_size=1, max_size=15), st.data())
def test_weights_are_found_anywhere_in_the_pool(
    name: str, changes: list[LoRAAdapter], data: st.DataObject
) -> None:
    # Not all adapters fit at once, so pages are placed in gaps that others left.
    case = Case(kernels_of(name, torch.float32), [], max_bytes=7 * ONE_PAGE_OF_ALL)
    resident: dict[AdapterVersion, LoRAAdapter] = {}
    for adapter in changes:
        if adapter.version in resident:
            case.pool.remove(adapter.version)
            del resident[adapter.version]
        elif case.pool.add(adapter):
            resident[adapter.version] = adapter
        sequences = st.tuples(st.sampled_from([None, *resident]), st.integers(1, 3))
        case.check(data.draw(st.lists(sequences, min_size=1, max_size=4)))


@two_sets
def test_the_base_alone_and_linears_that_no_adapter_of_the_batch_targets_need_no_lora(
    kernels: Kernels,
) -> None:
    case = Case(kernels)
    assert build_batch(case.pool, [(None, 5), (None, 1)]) is None
    batch = build_batch(case.pool, [(ADAPTERS[4].version, 4)])
    assert batch is not None
    targeted = []
    for siblings in case.siblings:
        offsets = [0, *siblings.sizes][: len(siblings.names)]
        if batch.sites(case.pool.sibling_sites(siblings.names, offsets)) is not None:
            targeted += siblings.names
    assert targeted == ["project_in"]


@two_sets
def test_an_equal_batch_is_reused_until_an_adapter_is_removed(kernels: Kernels) -> None:
    pool = Case(kernels, ADAPTERS[:2]).pool
    sequences: Sequences = [(ADAPTERS[0].version, 1), (None, 2), (ADAPTERS[1].version, 1)]
    batches = BatchCache(pool)
    batch = batches.batch_of(sequences)
    assert batches.batch_of(list(sequences)) is batch
    assert batches.batch_of(sequences[:2]) is not batch
    batch = batches.batch_of(sequences)
    assert pool.add(ADAPTERS[2])
    assert batches.batch_of(sequences) is batch
    pool.remove(ADAPTERS[2].version)
    assert batches.batch_of(sequences) is not batch


IDS = torch.arange(6, 13)[None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_linear_of_the_base_is_served_with_its_attributes_and_no_other_module(
    dtype: torch.dtype,
) -> None:
    case = wrap(tiny_model("llama").to(dtype))
    found = {n for n, m in case.model.named_modules() if isinstance(m, ServedLinear)}
    assert found == set(case.base.linears)
    linear = case.model.get_submodule("model.layers.0.self_attn.k_proj")
    assert (linear.in_features, linear.out_features) == (64, 32)
    assert (linear.weight.shape, linear.weight.dtype) == ((32, 64), dtype)
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = linear.no_such_thing


@torch.no_grad()
def test_without_a_batch_logits_keep_the_bases_bits_and_a_batch_of_another_size_is_an_error(
    tmp_path: Path,
) -> None:
    case = wrap(tiny_model("llama"))
    version = case.load(save_adapter(tmp_path, target_modules="all-linear"))
    assert torch.equal(case.model(IDS).logits, tiny_model("llama")(IDS).logits)
    case.context.batch = build_batch(case.pool, [(version, 5)])
    with pytest.raises(RuntimeError, match="7 rows in a batch of 5 tokens"):
        case.model(IDS)


@pytest.mark.parametrize("biases", [(False, False, False), (True, True, True), (True, False, True)])
@pytest.mark.parametrize(("kernels", "dtype"), SETS, ids=SET_IDS)
@torch.no_grad()
def test_siblings_compute_the_outputs_of_their_linears(
    kernels: str, dtype: torch.dtype, biases: tuple[bool, ...]
) -> None:
    outs = (40, 7, 16)
    linears = [nn.Linear(61, o, b).to(dtype) for o, b in zip(outs, biases, strict=True)]
    x = torch.randn(2, 5, 61).to(dtype)
    expected = [linear(x) for linear in linears]
    siblings = Siblings(["q", "k", "v"], linears, kernels_of(kernels, dtype))
    for order in ([0, 1, 2], [2, 0, 1]):
        again = x.clone()  # a new tensor, so the outputs are computed again
        got = {index: siblings.output(index, again) for index in order}
        for index, want in enumerate(expected):
            tolerance = {"rtol": 2e-2, "atol": 2e-2} if dtype.itemsize == 2 else {}
            torch.testing.assert_close(got[index], want, **tolerance)


@torch.no_grad()
def test_outputs_are_those_of_an_input_that_is_new_or_was_changed_in_place() -> None:
    linears = [nn.Linear(8, 4), nn.Linear(8, 4)]
    siblings = Siblings(["q", "k"], linears, ReferenceKernels())
    siblings.output(0, torch.zeros(3, 8))  # this forward is interrupted
    x = torch.randn(3, 8)
    for _ in range(2):
        for index, linear in enumerate(linears):
            torch.testing.assert_close(siblings.output(index, x), linear(x))
        x.mul_(2)
