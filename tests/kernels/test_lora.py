"""The LoRA kernel against a loop over tokens."""

import itertools

import pytest
import torch

from worker.kernels.reference_lora import LoRABlock, add_lora_

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}


def problem(
    ranks: list[int], owners: list[int], num_in: int, num_out: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, LoRABlock, torch.Tensor]:
    """y, x, one block over all rows, and what y must become. Owner -1 is the base."""
    generator = torch.Generator().manual_seed(len(ranks) + num_in)
    x = torch.randn(len(owners), num_in, generator=generator).to(dtype)
    y = torch.randn(len(owners), num_out, generator=generator).to(dtype)
    a = (torch.randn(sum(ranks), num_in, generator=generator) / num_in**0.5).to(dtype)
    b = torch.randn(sum(ranks), num_out, generator=generator).to(dtype)
    ends = list(itertools.accumulate(ranks, initial=0))
    foreign = torch.ones(len(owners), sum(ranks), dtype=torch.bool)
    expected = y.double()
    for token, owner in enumerate(owners):
        if owner >= 0:
            rows = slice(ends[owner], ends[owner + 1])
            foreign[token, rows] = False
            expected[token] += (x[token].double() @ a[rows].double().t()) @ b[rows].double()
    return y, x, LoRABlock(0, len(owners), a, b, foreign), expected


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(
    ("ranks", "owners"),
    [
        ([8], [0]),
        ([1], [0, -1, 0]),
        ([16], [-1, -1, -1]),
        ([8, 16], [0, 1, 0, 1, -1]),
        ([3, 24, 48], [2, 2, 0, 1, 1, -1, 0]),
        ([8] * 9, list(range(9)) * 3),
    ],
    ids=["one token", "rank 1", "base only", "two ranks", "odd ranks", "distinct"],
)
@pytest.mark.parametrize(("num_in", "num_out"), [(16, 40), (61, 7)], ids=["up", "odd sizes"])
def test_each_token_gets_its_own_adapters_term(
    ranks: list[int], owners: list[int], num_in: int, num_out: int, dtype: torch.dtype
) -> None:
    y, x, block, expected = problem(ranks, owners, num_in, num_out, dtype)
    add_lora_(y, x, [block])
    scale = expected.abs().max().item()
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=TOLERANCE[dtype] * scale)


def test_blocks_touch_only_their_own_tokens() -> None:
    y, x, whole, expected = problem([8, 8], [0, 0, -1, 1], 16, 16, torch.float32)
    assert whole.foreign is not None
    before = y.clone()
    add_lora_(y, x, [LoRABlock(0, 2, whole.a[:8], whole.b[:8], None)])
    assert torch.equal(y[2:], before[2:])
    add_lora_(y, x, [whole._replace(start=3, stop=4, foreign=whole.foreign[3:])])
    assert torch.equal(y[2], before[2])
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)


def test_an_adapter_that_overflows_never_reaches_its_batch_mates() -> None:
    y, x, block, expected = problem([8, 8], [0, 1, -1], 16, 16, torch.float32)
    block.a[8:] = 3e38
    add_lora_(y, x, [block])
    assert not y[1].isfinite().all()
    torch.testing.assert_close(y[0].double(), expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(y[2].double(), expected[2], rtol=0, atol=0)


def test_no_blocks_change_nothing() -> None:
    y, x, _, _ = problem([8], [0], 16, 16, torch.float32)
    before = y.clone()
    add_lora_(y, x, [])
    assert torch.equal(y, before)
