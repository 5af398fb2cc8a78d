import pytest
import torch
from torch import Tensor

from worker.kernels.reference import paged_attention, store_kv

BLOCK = 4


def dense(
    q: Tensor, k: Tensor, v: Tensor, scaling: float, window: int | None, cap: float | None
) -> Tensor:
    """One sequence in double precision: q `[Q, H, D]` are the last of k `[L, Hkv, D]`."""
    group = q.shape[1] // k.shape[1]
    k, v = (x.double().repeat_interleave(group, 1).transpose(0, 1) for x in (k, v))
    scores = q.double().transpose(0, 1) @ k.transpose(-1, -2) * scaling
    if cap is not None:
        scores = torch.tanh(scores / cap) * cap
    length, queries = k.shape[1], q.shape[0]
    for i in range(queries):
        position = length - queries + i
        first = 0 if window is None else max(0, position - window + 1)
        scores[:, i, :first] = float("-inf")
        scores[:, i, position + 1 :] = float("-inf")
    return (scores.softmax(-1) @ v).transpose(0, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("cap", [None, 5.0])
@pytest.mark.parametrize("heads", [(4, 4), (6, 2), (9, 3)])
@pytest.mark.parametrize(("queries", "lengths"), [(1, (1, 9, 16, 17)), (5, (5, 12)), (16, (16,))])
def test_paged_attention_equals_dense_attention_of_each_sequence(
    dtype: torch.dtype,
    window: int | None,
    cap: float | None,
    heads: tuple[int, int],
    queries: int,
    lengths: tuple[int, ...],
) -> None:
    generator = torch.Generator().manual_seed(0)

    def rand(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    num_heads, num_kv_heads = heads
    key_cache = torch.full((30, BLOCK, num_kv_heads, 8), 99.0, dtype=dtype)
    value_cache = torch.full((30, BLOCK, num_kv_heads, 6), 99.0, dtype=dtype)
    free = torch.randperm(30, generator=generator).tolist()
    longest = -(-max(lengths) // BLOCK)
    tables, expected, all_queries = [], [], []
    for length in lengths:
        key, value = rand(length, num_kv_heads, 8), rand(length, num_kv_heads, 6)
        query = rand(queries, num_heads, 8)
        table = [free.pop() for _ in range(-(-length // BLOCK))]
        slots = torch.tensor([table[p // BLOCK] * BLOCK + p % BLOCK for p in range(length)])
        store_kv(key, value, key_cache, value_cache, slots)
        tables.append(table + [0] * (longest - len(table)))
        expected.append(dense(query, key, value, 0.3, window, cap))
        all_queries.append(query)
    positions = torch.tensor([[n - queries + i for i in range(queries)] for n in lengths])
    got = paged_attention(
        torch.stack(all_queries),
        key_cache,
        value_cache,
        torch.tensor(tables),
        positions,
        scaling=0.3,
        sliding_window=window,
        softcap=cap,
    )
    assert got.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(got.double(), torch.stack(expected), atol=tolerance, rtol=tolerance)
