import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lora import made_adapter, made_base, made_pool
from torch import nn

from shared.ids import AdapterVersion
from worker.lora.adapter import LoRAAdapter
from worker.lora.batch import build_batch
from worker.lora.layers import LoRAContext, LoRALinear
from worker.lora.pool import LoRAPool

BASE = made_base()
RANKS = {
    "plain": dict.fromkeys(BASE.linears, 8),
    "wide": dict.fromkeys(BASE.linears, 48),
    "odd": {"layers.0.q": 1, "layers.1.q": 3, "layers.1.up": 24},
    "one layer": {"layers.1.up": 5},
    "outside": {"project_in": 2},
}
ADAPTERS = [
    made_adapter(BASE, name.replace(" ", ""), ranks, seed=seed)
    for seed, (name, ranks) in enumerate(RANKS.items())
]
BY_VERSION = {adapter.version: adapter for adapter in ADAPTERS}
VERSIONS = [None, *BY_VERSION]
Sequences = list[tuple[AdapterVersion | None, int]]


def full_pool(adapters: list[LoRAAdapter] = ADAPTERS) -> LoRAPool:
    pool = made_pool(BASE)
    for adapter in adapters:
        pool.add(adapter)
    return pool


def layer(pool: LoRAPool, context: LoRAContext, name: str) -> LoRALinear:
    shape = BASE.linears[name]
    torch.manual_seed(0)
    linear = nn.Linear(shape.in_features, shape.out_features)
    return LoRALinear(linear, pool.sites[name], context)


def expected(linear: LoRALinear, name: str, x: torch.Tensor, sequences: Sequences) -> torch.Tensor:
    """Token by token, from the adapters themselves."""
    y = linear.base_layer(x)
    token = 0
    for version, num_tokens in sequences:
        for _ in range(num_tokens):
            weights = BY_VERSION[version].modules.get(name) if version else None
            if weights is not None:
                y[token] += weights.b @ (weights.a @ x[token])
            token += 1
    return y


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(VERSIONS), st.integers(1, 9)), min_size=1, max_size=12),
    st.permutations(ADAPTERS),
)
def test_any_batch_equals_token_by_token(sequences: Sequences, order: list[LoRAAdapter]) -> None:
    pool = full_pool(order)
    context = LoRAContext(build_batch(pool, sequences))
    num_tokens = sum(n for _, n in sequences)
    with torch.no_grad():
        for name, shape in BASE.linears.items():
            linear = layer(pool, context, name)
            x = torch.randn(1, num_tokens, shape.in_features)
            want = expected(linear, name, x[0], sequences)
            torch.testing.assert_close(linear(x)[0], want, rtol=1e-5, atol=1e-4)


def test_a_batch_of_the_base_alone_has_no_lora_work() -> None:
    assert build_batch(full_pool(), [(None, 5), (None, 1)]) is None


def test_modules_that_no_adapter_of_the_batch_targets_have_no_blocks() -> None:
    pool = full_pool()
    batch = build_batch(pool, [(ADAPTERS[3].version, 4)])
    assert batch is not None
    assert [n for n, site in pool.sites.items() if batch.blocks(site)] == ["layers.1.up"]


def test_an_equal_batch_is_the_same_until_the_pool_changes() -> None:
    pool = full_pool(ADAPTERS[:2])
    sequences: Sequences = [(ADAPTERS[0].version, 1), (None, 2), (ADAPTERS[1].version, 1)]
    batch = build_batch(pool, sequences)
    assert build_batch(pool, list(sequences)) is batch
    assert build_batch(pool, sequences[:2]) is not batch
    batch = build_batch(pool, sequences)
    pool.add(ADAPTERS[2])
    assert build_batch(pool, sequences) is not batch


def test_swapped_weights_are_computed_at_once() -> None:
    pool = full_pool(ADAPTERS[:1])
    context = LoRAContext()
    linear = layer(pool, context, "layers.0.q")
    x = torch.randn(3, 16)
    with torch.no_grad():
        context.batch = build_batch(pool, [(ADAPTERS[0].version, 3)])
        first = linear(x)
        pool.remove(ADAPTERS[0].version)
        pool.add(ADAPTERS[1])
        sequences: Sequences = [(ADAPTERS[1].version, 3)]
        context.batch = build_batch(pool, sequences)
        second = linear(x)
        want = expected(linear, "layers.0.q", x, sequences)
    assert not torch.allclose(first, second)
    torch.testing.assert_close(second, want, rtol=1e-5, atol=1e-4)
