"""Batches over sibling linears, compared with a loop over tokens, for two sets of kernels."""

from collections.abc import Sequence
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_sets import NATIVE, kernels_of
from lora import attach_siblings, empty_pool, random_adapter, small_base
from torch import nn

from shared.protocol.ids import AdapterVersion
from worker.kernels.interface import Kernels
from worker.lora.batch import BatchCache, build_batch
from worker.lora.checkpoint.adapter import LoRAAdapter
from worker.lora.layers import Siblings

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

pytestmark = pytest.mark.parametrize("name", ["torch", NATIVE])


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


@settings(max_examples=40, derandomize=True)
@given(SEQUENCES, st.permutations(ADAPTERS))
def test_any_batch_equals_token_by_token(
    name: str, sequences: Sequences, order: list[LoRAAdapter]
) -> None:
    Case(kernels_of(name, torch.float32), order).check(sequences)


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
