"""The ledger equals the sum of the usage that clients see, however jobs end."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from queue_support import LIMITS

from shared.store.access.ledger import Ledger, Used
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

DAY_MS = 86_400_000


@pytest.fixture
def ledger(redis: Redis, keys: Keys) -> Ledger:
    return Ledger(redis, keys)


async def total(ledger: Ledger) -> dict[tuple[str, str], Used]:
    """Return the sums of today and yesterday by tenant and model."""
    sums: dict[tuple[str, str], Used] = {}
    today = await ledger.today()
    for day in (today - timedelta(days=1), today):
        for entry in await ledger.entries(day, await ledger.tenants(day)):
            name = entry.tenant, entry.model
            sums[name] = sums.get(name, Used()) + entry.used
    return sums


async def test_an_answer_is_entered_for_its_tenant_model_and_day(
    actor: Any, enqueue: Any, ledger: Ledger
) -> None:
    worker = await actor()
    await enqueue(tenant="red")
    (claimed,) = await worker.claim()
    await worker.finish(claimed, used=12)
    assert await ledger.today() in {
        datetime.now(UTC).date() + timedelta(days=days) for days in (-1, 0, 1)
    }
    assert await total(ledger) == {("red", "a"): Used(1, 12, 0, 0)}
    await worker.finish(claimed, used=12)
    assert await total(ledger) == {("red", "a"): Used(1, 12, 0, 0)}


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
