"""Compares the ledger of usage with the usage that clients have seen."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from ops.lab.chaos.load.record import Record
from shared.store.access.ledger import Ledger, Used
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys


async def ledger_sum(redis: Redis, keys: Keys) -> Used:
    """Return the ledger's total for yesterday and today. A run lasts less than a day."""
    ledger, total = Ledger(redis, keys), Used()
    today = await ledger.today()
    for day in (today - timedelta(days=1), today):
        for entry in await ledger.entries(day, await ledger.tenants(day)):
            total += entry.used
    return total


def seen_sum(records: Iterable[Record], cancelled: Mapping[str, Sequence[int]]) -> Used:
    """Return the sum of the usage of answered and cancelled requests, without cached tokens.

    Two requests with the same idempotency key have the same job, whose usage is added once.
    `cancelled` has the usage of cancelled jobs. It is added because no client knows the job of a
    request that wasn't acknowledged.
    """
    seen = {record.jobs[0]: record.usage for record in records if record.jobs}
    usage_of = {**cancelled, **seen}
    total = Used()
    for usage in usage_of.values():
        prompt, completion = usage or (0, 0)
        total += Used(1, prompt_tokens=prompt, completion_tokens=completion)
    return total


def difference(after: Used, before: Used) -> Used:
    """Return the usage added between two readings of the ledger. Cached tokens are left out."""
    return Used(
        after.requests - before.requests,
        prompt_tokens=after.prompt_tokens - before.prompt_tokens,
        completion_tokens=after.completion_tokens - before.completion_tokens,
    )
