"""Response headers with the limits of an API key, as OpenAI sends them."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from shared.protocol.access.rates import Rate, Unit
from shared.protocol.jobs import View


def rate_headers(rates: Sequence[Rate], view: View) -> dict[str, str]:
    """Return the headers for a key's limits, or none for a key without limits.

    Responses of Anthropic's API also have the limits in Anthropic's headers.

    If a key has a limit per minute and a limit per day, the headers report the one with the
    smaller remaining amount.
    """
    headers: dict[str, str] = {}
    for unit in Unit:
        of_unit = [rate for rate in rates if rate.unit is unit]
        if of_unit:
            rate = min(of_unit, key=lambda each: each.remaining)
            reset_s = math.ceil(rate.wait_ms(rate.limit) / 1000)
            headers[f"x-ratelimit-limit-{unit}"] = str(rate.limit)
            headers[f"x-ratelimit-remaining-{unit}"] = str(rate.remaining)
            headers[f"x-ratelimit-reset-{unit}"] = f"{reset_s}s"
            if view is View.MESSAGES:
                prefix = f"anthropic-ratelimit-{unit}"
                headers[f"{prefix}-limit"] = str(rate.limit)
                headers[f"{prefix}-remaining"] = str(rate.remaining)
                headers[f"{prefix}-reset"] = _time_in(reset_s)
    return headers


def _time_in(seconds: int) -> str:
    """Return the UTC time that is `seconds` from now, in the format of RFC 3339."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
