"""What one tenant's batches may need of Redis."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from api.schema.metadata import MAX_KEY_CHARS, MAX_KEYS, MAX_VALUE_CHARS
from shared.protocol.ids import BatchId
from shared.store.batches.batches import Batches
from shared.store.batches.records import BatchStatus
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

RED, BLUE = "0123456789abcdef", "fedcba9876543210"
NUM_BATCHES = 20
MAX_RECORD_BYTES = 64 << 10
"""Memory in Redis that one batch needs at most: metadata, and the faults of its file."""
WIDE = "\U0001f99c"
"""A character that needs four bytes."""
LARGEST = {f"{i:02}" + WIDE * (MAX_KEY_CHARS - 2): WIDE * MAX_VALUE_CHARS for i in range(MAX_KEYS)}


@pytest.fixture
def changes(tmp_path: Path) -> dict[str, Any]:
    return {
        "file_store": str(tmp_path / "store"),
        "api_keys": (SecretStr(f"red:{RED}"), SecretStr(f"blue:{BLUE}")),
        "max_batches_tenant": NUM_BATCHES,
        "max_body_bytes": 1_000_000,
    }


async def create(http: httpx.AsyncClient, key: str, metadata: dict[str, str]) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"}
    form = {"files": {"file": b"not json"}, "data": {"purpose": "batch"}}
    file = await http.post("/v1/files", headers=headers, **form)  # type: ignore[arg-type]
    body = {
        "input_file_id": file.json()["id"],
        "endpoint": "/v1/completions",
        "completion_window": "24h",
        "metadata": metadata,
    }
    return await http.post("/v1/batches", headers=headers, json=body)


async def memory_of(redis: Redis, keys: Keys) -> int:
    found = [key async for key in redis.scan_iter(f"{keys.prefix}*batch*")]
    return sum([await redis.memory_usage(key, samples=0) or 0 for key in found])


async def test_failed_batches_with_large_metadata_fill_redis_for_nobody_else(
    http: httpx.AsyncClient, redis: Redis, keys: Keys
) -> None:
    batches = Batches(redis, keys)
    for _ in range(NUM_BATCHES):
        created = await create(http, RED, LARGEST)
        assert created.status_code == 200, created.text
        batch = BatchId(created.json()["id"])
        turn = await batches.take_turn()
        assert turn is not None
        await batches.end(batch, turn.runner, BatchStatus.FAILED, keep_s=60, announces=False)
    refused = await create(http, RED, {})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "quota_exceeded")
    assert await memory_of(redis, keys) < NUM_BATCHES * MAX_RECORD_BYTES
    assert (await create(http, BLUE, LARGEST)).status_code == 200
    await http.delete(f"/v1/batches/{batch}", headers={"authorization": f"Bearer {RED}"})
    assert (await create(http, RED, {})).status_code == 200
