"""Sampling of tokens, what changes logits before it, and log-probabilities."""

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from counted_operations import Counts, counted
from engine_requests import make_request
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_sampler import adjusted_logits, reference_token
from torch import Tensor
from transformers import RepetitionPenaltyLogitsProcessor

from worker.engine.logits import adjust, is_adjusted
from worker.engine.model_runner import sample_and_read
from worker.engine.request import ChoiceSampling, Request, RequestId, TokenLogprobs
from worker.engine.sampler import sample, uniform
from worker.kernels.transfer import Pending

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
        with counted() as found:
            sample(logits, [row] * num_rows)
        return found

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


def test_samples_follow_the_distribution_and_a_tiny_temperature_is_greedy() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log().expand(1000, 3)
    sampled = sample(logits, [Row(ChoiceSampling(seed=seed), [], []) for seed in range(1000)])
    shares = [sampled.count(token) / 1000 for token in range(3)]
    assert shares == pytest.approx([0.5, 0.3, 0.2], abs=0.05)
    for temperature in (1e-12, 1e-300):  # greedy rather than an overflow
        row = Row(ChoiceSampling(seed=0, temperature=temperature), [], [])
        assert sample(torch.tensor([[0.0, 3.0, 2.0]]), [row]) == [1]


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


VOCAB = 12
TOKEN = st.integers(0, VOCAB - 1)
SAMPLINGS = st.builds(
    ChoiceSampling,
    seed=st.integers(0, 2**63 - 1),
    temperature=st.sampled_from([0.0, 0.8]),
    presence_penalty=st.sampled_from([0.0, -2.0, 0.7, 2.0]),
    frequency_penalty=st.sampled_from([0.0, -1.5, 0.3, 2.0]),
    repetition_penalty=st.sampled_from([1.0, 0.5, 1.3, 10.0]),
    logit_bias=st.dictionaries(TOKEN, st.floats(-100, 100, width=32)).map(
        lambda bias: tuple(bias.items())
    ),
    top_n_sigma=st.sampled_from([0.0, -1.0, 0.4, 1.5, 4.0]),
    min_tokens=st.integers(0, 4),
    allowed_token_ids=st.just(()) | st.lists(TOKEN, min_size=1, max_size=6).map(tuple),
    bad_words=st.lists(st.lists(TOKEN, min_size=1, max_size=3).map(tuple), max_size=6).map(tuple),
)
REQUESTS = st.builds(
    Request,
    id=st.just(RequestId("r")),
    prompt_ids=st.lists(TOKEN, min_size=1, max_size=6),
    version=st.none(),
    sampling=SAMPLINGS,
    max_tokens=st.just(100),
    stop_ids=st.frozensets(TOKEN, max_size=2),
    output_ids=st.lists(TOKEN, max_size=6),
)


def normal_logits(num_rows: int, seed: int) -> torch.Tensor:
    return torch.randn(num_rows, VOCAB, generator=torch.Generator().manual_seed(seed)) * 5


@given(requests=st.lists(REQUESTS, min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_each_row_equals_the_reference_in_every_batch(requests: list[Request], seed: int) -> None:
    logits = normal_logits(len(requests), seed)
    pairs = zip(logits.numpy(), requests, strict=True)
    expected = np.stack([adjusted_logits(row, request) for row, request in pairs])
    before = logits.clone()
    sample(logits, requests)
    assert torch.equal(logits, before), "sampling leaves the model's logits as they are"
    adjust(logits, requests)
    torch.testing.assert_close(logits, torch.from_numpy(expected), rtol=1e-5, atol=1e-4)


@given(request=REQUESTS, seed=st.integers(0, 1000))
def test_the_repetition_penalty_equals_that_of_transformers(request: Request, seed: int) -> None:
    penalty = request.sampling.repetition_penalty
    request.sampling = ChoiceSampling(seed=0, repetition_penalty=penalty)
    logits = normal_logits(1, seed)
    ids = torch.tensor([request.prompt_ids + request.output_ids])
    expected = RepetitionPenaltyLogitsProcessor(penalty)(ids, logits.clone())  # type: ignore[arg-type]
    adjust(logits, [request])
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_small_penalty_has_an_effect_in_half_precision_and_without_any_nothing_is_adjusted(
    dtype: torch.dtype,
) -> None:
    logits = torch.tensor([[100.0, 100.0]], dtype=dtype)
    sampling = ChoiceSampling(seed=0, temperature=0.0, presence_penalty=0.01)
    assert sample(logits, [make_request(sampling=sampling, output_ids=[0])]) == [1]
    plain = ChoiceSampling(seed=0, temperature=0.5, top_p=0.9, top_k=3, min_p=0.1)
    assert not is_adjusted(make_request(sampling=plain))


LARGE_VOCAB = 3000


def request_of(name: str, **sampling: Any) -> Request:
    return make_request(name, sampling=ChoiceSampling(seed=len(name), **sampling))


def flat_and_peaked() -> torch.Tensor:
    logits = torch.randn(3, LARGE_VOCAB, generator=torch.Generator().manual_seed(0)) * 0.01
    logits[1, 7] = 40.0
    return logits


def check_logprobs(row: torch.Tensor, token: int, got: TokenLogprobs, num_top: int) -> None:
    expected = row.log_softmax(-1)
    assert got.logprob == pytest.approx(float(expected[token]), abs=1e-5)
    assert [value for _, value in got.top] == pytest.approx(
        expected.topk(num_top).values.tolist(), abs=1e-5
    )


def test_rows_that_are_sampled_again_report_their_final_token() -> None:
    logits = flat_and_peaked()
    rows = [request_of("flat", top_p=0.9, logprobs=2), request_of("peaked", top_p=0.9)]
    rows.append(request_of("both", top_p=0.95, logprobs=3, temperature=1.5))
    tokens, logprobs = sample_and_read(logits, rows)
    assert tokens[1] == 7
    assert logprobs.keys() == {0, 2}
    check_logprobs(logits[0], tokens[0], logprobs[0], 2)
    check_logprobs(logits[2], tokens[2], logprobs[2], 3)


def test_tokens_logprobs_and_other_values_are_read_at_once() -> None:
    logits = 9 * flat_and_peaked() * 100
    rows = [request_of(name, top_p=0.9, logprobs=4) for name in "abc"]
    other = Pending([logits[:, 0]], lambda arrays: arrays[0].tolist())
    with counted() as counts:
        sample_and_read(logits, rows, other)
    assert counts.reads == {"cpu": 1}
    assert other.value() == pytest.approx(logits[:, 0].tolist())
    alone = Pending([torch.tensor([3.0])], lambda arrays: float(arrays[0][0]))
    assert sample_and_read(torch.empty(0, LARGE_VOCAB), [], alone) == ([], {})
    assert alone.value() == 3.0
