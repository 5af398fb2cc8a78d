"""Popularity of models: how requests are distributed over the models."""

from enum import StrEnum
from random import Random

FORMULA = (
    "Distribution over the models. Request n = 0, 1, ... uses model k = 1..N: "
    "distinct: k = 1 + n mod N, so that neighbours differ; "
    "uniform: P(k) = 1 / N; "
    "zipf: P(k) = k^-s / sum(j^-s, j = 1..N), so that the first model is the most popular; "
    "identical: k = 1."
)


class Popularity(StrEnum):
    """Distribution of requests over the models. `FORMULA` defines each member."""

    DISTINCT = "distinct"
    """Requests use all models in turn."""
    UNIFORM = "uniform"
    """Each request uses a random model. All models are equally likely."""
    ZIPF = "zipf"
    """Each request uses a random model, chosen by Zipf's law. A few models receive most of the
    requests."""
    IDENTICAL = "identical"
    """All requests use the first model."""


def probabilities(num_models: int, zipf_s: float) -> list[float]:
    """Return P(k) of Zipf's law for k = 1..`num_models`. Exponent 0 gives equal probabilities."""
    weights = [k**-zipf_s for k in range(1, num_models + 1)]
    total = sum(weights)
    return [weight / total for weight in weights]


def pick(popularity: Popularity, num_models: int, number: int, *, zipf_s: float, seed: str) -> int:
    """Return the index of the model that request `number` uses, the same for equal arguments."""
    match popularity:
        case Popularity.DISTINCT:
            return number % num_models
        case Popularity.IDENTICAL:
            return 0
    exponent = zipf_s if popularity is Popularity.ZIPF else 0.0
    random = Random(f"{seed}/{number}/model")
    return random.choices(range(num_models), probabilities(num_models, exponent))[0]
