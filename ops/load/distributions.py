"""Distributions of a load: arrival times and lengths of requests, and the models that they use."""

import re
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from random import Random

from shared.errors import SettingsError

FORMULA = (
    "Distribution over the models. Request n = 0, 1, ... uses model k = 1..N: "
    "distinct: k = 1 + n mod N, so that neighbours differ; "
    "uniform: P(k) = 1 / N; "
    "zipf: P(k) = k^-s / sum(j^-s, j = 1..N), so that the first model is the most popular; "
    "identical: k = 1."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """A closed loop: each client waits for an answer before it sends its next request."""

    clients: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """An open loop: requests are sent at times chosen in advance.

    A request is sent even if earlier requests are still unanswered.

    The gaps between arrivals follow Gamma(shape = burstiness, scale = 1 / (rate * burstiness)). The
    gaps have mean 1 / rate and coefficient of variation 1 / sqrt(burstiness).
    """

    rate: float
    """Mean number of requests per second. Must be above 0."""
    burstiness: float = 1.0
    """Shape of the Gamma distribution, with the same meaning as in vLLM. Must be above 0.

    1 gives a Poisson process. Lower values give burstier arrivals.
    """


Arrivals = Closed | Open


def due_times_s(arrivals: Open, num_requests: int, seed: str) -> list[float]:
    """Return each request's send time in seconds after the start. Equal seeds give equal times."""
    random = Random(f"{seed}/arrivals")
    shape, scale = arrivals.burstiness, 1 / (arrivals.rate * arrivals.burstiness)
    return list(accumulate(random.gammavariate(shape, scale) for _ in range(num_requests)))


@dataclass(frozen=True, slots=True)
class Length:
    """Uniform distribution over the integers from `low` to `high`, both included."""

    low: int
    high: int

    def sample(self, seed: str) -> int:
        """Return a sample. Equal seeds give equal samples."""
        return Random(seed).randint(self.low, self.high)


def fixed(number: int) -> Length:
    """Return a distribution with all samples equal to `number`."""
    return Length(number, number)


def parse_length(flag: str, text: str) -> Length:
    """Parse the value of `flag`: a number such as `128`, or a range such as `64-256`.

    Raises:
        SettingsError: `text` has a different form, allows a length of 0, or is a descending range.
    """
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= low <= high:
        raise SettingsError(
            f"{flag} {text} is no length: give a number like 128, or a range like 64-256"
        )
    return Length(low, high)


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
    """Return the index of the model for request `number`. Equal arguments give equal results."""
    match popularity:
        case Popularity.DISTINCT:
            return number % num_models
        case Popularity.IDENTICAL:
            return 0
    exponent = zipf_s if popularity is Popularity.ZIPF else 0.0
    random = Random(f"{seed}/{number}/model")
    return random.choices(range(num_models), probabilities(num_models, exponent))[0]
