"""Native products with packed weights, and element-wise operations, against double precision."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_sets import (
    NATIVE_DTYPES,
    NATIVE_NAMES,
    assert_near,
    linear_kernels,
    native_kernels,
    threads,
)
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own name for it)

from worker.kernels.cpu.native import NativeKernels


@pytest.fixture(scope="module", params=NATIVE_NAMES)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module", params=NATIVE_DTYPES, ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    found: torch.dtype = request.param
    return found


@pytest.fixture(scope="module")
def kernels(name: str, dtype: torch.dtype) -> NativeKernels:
    return linear_kernels(dtype, name)


Rand = Callable[..., Tensor]


@pytest.fixture(scope="module")
def rand(dtype: torch.dtype) -> Rand:
    def of_shape(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape))).to(dtype)

    return of_shape


def check(kernels: NativeKernels, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    got = kernels.linear(x, kernels.pack(weight), bias, len(weight))
    added = torch.zeros(len(weight)).double() if bias is None else bias.double()
    expected = x.double() @ weight.double().t() + added
    terms = x.double().abs() @ weight.double().abs().t() + added.abs()
    assert (got.shape, got.dtype, got.is_contiguous()) == (expected.shape, x.dtype, True)
    assert_near(got, expected, terms)


@settings(max_examples=60, derandomize=True)
@given(st.integers(1, 40), st.integers(1, 100), st.integers(1, 80), st.booleans())
def test_any_sizes(
    kernels: NativeKernels, rand: Rand, num_rows: int, num_out: int, half_in: int, has_bias: bool
) -> None:
    bias = rand(num_out) if has_bias else None
    check(kernels, rand(num_rows, 2 * half_in), rand(num_out, 2 * half_in), bias)


@pytest.mark.parametrize("num_rows", [1, 7, 33, 130])
def test_sizes_of_a_model(kernels: NativeKernels, rand: Rand, num_rows: int) -> None:
    check(kernels, rand(1, num_rows, 576), rand(960, 576), rand(960))


def test_there_may_be_no_rows(kernels: NativeKernels, rand: Rand) -> None:
    assert kernels.linear(rand(0, 40), kernels.pack(rand(24, 40)), None, 24).shape == (0, 24)


def test_inputs_need_not_be_contiguous(kernels: NativeKernels, rand: Rand) -> None:
    wide, weight = rand(9, 100), rand(24, 40)
    check(kernels, wide[:, 13:53], weight, None)
    check(kernels, wide[:, :40].t().contiguous().t(), weight, None)


def test_a_weight_may_be_transposed(kernels: NativeKernels, rand: Rand) -> None:
    check(kernels, rand(5, 40), rand(40, 24).t(), None)


def test_a_row_of_nan_does_not_change_the_other_rows(kernels: NativeKernels, rand: Rand) -> None:
    x, packed = rand(9, 40), kernels.pack(rand(24, 40))
    expected = kernels.linear(x, packed, None, 24)
    x[4] = float("nan")
    got = kernels.linear(x, packed, None, 24)
    assert got[4].isnan().all()
    others = torch.arange(9) != 4
    assert torch.equal(got[others], expected[others])


def test_the_number_of_threads_changes_no_bit(kernels: NativeKernels, rand: Rand) -> None:
    x, packed = rand(40, 576), kernels.pack(rand(960, 576))
    outputs = []
    for number in (1, 2, 3):
        with threads(number):
            outputs.append(kernels.linear(x, packed, None, 960))
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


def test_a_row_has_the_same_bits_in_every_batch(kernels: NativeKernels, rand: Rand) -> None:
    x, packed, bias = rand(70, 576), kernels.pack(rand(100, 576)), rand(100)
    together = kernels.linear(x, packed, bias, 100)
    for first, num_rows in (
        (0, 1),
        (2, 1),
        (5, 2),
        (0, 3),
        (3, 4),
        (1, 7),
        (9, 16),
        (4, 17),
        (30, 33),
    ):
        rows = slice(first, first + num_rows)
        assert torch.equal(kernels.linear(x[rows], packed, bias, 100), together[rows])


def test_the_native_product_does_not_change_torchs_results(
    kernels: NativeKernels, rand: Rand
) -> None:
    x, weight = rand(40, 576), rand(96, 576)
    before = x @ weight.t()
    kernels.linear(x, kernels.pack(weight), None, 96)
    assert torch.equal(x @ weight.t(), before)


def test_can_pack_is_false_for_unsupported_weights(
    kernels: NativeKernels, dtype: torch.dtype
) -> None:
    (other,) = set(NATIVE_DTYPES) - {dtype}
    assert not kernels.can_pack(torch.zeros(4, 4, dtype=other))
    assert kernels.can_pack(torch.zeros(4, 3, dtype=dtype)) == (dtype is torch.float32)


def test_float32_may_have_any_number_of_inputs(name: str) -> None:
    check(linear_kernels(torch.float32, name), torch.randn(3, 37), torch.randn(5, 37), None)


def test_long_sums_of_float32_keep_their_precision(name: str) -> None:
    kernels = linear_kernels(torch.float32, name)
    x, weight = torch.randn(9, 18944), torch.randn(64, 18944)
    exact = x.double() @ weight.double().t()
    got = kernels.linear(x, kernels.pack(weight), None, 64)
    assert (got - exact).abs().max() < 1e-6 * exact.abs().max()


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
