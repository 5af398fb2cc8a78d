"""Arrival times of requests: closed loops and open loops."""

from dataclasses import dataclass
from itertools import accumulate
from random import Random


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """A closed loop: each client sends its next request after the answer to its last."""

    clients: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """An open loop: requests are sent at their arrival times, even while others are unanswered.

    The gaps between arrivals follow Gamma(shape = burstiness, scale = 1 / (rate * burstiness)).
    Their mean is 1 / rate, their coefficient of variation 1 / sqrt(burstiness).
    """

    rate: float
    """Mean number of requests per second; above 0."""
    burstiness: float = 1.0
    """Shape; above 0. 1 is a Poisson process, lower values are burstier. Defined as in vLLM."""


Arrivals = Closed | Open


def due_times_s(arrivals: Open, num_requests: int, seed: str) -> list[float]:
    """Return the send time of each request in seconds from the start; deterministic for a seed."""
    random = Random(f"{seed}/arrivals")
    shape, scale = arrivals.burstiness, 1 / (arrivals.rate * arrivals.burstiness)
    return list(accumulate(random.gammavariate(shape, scale) for _ in range(num_requests)))
