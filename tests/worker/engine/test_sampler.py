"""Sampling of tokens: by its definition, and in batches of any rows like each row alone."""

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from counted_operations import Counts, OperationCounter
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_sampler import reference_token
from torch import Tensor

from worker.engine.request import ChoiceSampling
from worker.engine.sampler import sample, uniform

VOCABS = [7, 256, 1500, 5000]
"""Sizes of vocabularies: below and above the number of candidates, and of a block."""


@dataclass
class Mask:
    """Grammar state that allows some tokens."""

    bits: bytes

    def allowed(self) -> bytes:
        return self.bits


@dataclass
class Row:
    """Only what the sampler reads of a request."""

    sampling: ChoiceSampling
    prompt_ids: list[int]
    output_ids: list[int]
    stop_ids: frozenset[int] = frozenset()
    grammar: Mask | None = None


def random_row(generator: np.random.Generator, vocab: int) -> Row:
    """Return a row with random parameters, each of which is often at its default."""

    def choose(*values: Any) -> Any:
        return values[generator.integers(len(values))]

    def some(most: int) -> list[int]:
        return generator.integers(0, vocab, generator.integers(0, most + 1)).tolist()

    sampling = ChoiceSampling(
        seed=int(generator.integers(2**63 - 1)),
        choice=int(generator.integers(4)),
        temperature=choose(0.0, 0.3, 0.7, 1.0, 1.0, 2.0),
        top_p=choose(1.0, 1.0, 0.1, 0.5, 0.9, 0.99),
        top_k=choose(0, 0, 0, 1, 3, 50, 1024, 1200, 10**6),
        min_p=choose(0.0, 0.0, 0.0, 0.05, 0.5),
        presence_penalty=choose(0.0, 0.0, -2.0, 0.7),
        frequency_penalty=choose(0.0, 0.0, 0.3),
        repetition_penalty=choose(1.0, 1.0, 0.5, 1.3),
        logit_bias=tuple((token, choose(-100.0, -1.5, 4.0)) for token in {*some(3)}),
        allowed_token_ids=tuple(choose([], [], [], some(9))),
        bad_words=tuple(choose([], [(token,) for token in some(3)])),
        min_tokens=choose(0, 0, 5),
    )
    mask = Mask(generator.bytes(choose(vocab // 8, vocab // 8 + 3)))
    return Row(
        sampling=sampling,
        prompt_ids=some(20),
        output_ids=some(8),
        stop_ids=frozenset(some(2)),
        grammar=choose(None, None, None, mask),
    )


def random_logits(generator: np.random.Generator, num_rows: int, vocab: int) -> Tensor:
    """Return rows that are flat, peaked, or full of equal logits."""
    spread = torch.from_numpy(generator.choice([0.01, 1.0, 3.0, 8.0], (num_rows, 1))).float()
    noise = torch.from_numpy(generator.standard_normal((num_rows, vocab), np.float32))
    rounds = torch.from_numpy(generator.random((num_rows, 1)) < 0.3)
    logits = noise * spread
    return torch.where(rounds, logits.bfloat16().float(), logits)


def batch(seed: int, num_rows: int, vocab: int) -> tuple[Tensor, list[Row]]:
    generator = np.random.default_rng(seed)
    rows = [random_row(generator, vocab) for _ in range(num_rows)]
    return random_logits(generator, num_rows, vocab), rows


@pytest.mark.parametrize("vocab", VOCABS)
def test_thousands_of_rows_get_the_tokens_of_the_definition_except_beside_edges(vocab: int) -> None:
    counts: Counter[str] = Counter()
    for seed in range(40):
        logits, rows = batch(seed, 32, vocab)
        for index, (row, token) in enumerate(zip(rows, sample(logits, rows), strict=True)):
            expected, is_near = reference_token(logits[index].numpy(), row)
            counts["rows"] += 1
            counts["near"] += is_near
            assert is_near or token == expected, f"batch {seed}, row {index}: {row.sampling}"
            counts["different"] += token != expected
    assert counts["near"] < counts["rows"] * 0.02
    assert counts["different"] <= counts["near"]


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), num_rows=st.integers(1, 9), vocab=st.sampled_from(VOCABS))
def test_a_row_gets_the_same_token_alone(seed: int, num_rows: int, vocab: int) -> None:
    logits, rows = batch(seed, num_rows, vocab)
    alone = [sample(logits[i : i + 1], [row])[0] for i, row in enumerate(rows)]
    assert sample(logits, rows) == alone


def test_equal_logits_at_the_end_of_the_nucleus_are_kept_in_the_order_of_the_vocabulary() -> None:
    logits = torch.zeros(1, 5000)
    row = Row(ChoiceSampling(seed=0, top_k=3), [], [])
    tied = [Row(replace(row.sampling, seed=seed), [], []) for seed in range(100)]
    assert set(sample(logits.expand(100, -1), tied)) == {0, 1, 2}
    nucleus = [replace(row.sampling, seed=seed, top_k=0, top_p=0.0009) for seed in range(100)]
    tokens = sample(logits.expand(100, -1), [Row(each, [], []) for each in nucleus])
    assert set(tokens) == {0, 1, 2, 3, 4}


def counts_of(logits: Tensor, rows: list[Row]) -> Counts:
    counts = Counts()
    with torch.inference_mode(), OperationCounter() as counter, counter.into(counts):
        sample(logits, rows)
    return counts


SAMPLING = {
    "greedy": ChoiceSampling(seed=0, temperature=0.0),
    "temperature": ChoiceSampling(seed=0),
    "top-p": ChoiceSampling(seed=0, top_p=0.9),
    "top-k, penalties": ChoiceSampling(
        seed=0,
        top_k=5,
        presence_penalty=0.5,
        repetition_penalty=1.1,
        logit_bias=((3, 1.0),),
        bad_words=((4,),),
        allowed_token_ids=(1, 2, 3, 5, 6),
        min_tokens=9,
    ),
}


@pytest.mark.parametrize("name", SAMPLING)
def test_the_number_of_operations_and_reads_does_not_depend_on_the_number_of_rows(
    name: str,
) -> None:
    def counts(num_rows: int) -> Counts:
        logits = 8 * torch.randn(num_rows, 4000, generator=torch.Generator().manual_seed(0))
        mask = Mask(b"\xff" * 500) if "penalties" in name else None
        row = Row(SAMPLING[name], [1, 2], [3, 4], frozenset({8}), mask)
        return counts_of(logits, [row] * num_rows)

    few, many = counts(3), counts(100)
    assert few == many
    assert sum(many.reads.values()) == 1
    assert sum(many.uploads.values()) <= 2
    assert sum(many.operations.values()) < 120


@settings(max_examples=200, deadline=None)
@given(
    vocab=st.sampled_from([7, 96, 256, 300, 512, 1024]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    bad=st.sampled_from([None, math.nan, math.inf, -math.inf]),
    num_rows=st.sampled_from([1, 4, 8, 11]),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_greedy_token_is_the_first_of_the_likeliest(
    num_rows: int, vocab: int, dtype: torch.dtype, bad: float | None, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    logits = generator.integers(-5, 3, (num_rows, vocab)).astype(np.float32)  # many are equal
    if bad is not None:
        logits[generator.integers(num_rows), generator.integers(vocab)] = bad
    best = logits.max(-1)
    expected = np.where(np.isfinite(best), logits.argmax(-1), -1)
    greedy = Row(ChoiceSampling(seed=0, temperature=0.0), [], [])
    assert sample(torch.tensor(logits).to(dtype), [greedy] * num_rows) == expected.tolist()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_rows_without_a_finite_maximum_do_not_change_rows_that_are_cut(bad: float) -> None:
    generator = np.random.default_rng(1)
    logits = random_logits(generator, 4, 3000)
    rows = [Row(ChoiceSampling(seed=n, top_p=0.9, min_p=0.01), [], []) for n in range(4)]
    alone = sample(logits, rows)
    logits[1] = bad
    assert sample(logits, rows) == [alone[0], -1, *alone[2:]]


@pytest.mark.parametrize("temperature", [1e-12, 1e-300])
def test_a_tiny_temperature_is_greedy_rather_than_an_overflow(temperature: float) -> None:
    row = Row(ChoiceSampling(seed=0, temperature=temperature), [], [])
    assert sample(torch.tensor([[0.0, 3.0, 2.0]]), [row]) == [1]


def test_samples_follow_the_distribution() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log().expand(1000, 3)
    sampled = sample(logits, [Row(ChoiceSampling(seed=seed), [], []) for seed in range(1000)])
    shares = [sampled.count(token) / 1000 for token in range(3)]
    assert shares == pytest.approx([0.5, 0.3, 0.2], abs=0.05)


@given(st.integers(0, 2**63 - 1), st.integers(0, 15), st.integers(0, 10_000))
def test_uniform_is_in_the_unit_interval_and_depends_on_each_argument(
    seed: int, choice: int, position: int
) -> None:
    number = uniform(seed, choice, position)
    assert 0 <= number < 1
    others = (
        (seed + 1, choice, position),
        (seed, choice + 1, position),
        (seed, choice, position + 1),
    )
    assert len({number, *(uniform(*other) for other in others)}) == 4
    assert number == uniform(seed, choice, position)
