"""Paged attention and writes to the KV cache, against dense attention in double precision."""

import itertools
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_sets import (
    IS_INTERPRETED,
    NATIVE_DTYPES,
    assert_near,
    every_kernel_set,
    every_native_set,
    native_kernels,
    threads,
    with_threads,
)
from slow_cases import slow_unless
from torch import Tensor

from worker.kernels.interface import AttentionBatch, AttentionParams, Kernels

SCALING = 0.3
NAN = float("nan")

Sequences = list[tuple[int, int]]
"""(context tokens, query tokens at its end) of each sequence."""


@dataclass(frozen=True)
class Heads:
    """Sizes of a model's attention."""

    num_heads: int
    num_kv_heads: int
    key_dim: int
    value_dim: int


@dataclass(frozen=True)
class Limits:
    """What a layer's softmax covers; see `AttentionParams`."""

    window: int | None = None
    cap: float | None = None
    chunk: int | None = None
    has_sinks: bool = False


NO_LIMITS = Limits()


@dataclass(frozen=True)
class Case:
    """A step of attention. Cache entries that are in no context are NaN."""

    query: Tensor
    keys: Tensor
    values: Tensor
    batch: AttentionBatch
    sequences: list[tuple[Tensor, Tensor, Tensor]]
    """Queries, keys and values of each sequence."""
    sinks: Tensor

    def run(self, kernels: Kernels, limits: Limits = NO_LIMITS) -> Tensor:
        """Return the kernels' output."""
        sinks = self.sinks if limits.has_sinks else None
        params = AttentionParams(SCALING, limits.window, limits.cap, limits.chunk, sinks)
        return kernels.paged_attention(self.query, (self.keys, self.values), self.batch, params)

    def dense(self, limits: Limits = NO_LIMITS) -> Tensor:
        """Return the expected output."""
        return torch.cat([dense(*parts, self.sinks, limits) for parts in self.sequences])


def dense(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, limits: Limits) -> Tensor:
    """Return dense attention of one sequence in double precision.

    The queries `q` `[Q, H, D]` are the last tokens of the context; `k` and `v` are `[L, Hkv, D]`.
    """
    group = q.shape[1] // k.shape[1]
    k, v = (x.double().repeat_interleave(group, 1).transpose(0, 1) for x in (k, v))
    scores = q.double().transpose(0, 1) @ k.transpose(-1, -2) * SCALING
    if limits.cap is not None:
        scores = torch.tanh(scores / limits.cap) * limits.cap
    length, num_queries = k.shape[1], q.shape[0]
    own = torch.arange(length - num_queries, length)[:, None]
    others = torch.arange(length)
    hidden = others > own
    if limits.window is not None:
        hidden |= others <= own - limits.window
    if limits.chunk is not None:
        hidden |= others // limits.chunk != own // limits.chunk
    scores = scores.masked_fill(hidden, float("-inf"))
    if limits.has_sinks:
        scores = torch.cat([scores, sinks.double()[:, None, None].expand(-1, num_queries, 1)], -1)
    return (scores.softmax(-1)[..., :length] @ v).transpose(0, 1)


def make_case(
    kernels: Kernels, dtype: torch.dtype, heads: Heads, sequences: Sequences, block_size: int
) -> Case:
    """Return a case of random sequences in random blocks, which depend only on `sequences`."""
    generator = torch.Generator().manual_seed(len(sequences))

    def rand(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    sizes = [-(-length // block_size) for length, _ in sequences]
    num_blocks = sum(sizes) + 2
    # The first two blocks are unused; tables are padded with the second.
    free = (torch.randperm(num_blocks - 2, generator=generator) + 2).tolist()
    shape = (num_blocks, block_size, heads.num_kv_heads)
    keys = torch.full((*shape, heads.key_dim), NAN, dtype=dtype)
    values = torch.full((*shape, heads.value_dim), NAN, dtype=dtype)
    tables = torch.ones(len(sequences), max(sizes) + 3, dtype=torch.int32)
    parts, slots = [], []
    for table, size, (length, num_queries) in zip(tables, sizes, sequences, strict=True):
        table[:size] = torch.tensor([free.pop() for _ in range(size)])
        positions = torch.arange(length)
        own = table[positions // block_size].long() * block_size + positions % block_size
        key = rand(length, heads.num_kv_heads, heads.key_dim)
        value = rand(length, heads.num_kv_heads, heads.value_dim)
        kernels.store_kv(key, value, keys, values, own)
        parts.append((rand(num_queries, heads.num_heads, heads.key_dim), key, value))
        slots.append(own[length - num_queries :])
    batch = AttentionBatch(
        slots=torch.cat(slots),
        query_starts=int32([0, *itertools.accumulate(n for _, n in sequences)]),
        context_lens=int32([length for length, _ in sequences]),
        block_tables=tables,
    )
    sinks = 3 * rand(heads.num_heads)
    return Case(torch.cat([part[0] for part in parts]), keys, values, batch, parts, sinks)


def int32(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


SMALL = Heads(4, 2, 16, 16)
SIZES = [
    Heads(4, 4, 8, 8),
    Heads(6, 2, 16, 16),
    Heads(9, 3, 20, 24),
    Heads(4, 2, 24, 20),
    Heads(8, 1, 64, 64),
    Heads(14, 2, 64, 64),
    Heads(4, 4, 80, 80),
    Heads(8, 2, 128, 128),
    Heads(3, 1, 192, 128),
]
MIXES: dict[str, Sequences] = {
    "one decode": [(700, 1)],
    "one prompt": [(131, 131)],
    "decodes": [(1, 1), (15, 1), (16, 1), (17, 1), (128, 1), (129, 1), (300, 1), (5, 1), (33, 1)],
    "all kinds": [(1, 1), (80, 1), (2, 2), (40, 1), (37, 37), (19, 3), (641, 7), (260, 50), (9, 1)],
}
LIMITS = [
    *itertools.starmap(Limits, itertools.product((None, 1, 20, 200), (None, 5.0))),
    *(Limits(chunk=chunk, has_sinks=has) for chunk in (1, 20, 200) for has in (False, True)),
    *(
        Limits(window, cap, has_sinks=True)
        for window, cap in ((None, None), (20, 5.0), (200, None))
    ),
]
NUM_EXAMPLES = 30
if IS_INTERPRETED:
    SIZES = [heads for heads in SIZES if heads.num_heads not in (6, 8)]
    MIXES = {"all kinds": [(1, 1), (270, 1), (37, 37), (66, 5)]}
    LIMITS = [NO_LIMITS, Limits(20, 5.0), Limits(20, has_sinks=True), Limits(chunk=20)]
    NUM_EXAMPLES = 4


def is_quick(heads: Heads, mix: str, block_size: int) -> bool:
    if IS_INTERPRETED:
        return (heads, block_size) in {(SIZES[1], 16), (SMALL, 7)}
    return heads in (SIZES[1], SMALL) or mix == "all kinds"


@pytest.mark.parametrize(
    ("heads", "mix", "block_size"),
    slow_unless(
        is_quick,
        [
            *itertools.product(SIZES, MIXES, [16]),
            *itertools.product([SMALL], ["all kinds"], [1, 4, 7, 32, 256]),
        ],
    ),
    ids=str,
)
@every_kernel_set
def test_every_sequence_of_a_step_gets_dense_attention_over_its_context(
    kernels: Kernels, dtype: torch.dtype, heads: Heads, mix: str, block_size: int
) -> None:
    case = make_case(kernels, dtype, heads, MIXES[mix], block_size)
    some = [NO_LIMITS, Limits(3), Limits(chunk=24, has_sinks=True)]
    for limits in LIMITS if heads != SMALL else some:
        got = case.run(kernels, limits)
        assert got.dtype == dtype
        assert got.is_contiguous()
        assert_near(got, case.dense(limits))


SEQUENCES = st.lists(
    st.integers(1, 150).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))),
    min_size=1,
    max_size=8,
)


NUMBERS = st.none() | st.integers(1, 160)
CAPS = st.none() | st.floats(0.5, 50.0)


@every_kernel_set
@settings(max_examples=NUM_EXAMPLES, derandomize=True)
@given(
    SEQUENCES,
    st.builds(Limits, window=NUMBERS, cap=CAPS, has_sinks=st.booleans())
    | st.builds(Limits, chunk=NUMBERS, cap=CAPS, has_sinks=st.booleans()),
)
def test_any_step_gets_dense_attention(
    kernels: Kernels, dtype: torch.dtype, sequences: Sequences, limits: Limits
) -> None:
    case = make_case(kernels, dtype, Heads(6, 3, 12, 18), sequences, 8)
    assert_near(case.run(kernels, limits), case.dense(limits))


@every_kernel_set
def test_a_sink_of_any_height_takes_its_share_of_the_weights(
    kernels: Kernels, dtype: torch.dtype
) -> None:
    case = make_case(kernels, dtype, SMALL, MIXES["all kinds"], 16)
    case = replace(case, sinks=torch.tensor([float("-inf"), -1e4, 2.0, 1e4]))
    limits = Limits(has_sinks=True)
    got = case.run(kernels, limits)
    assert_near(got, case.dense(limits))
    assert_near(got[:, :2], case.dense()[:, :2])
    assert not got[:, 3].any()


@pytest.mark.parametrize("dtype", NATIVE_DTYPES, ids=str)
def test_high_scores_neither_overflow_nor_lose_the_others(dtype: torch.dtype) -> None:
    kernels = native_kernels(dtype)
    case = make_case(kernels, dtype, Heads(2, 2, 8, 8), [(400, 1), (300, 9)], 16)
    for _, keys, _ in case.sequences:
        assert keys.isfinite().all()
    case.query.mul_(300)
    parts = torch.split(case.query, [1, 9])
    sequences = [(q, k, v) for q, (_, k, v) in zip(parts, case.sequences, strict=True)]
    assert_near(case.run(kernels), replace(case, sequences=sequences).dense())


@pytest.mark.parametrize("dtype", NATIVE_DTYPES, ids=str)
def test_a_key_of_nan_shows_in_every_row_that_sees_it(dtype: torch.dtype) -> None:
    kernels = native_kernels(dtype)
    case = make_case(kernels, dtype, Heads(2, 2, 32, 32), [(40, 1), (40, 40)], 16)
    for table in case.batch.block_tables:
        case.keys[table[0], 5] = NAN
    is_number = case.run(kernels).isfinite().flatten(1).all(dim=1)
    assert is_number.tolist() == [False, *[True] * 5, *[False] * 35]


@every_kernel_set
def test_queries_may_be_slices_of_qkv_or_stored_by_head(
    kernels: Kernels, dtype: torch.dtype
) -> None:
    case = make_case(kernels, dtype, SMALL, MIXES["all kinds"], 16)
    joined = torch.full((len(case.query), 8, 16), NAN, dtype=dtype)
    joined[:, 2:6] = case.query
    for query in (joined[:, 2:6], case.query.transpose(0, 1).contiguous().transpose(0, 1)):
        assert not query.is_contiguous()
        assert_near(replace(case, query=query).run(kernels), case.dense())


@pytest.mark.parametrize("mix", MIXES)
@every_native_set
def test_the_number_of_threads_changes_no_bit(
    kernels: Kernels, dtype: torch.dtype, mix: str
) -> None:
    case = make_case(kernels, dtype, Heads(6, 2, 64, 64), MIXES[mix], 16)
    limits = [Limits(50), Limits(chunk=100, has_sinks=True)]
    one, *others = with_threads(lambda: torch.cat([case.run(kernels, each) for each in limits]))
    assert all(torch.equal(one, other) for other in others)


@pytest.mark.parametrize("limits", [NO_LIMITS, Limits(300), Limits(chunk=300, has_sinks=True)])
@every_native_set
def test_a_sequence_gets_the_same_bits_alone_as_in_a_batch(
    kernels: Kernels, dtype: torch.dtype, limits: Limits
) -> None:
    """If a sequence is alone, its context is split into tasks whose sums are merged."""
    case = make_case(kernels, dtype, Heads(6, 2, 64, 64), [(700, 1), (600, 200), (513, 2)] * 20, 16)
    with threads(1):
        together = case.run(kernels, limits)
    for i in range(3):
        start, end = case.batch.query_starts[i : i + 2].tolist()
        batch = AttentionBatch(
            slots=case.batch.slots[start:end],
            query_starts=int32([0, end - start]),
            context_lens=case.batch.context_lens[i : i + 1],
            block_tables=case.batch.block_tables[i : i + 1],
        )
        with threads(3):
            alone = replace(case, query=case.query[start:end], batch=batch).run(kernels, limits)
        assert torch.equal(alone, together[start:end])


@pytest.mark.parametrize(
    ("heads", "limits"),
    slow_unless(
        lambda heads, limits: heads == SIZES[1] or limits == NO_LIMITS,
        itertools.product(
            SIZES,
            (NO_LIMITS, Limits(70), Limits(cap=5.0), Limits(70, has_sinks=True), Limits(chunk=300)),
        ),
    ),
    ids=str,
)
@every_native_set
def test_a_token_gets_the_same_bits_for_every_split_of_its_prompt(
    kernels: Kernels, dtype: torch.dtype, heads: Heads, limits: Limits
) -> None:
    """Single tokens form tasks of few rows; the full prompt forms mostly tasks of many rows."""
    length, num_queries = 640, 140
    case = make_case(kernels, dtype, heads, [(length, num_queries)], 16)
    at_once = case.run(kernels, limits)
    start = 0
    for size in (1, 1, 2, 5, 34, 1, 95, 1):
        part = slice(start, start + size)
        batch = AttentionBatch(
            slots=case.batch.slots[part],
            query_starts=int32([0, size]),
            context_lens=int32([length - num_queries + start + size]),
            block_tables=case.batch.block_tables,
        )
        got = replace(case, query=case.query[part], batch=batch).run(kernels, limits)
        assert torch.equal(got, at_once[part])
        start += size
    assert start == num_queries


@every_kernel_set
def test_layers_of_different_sizes_share_a_batch(kernels: Kernels, dtype: torch.dtype) -> None:
    sizes = [SMALL, Heads(6, 1, 24, 8)]
    layers = [make_case(kernels, dtype, heads, MIXES["all kinds"], 16) for heads in sizes]
    batch = layers[0].batch
    assert torch.equal(batch.block_tables, layers[1].batch.block_tables)
    some = Limits(3), Limits(chunk=5, has_sinks=True)
    for case, limits in zip(layers * 2, (some[0], NO_LIMITS, NO_LIMITS, some[1]), strict=True):
        assert_near(replace(case, batch=batch).run(kernels, limits), case.dense(limits))


@pytest.mark.parametrize("layout", ["contiguous", "slices of qkv", "by head"])
@every_kernel_set
def test_keys_and_values_are_written_to_their_slots_only(
    kernels: Kernels, dtype: torch.dtype, layout: str
) -> None:
    joined = torch.randn(5, 9, 7).to(dtype)
    key, value = joined[:, 1:4], joined[:, 4:7]
    if layout == "contiguous":
        key, value = key.contiguous(), value.contiguous()
    elif layout == "by head":
        key, value = (x.transpose(0, 1).contiguous().transpose(0, 1) for x in (key, value))
    slots = torch.tensor([13, 2, 7, 0, 8])
    caches = [torch.zeros(5, 3, 3, 7, dtype=dtype) for _ in range(2)]
    kernels.store_kv(key, value, caches[0], caches[1], slots)
    for cache, rows in zip(caches, (key, value), strict=True):
        expected = torch.zeros(15, 3, 7, dtype=dtype)
        expected[slots] = rows
        assert torch.equal(cache.flatten(0, 1), expected)
