"""Sampling of tokens, against an oracle."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from worker.engine.request import ChoiceSampling, Request, RequestId
from worker.engine.sampler import sample, uniform


def at(position: int, row: ChoiceSampling) -> Request:
    """Return a request whose next output token is at `position`."""
    return Request(
        id=RequestId("r"),
        prompt_ids=[0],
        version=None,
        sampling=row,
        max_tokens=10**6,
        output_ids=[0] * position,
    )


def oracle(logits: Tensor, row: ChoiceSampling, position: int) -> int:
    """Sample one token by the definitions, token by token."""
    probs = (logits.double() / row.temperature).softmax(-1).tolist()
    order = sorted(range(len(probs)), key=lambda t: -probs[t])
    kept = order[: row.top_k] if row.top_k else order
    total, mass, nucleus = sum(probs[t] for t in kept), 0.0, []
    for token in kept:
        if mass >= row.top_p * total:
            break
        nucleus.append(token)
        mass += probs[token]
    allowed = {t for t in nucleus if probs[t] >= row.min_p * max(probs)}
    left = uniform(row.seed, row.choice, position) * sum(probs[t] for t in allowed)
    for token in sorted(allowed):
        left -= probs[token]
        if left < 0:
            return token
    return max(allowed)


@given(
    vocab=st.integers(2, 40),
    seed=st.integers(0, 2**63 - 1),
    temperature=st.sampled_from([0.1, 0.7, 1.0, 2.0]),
    top_p=st.sampled_from([0.1, 0.5, 0.9, 1.0]),
    top_k=st.sampled_from([0, 1, 3, 100]),
    min_p=st.sampled_from([0.0, 0.05, 0.5]),
)
def test_a_sample_equals_the_oracle(
    vocab: int, seed: int, temperature: float, top_p: float, top_k: int, min_p: float
) -> None:
    logits = torch.randn(3, vocab, generator=torch.Generator().manual_seed(seed % 1000)) * 3
    rows = [
        ChoiceSampling(
            seed=seed, choice=c, temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p
        )
        for c in range(3)
    ]
    sampled = sample(logits, [at(i, row) for i, row in enumerate(rows)])
    assert sampled == [oracle(logits[i], rows[i], i) for i in range(3)]


def test_a_nucleus_larger_than_the_sorted_candidates_is_exact() -> None:
    logits = torch.randn(1, 5000, generator=torch.Generator().manual_seed(0)) * 0.01
    row = ChoiceSampling(seed=3, top_p=0.95)
    assert [sample(logits, [at(p, row)])[0] for p in range(5)] == [
        oracle(logits[0], row, p) for p in range(5)
    ]


def test_a_row_gets_the_same_token_in_every_batch() -> None:
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    rows = [ChoiceSampling(seed=s, temperature=0.8 if s else 0.0, top_p=0.9) for s in range(4)]
    together = sample(logits, [at(5, row) for row in rows])
    assert together == [sample(logits[i : i + 1], [at(5, rows[i])])[0] for i in range(4)]


def test_temperature_zero_takes_the_maximum() -> None:
    logits = torch.tensor([[0.0, 3.0, 2.0]])
    assert sample(logits, [at(0, ChoiceSampling(seed=0, temperature=0.0))]) == [1]


@pytest.mark.parametrize("temperature", [1e-12, 1e-300])
def test_a_tiny_temperature_is_greedy_rather_than_an_overflow(temperature: float) -> None:
    logits = torch.tensor([[0.0, 3.0, 2.0]])
    assert sample(logits, [at(0, ChoiceSampling(seed=0, temperature=temperature))]) == [1]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_that_is_not_finite_gives_no_token_and_does_not_change_other_rows(
    bad: float, temperature: float
) -> None:
    logits = torch.tensor([[0.0, bad, 2.0], [0.0, 9.0, -99.0]])
    rows = [at(0, ChoiceSampling(seed=0, temperature=temperature))] * 2
    assert sample(logits, rows) == [-1, 1]


def test_samples_follow_the_distribution() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log().expand(1000, 3)
    sampled = sample(logits, [at(0, ChoiceSampling(seed=s)) for s in range(1000)])
    shares = [sampled.count(t) / 1000 for t in range(3)]
    assert shares == pytest.approx([0.5, 0.3, 0.2], abs=0.05)


@given(st.integers(0, 2**63 - 1), st.integers(0, 15), st.integers(0, 10_000))
def test_uniform_is_in_the_unit_interval_and_depends_on_each_argument(
    seed: int, choice: int, position: int
) -> None:
    number = uniform(seed, choice, position)
    assert 0 <= number < 1
    assert number == uniform(seed, choice, position)
    assert (
        len(
            {
                number,
                uniform(seed + 1, choice, position),
                uniform(seed, choice + 1, position),
                uniform(seed, choice, position + 1),
            }
        )
        == 4
    )
