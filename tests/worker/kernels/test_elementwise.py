"""Native element-wise operations against their formulas in double precision."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernel_sets import NATIVE_DTYPES, assert_near, native_kernels
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own name for it)

DIMS = [1, 7, 16, 61, 64, 576]


def rms_norm(x: Tensor, weight: Tensor, offset: float, round_first: bool) -> Tensor:
    """Return the norm by its formula, in double precision."""
    normed = x.double() * (x.double().pow(2).mean(-1, keepdim=True) + 1e-5).rsqrt()
    if round_first:
        normed = normed.to(x.dtype).double()
    return normed * (offset + weight.double())


@pytest.mark.parametrize("dtype", NATIVE_DTYPES, ids=str)
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize(("offset", "round_first"), [(0.0, True), (0.0, False), (1.0, False)])
def test_the_norm_of_each_row(
    dtype: torch.dtype, dim: int, offset: float, round_first: bool
) -> None:
    x, weight = 3 * torch.randn(2, 5, dim).to(dtype), torch.randn(dim).to(dtype)
    got = native_kernels(dtype).rms_norm(x, weight, 1e-5, offset=offset, round_first=round_first)
    assert (got.shape, got.dtype) == (x.shape, dtype)
    assert_near(got, rms_norm(x, weight, offset, round_first))


@pytest.mark.parametrize("dtype", NATIVE_DTYPES, ids=str)
def test_the_norm_of_heads_between_others_and_of_rows_that_are_not_contiguous(
    dtype: torch.dtype,
) -> None:
    weight = torch.randn(20).to(dtype)
    for x in (torch.randn(1, 6, 8, 20).to(dtype)[:, :, 2:5], torch.randn(20, 6).to(dtype).t()):
        got = native_kernels(dtype).rms_norm(x, weight, 1e-5, offset=0.0, round_first=True)
        assert_near(got, rms_norm(x, weight, 0.0, True))


@pytest.mark.parametrize("dtype", NATIVE_DTYPES, ids=str)
@pytest.mark.parametrize("dim", DIMS)
def test_silu_mul_of_two_halves(dtype: torch.dtype, dim: int) -> None:
    joined = (10 * torch.randn(9, 2 * dim)).to(dtype)
    gate, up = joined.chunk(2, dim=-1)
    got = native_kernels(dtype).silu_mul(gate, up)
    assert got.is_contiguous()
    assert_near(got, F.silu(gate.double()) * up.double())


@given(st.floats(-(2.0**100), 2.0**100, width=32))
def test_silu_of_any_number(number: float) -> None:
    gate, up = torch.full((1, 20), number), torch.ones(1, 20)
    got = native_kernels(torch.float32).silu_mul(gate, up)
    torch.testing.assert_close(got.double(), F.silu(gate.double()), rtol=1e-6, atol=1e-36)


@pytest.mark.parametrize("dtype", NATIVE_DTYPES, ids=str)
@pytest.mark.parametrize("dim", [2, 8, 20, 64, 80, 128])
def test_heads_are_rotated_in_place_and_their_neighbours_left_alone(
    dtype: torch.dtype, dim: int
) -> None:
    heads = torch.randn(5, 7, dim).to(dtype)
    before = heads.double()
    cosine, sine = torch.randn(5, dim).to(dtype), torch.randn(5, dim).to(dtype)
    native_kernels(dtype).rope_(heads[:, :4], cosine, sine)
    x = before[:, :4]
    half = torch.cat([-x[..., dim // 2 :], x[..., : dim // 2]], -1)
    expected = x * cosine.double()[:, None] + half * sine.double()[:, None]
    assert_near(heads[:, :4], expected)
    assert torch.equal(heads[:, 4:].double(), before[:, 4:])
