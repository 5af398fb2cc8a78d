"""Measures how fast prompts are computed."""

from collections.abc import Iterator
from dataclasses import dataclass

from ops.lab.bench.gpu.clock import Clock
from ops.lab.bench.gpu.decoding import forward
from ops.lab.bench.gpu.model import ServedModel
from worker.engine.scheduler import Chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefill:
    """Duration of a step that computes one whole prompt with the base model."""

    tokens: int
    ms: float
    tokens_per_s: float


def prefills(model: ServedModel, clock: Clock) -> Iterator[Prefill]:
    """Measure the prefill of a prompt of each length."""
    for length in model.sizes.prefills:
        with model.prompt(length) as prompt:
            chunk = Chunk(prompt, 0, length, samples=True)
            ms = clock.ms(forward(model.runner, [chunk], model.device))
        yield Prefill(tokens=length, ms=ms, tokens_per_s=1000 * length / ms)
