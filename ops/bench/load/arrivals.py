"""When requests are sent: by clients that wait for their answers, or by the clock."""

from dataclasses import dataclass
from itertools import accumulate
from random import Random


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """A closed loop: so many clients, each of which sends its next request when it was answered."""

    clients: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """An open loop: requests come at their times, however many are still unanswered.

    The gaps between arrivals are drawn from Gamma(shape = burstiness, scale = 1 / (rate *
    burstiness)): their mean is 1 / rate, their coefficient of variation 1 / sqrt(burstiness).
    """

    rate: float
    """Requests per second on average; above 0."""
    burstiness: float = 1.0
    """1 is a Poisson process, less comes in bursts, more is regular; above 0. As in vLLM."""


Arrivals = Closed | Open


def due_times_s(arrivals: Open, num_requests: int, seed: str) -> list[float]:
    """When each request is sent, in seconds from the start; the same for the same seed."""
    random = Random(f"{seed}/arrivals")
    shape, scale = arrivals.burstiness, 1 / (arrivals.rate * arrivals.burstiness)
    return list(accumulate(random.gammavariate(shape, scale) for _ in range(num_requests)))
