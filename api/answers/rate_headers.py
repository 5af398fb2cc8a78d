"""Response headers with the limits of an API key, as OpenAI sends them."""

import math
from collections.abc import Sequence

from shared.protocol.access.rates import Rate, Unit


def rate_headers(rates: Sequence[Rate]) -> dict[str, str]:
    """Return the headers for a key's limits, or none for a key without limits.

    If a key has a limit per minute and one per day, the headers report the one with less remaining.
    """
    headers: dict[str, str] = {}
    for unit in Unit:
        of_unit = [rate for rate in rates if rate.unit is unit]
        if of_unit:
            rate = min(of_unit, key=lambda each: each.remaining)
            headers[f"x-ratelimit-limit-{unit}"] = str(rate.limit)
            headers[f"x-ratelimit-remaining-{unit}"] = str(rate.remaining)
            headers[f"x-ratelimit-reset-{unit}"] = f"{math.ceil(rate.wait_ms(rate.limit) / 1000)}s"
    return headers
