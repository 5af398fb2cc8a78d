"""Measures how long the sampler takes for the largest batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from ops.lab.bench.gpu.clock import Clock
from ops.lab.bench.gpu.decoding import random_request
from ops.lab.bench.gpu.sizes import Sizes
from worker.engine.request import ChoiceSampling, Request
from worker.engine.sampler import sample

PEAKED_STD = 4.0
"""Standard deviation of logits whose likeliest tokens have most of the probability."""
FLAT_STD = 1.0
"""Standard deviation of logits for which top-p keeps a large part of the vocabulary."""
SAMPLED = ChoiceSampling(seed=0, temperature=1.0)
CASES = (
    ("greedy", PEAKED_STD, replace(SAMPLED, temperature=0.0)),
    ("top-p 0.9", PEAKED_STD, replace(SAMPLED, top_p=0.9)),
    ("temperature 1", PEAKED_STD, SAMPLED),
    ("top-p 0.9, flat logits", FLAT_STD, replace(SAMPLED, top_p=0.9)),
    (
        "top-p 0.9, penalties",
        PEAKED_STD,
        replace(SAMPLED, top_p=0.9, presence_penalty=0.5, frequency_penalty=0.5),
    ),
)
NUM_OUTPUTS = 32
"""Number of output tokens that each request already has. Penalties apply to them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Duration of one call of the sampler. The call ends when the tokens are in host memory."""

    case: str
    rows: int
    ms: float


def samplings(sizes: Sizes, clock: Clock, device: torch.device) -> Iterator[Sampling]:
    """Measure the sampler for each of `CASES`."""
    rows = sizes.max_sequences
    generator = torch.Generator(device).manual_seed(0)
    noise = torch.randn(rows, sizes.vocab_size, generator=generator, device=device)
    for case, std, sampling in CASES:
        logits, requests = std * noise, _requests(sizes, sampling)
        yield Sampling(case=case, rows=rows, ms=_ms(logits, requests, clock))


def _ms(logits: torch.Tensor, requests: Sequence[Request], clock: Clock) -> float:
    with torch.inference_mode():
        return clock.wall_ms(lambda: sample(logits, requests))


def _requests(sizes: Sizes, sampling: ChoiceSampling) -> list[Request]:
    requests = [
        random_request(n, sizes.context, sizes.vocab_size, None) for n in range(sizes.max_sequences)
    ]
    for number, row in enumerate(requests):
        row.sampling = replace(sampling, seed=number)
        row.output_ids = row.prompt_ids[:NUM_OUTPUTS]
    return requests
