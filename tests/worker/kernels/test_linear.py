"""Native products with packed and quantised weights, and element-wise operations.

Packed products and operations are compared with double precision. Products with quantised weights
have the bits that plain torch gives, on every path.
"""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from int8_product import LARGEST, grouped, multiples_of, rounded_product
from kernel_sets import (
    NATIVE_DTYPES,
    NATIVE_NAMES,
    QUANTISED_NAMES,
    assert_near,
    first_is_quick,
    linear_kernels,
    native_kernels,
    quantised_kernels,
    threads,
)
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own name for it)

from worker.kernels.cpu.native import NativeKernels
from worker.kernels.cpu.quantised import GROUP, QuantisedKernels, joined

NAN, INF = float("nan"), float("inf")


def rand(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Return normal numbers whose columns differ in size, as those of activations do."""
    generator = torch.Generator().manual_seed(seed + sum(shape))
    sizes = torch.randn(1, shape[-1], generator=generator).exp()
    return (torch.randn(*shape, generator=generator) * sizes).to(dtype)


@dataclass(frozen=True)
class Packed:
    """The product with packed weights."""

    kernels: NativeKernels
    dtype: torch.dtype

    def rand(self, *shape: int, seed: int = 0) -> Tensor:
        return rand(*shape, dtype=self.dtype, seed=seed)

    def pack(self, weight: Tensor) -> Tensor:
        """Return a weight as the product reads it."""
        return self.kernels.pack(weight)

    def linear(self, x: Tensor, packed: Tensor, bias: Tensor | None, num_out: int) -> Tensor:
        return self.kernels.linear(x, packed, bias, num_out)

    def check(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
        """Check a product against its definition."""
        got = self.linear(x, self.pack(weight), bias, len(weight))
        added = torch.zeros(len(weight)).double() if bias is None else bias.double()
        expected = x.double() @ weight.double().t() + added
        terms = x.double().abs() @ weight.double().abs().t() + added.abs()
        assert (got.shape, got.dtype, got.is_contiguous()) == (expected.shape, x.dtype, True)
        assert_near(got, expected, terms)


@dataclass(frozen=True)
class Quantised(Packed):
    """The product with quantised weights."""

    kernels: QuantisedKernels  # type: ignore[assignment]

    def pack(self, weight: Tensor) -> Tensor:
        return self.kernels.pack(self.kernels.quantise(weight))

    def check(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
        """Check that a product has the bits that follow from its definition."""
        got = self.linear(x, self.pack(weight), bias, len(weight))
        expected = rounded_product(x.flatten(0, -2), self.kernels.quantise(weight), bias)
        assert got.dtype is x.dtype
        assert torch.equal(got.flatten(0, -2), expected)


def quantised_of(path: str, dtype: torch.dtype) -> Quantised:
    found = quantised_kernels(dtype, path).quantised
    assert found is not None
    return Quantised(found, dtype)


@pytest.fixture(scope="module", params=NATIVE_DTYPES, ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    found: torch.dtype = request.param
    return found


@pytest.fixture(scope="module", params=first_is_quick(NATIVE_NAMES))
def packed(request: pytest.FixtureRequest, dtype: torch.dtype) -> Packed:
    return Packed(linear_kernels(dtype, request.param), dtype)


@pytest.fixture(scope="module", params=first_is_quick(QUANTISED_NAMES))
def quantised(request: pytest.FixtureRequest, dtype: torch.dtype) -> Quantised:
    return quantised_of(request.param, dtype)


@pytest.fixture(
    scope="module",
    params=[
        *first_is_quick([("packed", name) for name in NATIVE_NAMES]),
        *first_is_quick([("int8", path) for path in QUANTISED_NAMES]),
    ],
    ids=str,
)
def product(request: pytest.FixtureRequest, dtype: torch.dtype) -> Packed:
    kind, name = request.param
    return (
        quantised_of(name, dtype) if kind == "int8" else Packed(linear_kernels(dtype, name), dtype)
    )


@settings(max_examples=60, derandomize=True)
@given(st.integers(1, 40), st.integers(1, 100), st.integers(1, 100), st.booleans())
def test_any_sizes(
    product: Packed, num_rows: int, num_out: int, half_in: int, has_bias: bool
) -> None:
    bias = product.rand(1, num_out)[0] if has_bias else None
    num_in = 2 * half_in - (isinstance(product, Quantised) and num_rows % 2)
    product.check(product.rand(num_rows, num_in), product.rand(num_out, num_in), bias)


@pytest.mark.parametrize("num_rows", [1, 7, 33, 130])
def test_sizes_of_a_model(product: Packed, num_rows: int) -> None:
    bias = product.rand(1, 960)[0]
    product.check(product.rand(1, num_rows, 576), product.rand(960, 576), bias)


def test_there_may_be_no_rows(product: Packed) -> None:
    packed = product.pack(product.rand(24, 40))
    assert product.linear(product.rand(0, 40), packed, None, 24).shape == (0, 24)


def test_inputs_need_not_be_contiguous(product: Packed) -> None:
    wide, weight = product.rand(9, 100), product.rand(24, 40)
    product.check(wide[:, 13:53], weight)
    product.check(wide[:, :40].t().contiguous().t(), weight)


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_row_that_is_not_finite_changes_no_other_row(product: Packed, bad: float) -> None:
    x, packed = product.rand(9, 150), product.pack(product.rand(60, 150))
    expected = product.linear(x, packed, None, 60)
    x[4, 70] = bad
    got = product.linear(x, packed, None, 60)
    assert not got[4].isfinite().any()
    others = torch.arange(9) != 4
    assert torch.equal(got[others], expected[others])


@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_a_row_has_the_same_bits_in_any_batch(product: Packed, num_threads: int) -> None:
    x, packed, bias = (
        product.rand(70, 700),
        product.pack(product.rand(130, 700)),
        product.rand(1, 130)[0],
    )
    together = product.linear(x, packed, bias, 130)
    with threads(num_threads):
        assert torch.equal(product.linear(x, packed, bias, 130), together)
        for first, size in zip(
            (0, 2, 5, 0, 3, 1, 9, 4, 30), (1, 1, 2, 3, 4, 7, 16, 17, 33), strict=True
        ):
            rows = slice(first, first + size)
            assert torch.equal(product.linear(x[rows], packed, bias, 130), together[rows])


def test_a_weight_may_be_transposed(packed: Packed) -> None:
    packed.check(packed.rand(5, 40), packed.rand(40, 24).t())


def test_the_native_product_does_not_change_torchs_results(packed: Packed) -> None:
    x, weight = packed.rand(40, 576), packed.rand(96, 576)
    before = x @ weight.t()
    packed.linear(x, packed.pack(weight), None, 96)
    assert torch.equal(x @ weight.t(), before)


def test_can_pack_is_false_for_unsupported_weights(packed: Packed, dtype: torch.dtype) -> None:
    (other,) = set(NATIVE_DTYPES) - {dtype}
    assert not packed.kernels.can_pack(torch.zeros(4, 4, dtype=other))
    assert packed.kernels.can_pack(torch.zeros(4, 3, dtype=dtype)) == (dtype is torch.float32)


@pytest.mark.parametrize("name", first_is_quick(NATIVE_NAMES))
def test_float32_may_have_any_number_of_inputs_and_long_sums_keep_their_precision(
    name: str,
) -> None:
    packed = Packed(linear_kernels(torch.float32, name), torch.float32)
    packed.check(torch.randn(3, 37), torch.randn(5, 37))
    x, weight = torch.randn(9, 18944), torch.randn(64, 18944)
    exact = x.double() @ weight.double().t()
    got = packed.linear(x, packed.pack(weight), None, 64)
    assert (got - exact).abs().max() < 1e-6 * exact.abs().max()


def test_weights_are_rounded_to_the_nearest_multiple_of_their_groups_scale(
    quantised: Quantised, dtype: torch.dtype
) -> None:
    weight = quantised.rand(50, 3 * GROUP + 7)
    rounded = quantised.kernels.quantise(weight)
    exact = grouped(weight.float()).abs().amax(-1) / LARGEST
    scales = rounded.scales.float()
    assert (scales >= exact).all()
    assert (scales <= exact * (1 + 2**-7)).all(), "bfloat16 has a nearer scale"
    multiples = multiples_of(grouped(weight.float()), scales)
    assert torch.equal(rounded.values.float(), multiples.flatten(1)[:, : weight.shape[1]])
    first = quantised_of(QUANTISED_NAMES[0], dtype).kernels.quantise(weight)
    assert torch.equal(rounded.scales, first.scales), "every path chooses the same scales"


def test_multiples_of_a_scale_are_kept_exactly(quantised: Quantised, dtype: torch.dtype) -> None:
    values = torch.randint(-LARGEST, LARGEST + 1, (30, 3 * GROUP)).float()
    values[:, ::GROUP] = -LARGEST  # so that the scale of each group is 2**-9
    weight = (values * 2**-9).to(dtype)
    assert torch.equal(quantised.kernels.quantise(weight).dequantised().to(dtype), weight)


def test_a_group_of_zeros_stays_zero(quantised: Quantised, dtype: torch.dtype) -> None:
    weight = quantised.rand(24, 2 * GROUP)
    weight[:, GROUP:] = 0
    assert not quantised.kernels.quantise(weight).values[:, GROUP:].any()
    x = torch.zeros(3, 2 * GROUP, dtype=dtype)
    assert not quantised.linear(x, quantised.pack(weight), None, 24).any()


def test_the_largest_inputs_and_weights_do_not_saturate(
    quantised: Quantised, dtype: torch.dtype
) -> None:
    for sign in (1, -1):
        x = torch.full((9, 4096), 3.0 * sign, dtype=dtype)
        quantised.check(x, torch.full((50, 4096), -5.0, dtype=dtype))


def test_a_packed_weight_can_be_unpacked(quantised: Quantised) -> None:
    for size in ((130, 700), (7, 9), (48, 64)):
        weight = quantised.kernels.quantise(quantised.rand(*size))
        again = quantised.kernels.unpack(quantised.kernels.pack(weight), *size)
        assert torch.equal(again.values, weight.values)
        assert torch.equal(again.scales, weight.scales)


def test_joined_weights_give_the_outputs_of_each(quantised: Quantised) -> None:
    x, kernels = quantised.rand(5, 100), quantised.kernels
    weights = [kernels.quantise(quantised.rand(n, 100, seed=n)) for n in (30, 17)]
    apart = [kernels.linear(x, kernels.pack(w), None, len(w.values)) for w in weights]
    together = kernels.linear(x, kernels.pack(joined(weights)), None, 47)
    assert torch.equal(together, torch.cat(apart, -1))


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
