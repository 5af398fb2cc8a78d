"""Headers of a response that describe its job."""

import math
from collections.abc import Sequence

from api.http.headers import JOB_HEADER, LOCATION_HEADER, REPLAYED_HEADER
from shared.protocol.access.rates import Rate, Unit
from shared.protocol.enqueue import Enqueued


def job_headers(enqueued: Enqueued, root_path: str) -> dict[str, str]:
    """Return the headers that name the job of a request."""
    headers = {JOB_HEADER: enqueued.id, LOCATION_HEADER: f"{root_path}/v1/jobs/{enqueued.id}"}
    headers |= rate_headers(enqueued.rates)
    return headers if enqueued.is_new else headers | {REPLAYED_HEADER: "true"}


def rate_headers(rates: Sequence[Rate]) -> dict[str, str]:
    """Return the headers for a key's limits, or none for a key without limits.

    If a key has a limit for the minute and one for the day, they state the one with less left.
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
