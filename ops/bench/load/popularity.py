"""Which of the models a request asks for."""

from enum import StrEnum
from random import Random

FORMULA = (
    "model k = 1..N of request n = 0, 1, ...: "
    "distinct k = 1 + n mod N, so that neighbours differ; "
    "uniform P(k) = 1 / N; "
    "zipf P(k) = k^-s / sum(j^-s, j = 1..N), so that the first is the most popular; "
    "identical k = 1"
)


class Popularity(StrEnum):
    """How requests spread over the models; `FORMULA` says it exactly."""

    DISTINCT = "distinct"
    """In turn."""
    UNIFORM = "uniform"
    """Each at random, all alike."""
    ZIPF = "zipf"
    """Few are asked for often, many seldom."""
    IDENTICAL = "identical"
    """The first one alone."""


def probabilities(num_models: int, zipf_s: float) -> list[float]:
    """P(k) of Zipf's law for k = 1..`num_models`; all alike for s = 0."""
    weights = [k**-zipf_s for k in range(1, num_models + 1)]
    total = sum(weights)
    return [weight / total for weight in weights]


def pick(popularity: Popularity, num_models: int, number: int, *, zipf_s: float, seed: str) -> int:
    """The index (from 0) of the model of request `number`; the same for the same seed."""
    match popularity:
        case Popularity.DISTINCT:
            return number % num_models
        case Popularity.IDENTICAL:
            return 0
    exponent = zipf_s if popularity is Popularity.ZIPF else 0.0
    draw = Random(f"{seed}/{number}/model")
    return draw.choices(range(num_models), probabilities(num_models, exponent))[0]
