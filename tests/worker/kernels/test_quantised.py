"""Quantised weights and the product with them, on every path, to the bit against plain torch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from int8_product import LARGEST, grouped, multiples_of, rounded_product
from kernel_sets import NATIVE_DTYPES, QUANTISED_NAMES, quantised_kernels, threads
from torch import Tensor

from worker.kernels.cpu.quantised import GROUP, QuantisedKernels, QuantisedWeight, joined


@pytest.fixture(scope="module", params=QUANTISED_NAMES)
def path(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module", params=NATIVE_DTYPES, ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    found: torch.dtype = request.param
    return found


@pytest.fixture(scope="module")
def kernels(path: str, dtype: torch.dtype) -> QuantisedKernels:
    return kernels_of(path, dtype)


def kernels_of(path: str, dtype: torch.dtype) -> QuantisedKernels:
    found = quantised_kernels(dtype, path).quantised
    assert found is not None
    return found


def rand(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Return normal numbers whose groups differ in size, as those of activations do."""
    generator = torch.Generator().manual_seed(seed + sum(shape))
    sizes = torch.randn(1, shape[-1], generator=generator).exp()
    return (torch.randn(*shape, generator=generator) * sizes).to(dtype)


def product(
    kernels: QuantisedKernels, x: Tensor, weight: QuantisedWeight, bias: Tensor | None
) -> Tensor:
    return kernels.linear(x, kernels.pack(weight), bias, len(weight.values))


def check(kernels: QuantisedKernels, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Check that a product has the bits that follow from its definition."""
    rounded = kernels.quantise(weight)
    expected = rounded_product(x, rounded, bias)
    got = product(kernels, x, rounded, bias)
    assert got.dtype is x.dtype
    assert torch.equal(got, expected)


def test_weights_are_rounded_to_the_nearest_multiple_of_their_groups_scale(
    kernels: QuantisedKernels, dtype: torch.dtype
) -> None:
    weight = rand(50, 3 * GROUP + 7, dtype=dtype)
    rounded = kernels.quantise(weight)
    exact = grouped(weight.float()).abs().amax(-1) / LARGEST
    scales = rounded.scales.float()
    assert (scales >= exact).all()
    assert (scales <= exact * (1 + 2**-7)).all(), "bfloat16 has a nearer scale"
    multiples = multiples_of(grouped(weight.float()), scales)
    assert torch.equal(rounded.values.float(), multiples.flatten(1)[:, : weight.shape[1]])


def test_multiples_of_a_scale_are_kept_exactly(
    kernels: QuantisedKernels, dtype: torch.dtype
) -> None:
    values = torch.randint(-LARGEST, LARGEST + 1, (30, 3 * GROUP)).float()
    values[:, ::GROUP] = -LARGEST  # so that the scale of each group is 2**-9
    weight = (values * 2**-9).to(dtype)
    rounded = kernels.quantise(weight)
    assert torch.equal(rounded.dequantised().to(dtype), weight)


def test_a_group_of_zeros_stays_zero(kernels: QuantisedKernels, dtype: torch.dtype) -> None:
    weight = rand(24, 2 * GROUP, dtype=dtype)
    weight[:, GROUP:] = 0
    rounded = kernels.quantise(weight)
    assert not rounded.values[:, GROUP:].any()
    x = torch.zeros(3, 2 * GROUP, dtype=dtype)
    assert not product(kernels, x, rounded, None).any()


@settings(max_examples=25, derandomize=True)
@given(st.integers(1, 40), st.integers(1, 100), st.integers(1, 200), st.booleans())
def test_any_sizes(
    kernels: QuantisedKernels,
    dtype: torch.dtype,
    num_rows: int,
    num_out: int,
    num_in: int,
    has_bias: bool,
) -> None:
    bias = rand(1, num_out, dtype=dtype)[0] if has_bias else None
    check(kernels, rand(num_rows, num_in, dtype=dtype), rand(num_out, num_in, dtype=dtype), bias)


@pytest.mark.parametrize("num_rows", [1, 7, 33, 130])
def test_sizes_of_a_model(kernels: QuantisedKernels, dtype: torch.dtype, num_rows: int) -> None:
    check(kernels, rand(num_rows, 576, dtype=dtype), rand(960, 576, dtype=dtype), None)


def test_the_largest_inputs_and_weights_do_not_saturate(
    kernels: QuantisedKernels, dtype: torch.dtype
) -> None:
    for sign in (1, -1):
        x = torch.full((9, 4096), 3.0 * sign, dtype=dtype)
        check(kernels, x, torch.full((50, 4096), -5.0, dtype=dtype), None)


def test_there_may_be_no_rows(kernels: QuantisedKernels, dtype: torch.dtype) -> None:
    weight = kernels.quantise(rand(24, 40, dtype=dtype))
    assert product(kernels, rand(0, 40, dtype=dtype), weight, None).shape == (0, 24)


def test_inputs_need_not_be_contiguous(kernels: QuantisedKernels, dtype: torch.dtype) -> None:
    wide, weight = rand(9, 100, dtype=dtype), rand(24, 40, dtype=dtype)
    check(kernels, wide[:, 13:53], weight, None)
    check(kernels, wide[:, :40].t().contiguous().t(), weight, None)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_row_that_is_not_finite_changes_no_other_row(
    kernels: QuantisedKernels, dtype: torch.dtype, bad: float
) -> None:
    x = rand(9, 150, dtype=dtype)
    weight = kernels.quantise(rand(60, 150, dtype=dtype))
    expected = product(kernels, x, weight, None)
    x[4, 70] = bad
    got = product(kernels, x, weight, None)
    assert not got[4].isfinite().any()
    others = [row for row in range(9) if row != 4]
    assert torch.equal(got[others], expected[others])


@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_a_row_has_the_same_bits_in_any_batch(
    kernels: QuantisedKernels, dtype: torch.dtype, num_threads: int
) -> None:
    x, bias = rand(70, 700, dtype=dtype), rand(1, 130, dtype=dtype)[0]
    weight = kernels.quantise(rand(130, 700, dtype=dtype))
    together = product(kernels, x, weight, bias)
    with threads(num_threads):
        for first, end in ((0, 1), (3, 5), (5, 12), (12, 29), (29, 70)):
            part = product(kernels, x[first:end], weight, bias)
            assert torch.equal(part, together[first:end])


def test_every_path_gives_the_same_bits(path: str, dtype: torch.dtype) -> None:
    first, other = (kernels_of(name, dtype) for name in (QUANTISED_NAMES[0], path))
    weight, bias = rand(130, 700, dtype=dtype), rand(1, 130, dtype=dtype)[0]
    of_first, of_other = first.quantise(weight), other.quantise(weight)
    assert torch.equal(of_first.values, of_other.values)
    assert torch.equal(of_first.scales, of_other.scales)
    for num_rows in (1, 2, 9, 40):
        x = rand(num_rows, 700, dtype=dtype)
        assert torch.equal(product(other, x, of_other, bias), product(first, x, of_first, bias))


def test_a_packed_weight_can_be_unpacked(kernels: QuantisedKernels, dtype: torch.dtype) -> None:
    for size in ((130, 700), (7, 9), (48, 64)):
        weight = kernels.quantise(rand(*size, dtype=dtype))
        again = kernels.unpack(kernels.pack(weight), *size)
        assert torch.equal(again.values, weight.values)
        assert torch.equal(again.scales, weight.scales)


def test_joined_weights_give_the_outputs_of_each(
    kernels: QuantisedKernels, dtype: torch.dtype
) -> None:
    x = rand(5, 100, dtype=dtype)
    weights = [kernels.quantise(rand(n, 100, dtype=dtype, seed=n)) for n in (30, 17)]
    apart = [product(kernels, x, weight, None) for weight in weights]
    assert torch.equal(product(kernels, x, joined(weights), None), torch.cat(apart, -1))
