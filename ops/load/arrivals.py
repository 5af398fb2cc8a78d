"""Arrival times of requests in closed and open loops."""

from dataclasses import dataclass
from itertools import accumulate
from random import Random


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """A closed loop, in which each client waits for an answer before it sends its next request."""

    clients: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """An open loop, in which requests are sent at times chosen in advance.

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
