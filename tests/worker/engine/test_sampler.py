"""Sampling of tokens, against an oracle."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

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


@pytest.mark.parametrize("temperature", [1e-12, 1e-300])
def test_a_tiny_temperature_is_greedy_rather_than_an_overflow(temperature: float) -> None:
    logits = torch.tensor([[0.0, 3.0, 2.0]])
    assert sample(logits, [at(0, ChoiceSampling(seed=0, temperature=temperature))]) == [1]


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
