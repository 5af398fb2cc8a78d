"""Popularities follow the formula in --help."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.load.popularity import Popularity, pick, probabilities

counts = st.integers(1, 200)
exponents = st.floats(0, 4)


@given(counts, exponents)
def test_zipf_follows_its_formula(num_models: int, s: float) -> None:
    shares = probabilities(num_models, s)
    assert sum(shares) == pytest.approx(1)
    assert all(p / shares[0] == pytest.approx(k**-s) for k, p in enumerate(shares, start=1))


@given(counts)
def test_zipf_with_exponent_0_is_uniform(num_models: int) -> None:
    assert probabilities(num_models, 0.0) == pytest.approx([1 / num_models] * num_models)


@given(st.sampled_from(Popularity), counts, st.integers(0, 10**6), exponents, st.text())
def test_a_pick_is_a_model_and_the_same_for_the_same_seed(
    popularity: Popularity, num_models: int, number: int, s: float, seed: str
) -> None:
    picked = pick(popularity, num_models, number, zipf_s=s, seed=seed)
    assert 0 <= picked < num_models
    assert picked == pick(popularity, num_models, number, zipf_s=s, seed=seed)


@given(counts, st.integers(0, 10**6))
def test_distinct_gives_neighbours_distinct_models(num_models: int, first: int) -> None:
    picked = {
        pick(Popularity.DISTINCT, num_models, first + n, zipf_s=1.0, seed="")
        for n in range(num_models)
    }
    assert len(picked) == num_models


def test_identical_picks_only_the_first() -> None:
    assert all(pick(Popularity.IDENTICAL, 9, n, zipf_s=1.0, seed="") == 0 for n in range(20))


@pytest.mark.parametrize(
    ("popularity", "shares"),
    [
        (Popularity.UNIFORM, [0.25, 0.25, 0.25, 0.25]),
        (Popularity.ZIPF, [0.48, 0.24, 0.16, 0.12]),
    ],
)
def test_picks_have_the_frequencies_of_the_formula(
    popularity: Popularity, shares: list[float]
) -> None:
    picks = Counter(pick(popularity, 4, n, zipf_s=1.0, seed="x") for n in range(5000))
    assert [picks[k] / 5000 for k in range(4)] == pytest.approx(shares, abs=0.03)
