"""The ledger equals the sum of the usage that clients see, however jobs end."""

from typing import Any

import pytest
from queue_support import LIMITS

from shared.store.access.ledger import Ledger
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

DAY_MS = 86_400_000


@pytest.fixture
def ledger(redis: Redis, keys: Keys) -> Ledger:
    return Ledger(redis, keys)


async def test_entries_expire_after_the_days_of_the_setting(
    actor: Any, enqueue: Any, ledger: Ledger, redis: Redis, keys: Keys
) -> None:
    worker = await actor()
    await enqueue(tenant="red")
    (claimed,) = await worker.claim()
    await worker.finish(claimed)
    today = (await redis.time())[0] * 1000 // DAY_MS
    for key in (keys.ledger(today, "red"), keys.ledger_tenants(today)):
        assert await redis.pexpiretime(key) == (today + 1 + LIMITS.usage_days) * DAY_MS


async def test_thousands_of_models_are_read_completely(
    redis: Redis, keys: Keys, ledger: Ledger
) -> None:
    today = await ledger.today()
    number = (await redis.time())[0] * 1000 // DAY_MS
    for tenant in ("red", "blue"):
        rows = {f"m{model:04}": f"{model} 1 2 3" for model in range(3000)}
        await redis.hset(keys.ledger(number, tenant), mapping=rows)  # type: ignore[misc]
    entries = await ledger.entries(today, ["red", "blue", "nobody"])
    assert [(entry.tenant, entry.used.requests) for entry in entries] == [
        (tenant, model) for tenant in ("blue", "red") for model in range(3000)
    ]
