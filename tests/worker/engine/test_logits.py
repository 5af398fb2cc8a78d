"""Penalties, bias and minimum length, against the formulas of their definitions."""

import numpy as np
import pytest
import torch
from engine_requests import make_request
from hypothesis import given
from hypothesis import strategies as st
from reference_sampler import adjusted_logits
from transformers import RepetitionPenaltyLogitsProcessor

from worker.engine.logits import adjust, is_adjusted
from worker.engine.request import ChoiceSampling, Request, RequestId
from worker.engine.sampler import sample

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


def random_logits(num_rows: int, seed: int) -> torch.Tensor:
    return torch.randn(num_rows, VOCAB, generator=torch.Generator().manual_seed(seed)) * 5


@given(requests=st.lists(REQUESTS, min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_each_row_equals_the_reference_in_every_batch(requests: list[Request], seed: int) -> None:
    logits = random_logits(len(requests), seed)
    pairs = zip(logits.numpy(), requests, strict=True)
    expected = np.stack([adjusted_logits(row, request) for row, request in pairs])
    adjust(logits, requests)
    torch.testing.assert_close(logits, torch.from_numpy(expected), rtol=1e-5, atol=1e-4)


@given(request=REQUESTS, seed=st.integers(0, 1000))
def test_the_repetition_penalty_equals_that_of_transformers(request: Request, seed: int) -> None:
    penalty = request.sampling.repetition_penalty
    request.sampling = ChoiceSampling(seed=0, repetition_penalty=penalty)
    logits = random_logits(1, seed)
    ids = torch.tensor([request.prompt_ids + request.output_ids])
    expected = RepetitionPenaltyLogitsProcessor(penalty)(ids, logits.clone())  # type: ignore[arg-type]
    adjust(logits, [request])
    torch.testing.assert_close(logits, expected)


@given(request=REQUESTS)
def test_sampling_does_not_change_the_models_logits(request: Request) -> None:
    logits = random_logits(1, 0)
    before = logits.clone()
    sample(logits, [request])
    assert torch.equal(logits, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_small_penalty_has_an_effect_in_half_precision(dtype: torch.dtype) -> None:
    logits = torch.tensor([[100.0, 100.0]], dtype=dtype)
    sampling = ChoiceSampling(seed=0, temperature=0.0, presence_penalty=0.01)
    assert sample(logits, [make_request(sampling=sampling, output_ids=[0])]) == [1]


def test_a_request_without_penalties_or_bias_is_not_adjusted() -> None:
    sampling = ChoiceSampling(seed=0, temperature=0.5, top_p=0.9, top_k=3, min_p=0.1)
    assert not is_adjusted(make_request(sampling=sampling))
