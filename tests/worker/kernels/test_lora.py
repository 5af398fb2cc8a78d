"""LoRA terms against a loop over tokens in double precision."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_sets import (
    IS_INTERPRETED,
    assert_near,
    every_kernel_set,
    every_native_set,
    with_threads,
)
from slow_cases import slow_unless
from torch import Tensor

from worker.kernels.interface import Kernels, LoRAPages, LoRAPlan, LoRASite, LoRASites

PAGE_ROWS = 8
NAN = float("nan")

BASE = -1
"""Owner of a token without an adapter."""


@dataclass(frozen=True)
class Problem:
    """Tokens of several adapters in sibling linears.

    Storage that belongs to no adapter, and columns of `y` that belong to no linear, are NaN.
    """

    x: Tensor
    y: Tensor
    sites: LoRASites
    plan: LoRAPlan
    owners: list[int]
    weights: list[list[tuple[Tensor, Tensor] | None]]
    """By site and adapter: a `[r, in]` and b `[r, out]`; None if the adapter has no rows there."""

    def run(self, kernels: Kernels) -> Tensor:
        """Return `y` plus the terms that `kernels` compute."""
        got = self.y.clone()
        kernels.add_lora_(got, self.x, self.sites, self.plan)
        return got

    def expected(self, *, signs: bool = True) -> Tensor:
        """Return the expected result as doubles, or with `signs=False` sums of absolute terms."""
        y = self.y.double() if signs else self.y.double().abs()
        for token, owner in enumerate(self.owners):
            for site, of_site in zip(self.sites.sites, self.weights, strict=True):
                if owner != BASE and (pair := of_site[owner]) is not None:
                    a, b = pair
                    shrunk = (a.double() @ self.x[token].double()).to(a.dtype).double()
                    columns = slice(site.offset, site.offset + b.shape[1])
                    y[token, columns] += (
                        shrunk @ b.double() if signs else shrunk.abs() @ b.double().abs()
                    )
        return y

    def only(self, tokens: list[int]) -> "Problem":
        """Return the problem of the given tokens only."""
        owners = [self.owners[token] for token in tokens]
        plan = plan_of(owners, self.plan.pages)
        return replace(self, x=self.x[tokens], y=self.y[tokens], plan=plan, owners=owners)

    def columns(self) -> Tensor:
        """Return `[width]` bool: the columns of `y` that belong to a site."""
        inside = torch.zeros(self.y.shape[1], dtype=torch.bool)
        for site in self.sites.sites:
            inside[site.offset : site.offset + site.b.shape[2]] = True
        return inside


def make_problem(
    dtype: torch.dtype,
    ranks: Sequence[Sequence[int]],
    owners: list[int],
    num_in: int = 32,
    outs: Sequence[int] = (40,),
    offsets: Sequence[int] = (0,),
) -> Problem:
    """Return a random problem. `ranks` has the rank of each adapter for each site; 0 is none."""
    generator = torch.Generator().manual_seed(len(owners))

    def rand(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    sites, pages, weights = [], [], []
    for group, (of_site, out, offset) in enumerate(zip(ranks, outs, offsets, strict=True)):
        sizes = [-(-rank // PAGE_ROWS) for rank in of_site]
        numbers = torch.randperm(sum(sizes) + 2, generator=generator)
        a = torch.full((len(numbers) * PAGE_ROWS, num_in), NAN, dtype=dtype)
        b = torch.full((len(numbers) * PAGE_ROWS, out), NAN, dtype=dtype)
        starts = [0, *accumulate(sizes)]
        pairs: list[tuple[Tensor, Tensor] | None] = []
        for rank, start, size in zip(of_site, starts, sizes, strict=False):
            own = numbers[start : start + size, None] * PAGE_ROWS + torch.arange(PAGE_ROWS)
            a[own], b[own] = 0.0, 0.0
            rows = own.flatten()[:rank]
            a[rows], b[rows] = rand(rank, num_in) / num_in**0.5, rand(rank, out)
            pairs.append((a[rows], b[rows]) if rank else None)
        a, b = (rows.view(len(numbers), PAGE_ROWS, -1) for rows in (a, b))
        sites.append(LoRASite(a, b, group, layer=1, offset=offset))
        # The linear's row is the second of three; the other rows list other pages.
        table = torch.stack([numbers.flip(0), numbers, numbers.flip(0)])[:, : sum(sizes)]
        pages.append(LoRAPages(int32(starts), table.int().contiguous()))
        weights.append(pairs)
    plan = plan_of(owners, pages)
    width = max(offset + out for offset, out in zip(offsets, outs, strict=True)) + 3
    y = torch.full((len(owners), width), NAN, dtype=dtype)
    problem = Problem(rand(len(owners), num_in), y, LoRASites(sites), plan, owners, weights)
    y[:, problem.columns()] = rand(len(owners), int(problem.columns().sum()))
    return problem


def plan_of(owners: list[int], pages: Sequence[LoRAPages]) -> LoRAPlan:
    """Return the plan of tokens with the given owners."""
    num_adapters = len(pages[0].starts) - 1
    tokens = [[t for t, o in enumerate(owners) if o == i] for i in range(num_adapters)]
    return LoRAPlan(
        token_starts=int32([0, *accumulate(map(len, tokens))]),
        tokens=int32([token for part in tokens for token in part]),
        pages=pages,
        page_rows=PAGE_ROWS,
    )


def int32(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def check(problem: Problem, kernels: Kernels) -> None:
    inside = problem.columns()
    got, expected = problem.run(kernels), problem.expected()
    terms = problem.expected(signs=False)
    assert_near(got[:, inside], expected[:, inside], terms[:, inside])
    assert got[:, ~inside].isnan().all()
    of_base = torch.tensor(problem.owners) == BASE
    assert torch.equal(got[of_base][:, inside], problem.y[of_base][:, inside])


POPULARITY = {
    "one token": [0],
    "all one adapter": [0] * 70,
    "uniform": [i % 3 for i in range(30)],
    "skewed": [0] * 20 + [1, 2, 0, 0],
    "with base rows between": [0, BASE, 1, 1, BASE, 2, BASE, BASE, 0],
    "base rows alone": [BASE] * 4,
}
SIZES = [(32, 40), (61, 7), (128, 400), (1, 1)]
"""Numbers of inputs and of outputs."""
SIBLINGS = ([8, 0, 16], [3, 24, 0], [0, 0, 8])
"""Ranks of adapters that each target some of the siblings."""


def of_siblings(num_tokens: tuple[int, ...], num_in: int) -> tuple[Any, ...]:
    owners = [BASE, *(i for i, number in enumerate(num_tokens) for _ in range(number))]
    return SIBLINGS, owners[1::2] + owners[::2], num_in, (48, 16, 7), (0, 48, 70)


CASES: dict[str, tuple[Any, ...]] = {
    **{f"rank {r}": ([[r, 8]], [0, 1, 0, BASE, 0, 0, 0]) for r in (1, 3, 8, 24, 48, 64, 256)},
    "forty adapters": (
        [[1 + i % 20 for i in range(40)]],
        [*range(40), BASE, *reversed(range(40))],
    ),
    "a wide linear": ([[8] * 16], [i for i in range(16) for _ in range(1 + i % 3)], 16, (1700,)),
    **{
        f"siblings, {numbers}, {num_in}": of_siblings(numbers, num_in)
        for numbers, num_in in product(((2, 7, 2), (1, 5, 22), (9, 4, 16)), (61, 64))
    },
    **{
        f"{name}, {sizes}": ([[8, 3, 24]], owners, sizes[0], sizes[1:])
        for (name, owners), sizes in product(POPULARITY.items(), SIZES)
    },
}
"""Arguments of `make_problem`."""
SLOW = {
    f"{name}, {sizes}"
    for name, sizes in product(POPULARITY, SIZES)
    if name != "with base rows between" and sizes != (61, 7)
}
if IS_INTERPRETED:
    SLOW = CASES.keys() - {
        *("rank 24", "forty adapters", "a wide linear", "siblings, (2, 7, 2), 61"),
        "with base rows between, (61, 7)",
    }


@pytest.mark.parametrize("name", slow_unless(lambda name: name not in SLOW, zip(CASES)))
@every_kernel_set
def test_each_token_gets_the_terms_of_its_own_adapter_in_the_columns_of_each_linear(
    kernels: Kernels, dtype: torch.dtype, name: str
) -> None:
    check(make_problem(dtype, *CASES[name]), kernels)


@every_kernel_set
def test_an_adapter_that_overflows_does_not_change_other_tokens(
    kernels: Kernels, dtype: torch.dtype
) -> None:
    problem = make_problem(dtype, [[8, 8, 8]], [0, 1, BASE, 1, 2, 0, 1])
    expected = problem.run(kernels)
    site, pages = problem.sites.sites[0], problem.plan.pages[0]
    page = int(pages.pages[site.layer, 1])  # adapter 1 has a page
    site.a[page] = torch.finfo(dtype).max
    got = problem.run(kernels)
    inside, overflows = problem.columns(), torch.tensor(problem.owners) == 1
    assert not got[overflows][:, inside].isfinite().all()
    assert torch.equal(got[~overflows][:, inside], expected[~overflows][:, inside])


@every_kernel_set
def test_inputs_need_not_be_contiguous(kernels: Kernels, dtype: torch.dtype) -> None:
    problem = make_problem(dtype, [[8, 3]], [0, 1, 1, BASE, 0])
    wide = torch.full((5, 50), NAN, dtype=dtype)
    wide[:, 5:37] = problem.x
    for x in (wide[:, 5:37], problem.x.t().contiguous().t()):
        got = replace(problem, x=x).run(kernels)
        assert torch.equal(got.nan_to_num(9.0), problem.run(kernels).nan_to_num(9.0))


@every_native_set
def test_the_number_of_threads_changes_no_bit(kernels: Kernels, dtype: torch.dtype) -> None:
    ranks = [[8, 16, 24], [8, 8, 8]]
    problem = make_problem(dtype, ranks, [i % 4 - 1 for i in range(150)], 64, (200, 30), (0, 200))
    one, *others = with_threads(lambda: problem.run(kernels).nan_to_num(9.0))
    assert all(torch.equal(one, other) for other in others)


def leave_rounding_errors_only(problem: Problem) -> None:
    """Make the terms of every sum cancel, so that any other order of summation shows."""
    half, rows = problem.x.shape[1] // 2, PAGE_ROWS // 2
    problem.x[:, half : 2 * half] = problem.x[:, :half]
    problem.y.zero_()
    scales = torch.tensor([1, 512, 8, 4096])[:, None]
    for site in problem.sites.sites:
        site.a[..., half : 2 * half] = -site.a[..., :half]
        site.a[:, rows:] = site.a[:, :rows]
        site.b[:, :rows] *= scales
        site.b[:, rows:] = -site.b[:, :rows]


@pytest.mark.parametrize("num_in", [61, 128])
@every_native_set
def test_a_token_gets_the_same_bits_in_every_batch(
    kernels: Kernels, dtype: torch.dtype, num_in: int
) -> None:
    ranks = [[8, 3, 24] * 4, [16, 0, 1] * 4]
    problem = make_problem(dtype, ranks, [i % 3 for i in range(75)], num_in, (300, 37), (0, 300))
    leave_rounding_errors_only(problem)
    together = problem.run(kernels).nan_to_num(9.0)
    alone_each = [[token] for token in range(75)]
    for tokens in (*alone_each, [0, 3], [5, 2, 9, 4, 8], [*range(1, 40, 3)], [*range(26)]):
        alone = problem.only(tokens).run(kernels).nan_to_num(9.0)
        assert torch.equal(alone, together[tokens])


@every_kernel_set
@settings(max_examples=30, derandomize=True)
@given(st.data())
def test_any_batch_equals_token_by_token(
    kernels: Kernels, dtype: torch.dtype, data: st.DataObject
) -> None:
    num_adapters, num_sites = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 3))
    rank = st.sampled_from([0, 1, 3, 8, 9, 24])
    of_site = st.lists(rank, min_size=num_adapters, max_size=num_adapters)
    ranks = data.draw(st.lists(of_site, min_size=num_sites, max_size=num_sites))
    owners = data.draw(st.lists(st.integers(BASE, num_adapters - 1), min_size=1, max_size=24))
    outs = data.draw(st.lists(st.integers(1, 60), min_size=num_sites, max_size=num_sites))
    gap = data.draw(st.integers(0, 3))
    offsets = [0, *accumulate(out + gap for out in outs)][:-1]
    num_in = data.draw(st.integers(1, 80) | st.sampled_from([32, 64, 96]))
    check(make_problem(dtype, ranks, owners, num_in, outs, offsets), kernels)
