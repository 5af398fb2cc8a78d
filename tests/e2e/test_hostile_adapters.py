"""A tenant that may only manage `red-*` sends adapters with slow patterns and large headers."""

import asyncio
import json
import struct
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from key_support import bearer, new_key
from served_tiny import BASE, TinyModels
from servers import Server, lorikeet_up
from tiny import save_adapter

from shared.protocol.access.rights import Scope
from shared.store.access.key_store import KeyStore
from shared.store.redis.connection import connect
from shared.store.redis.keys import Keys

pytestmark = pytest.mark.slow

BLUE = "blues-key-0123456789abcdef"
SLOW = r"(([a-z0-9_.]+)+)+#"
PATTERNS: list[dict[str, Any]] = [
    {"target_modules": SLOW},
    {"exclude_modules": SLOW},
    {"modules_to_save": [SLOW]},
    {"rank_pattern": {SLOW: 4}},
    {"alpha_pattern": {SLOW: 4}},
    {"layers_pattern": [SLOW], "layers_to_transform": [0]},
    {"target_modules": r"(?!x)" + SLOW},
]
MAX_WAIT_S = 5.0
"""Time within which an answer of two tokens must come, also on a busy machine."""


@pytest.fixture(scope="module")
def server(models: TinyModels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("hostile")
    with lorikeet_up(folder, *models.flags, workers=2, api_key=f"blue:{BLUE}") as server:
        wait_for_workers(server, 2)
        yield server
        assert "Traceback" not in server.log_text()


def wait_for_workers(server: Server, number: int, deadline_s: float = 120) -> None:
    end_s = time.monotonic() + deadline_s
    while num_workers(server) < number:
        assert time.monotonic() < end_s, "a worker didn't start in time"
        time.sleep(0.1)


def num_workers(server: Server) -> int:
    found: int = httpx.get(f"{server.url}/ready/worker", headers=bearer(BLUE)).json()["num_workers"]
    return found


@pytest.fixture
async def red(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    redis = connect(server.redis.url)
    store = KeyStore(redis, Keys("main"))
    secret, _ = await new_key(store, Scope.ADAPTERS, models=("red-*",))
    await redis.aclose()
    async with httpx.AsyncClient(base_url=server.url, headers=bearer(secret), timeout=60) as client:
        yield client


@pytest.fixture
async def blue(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, headers=bearer(BLUE), timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(tmp_path_factory.mktemp("good") / "a", r=4, target_modules=["q_proj"])


async def send(red: httpx.AsyncClient, config: dict[str, Any], weights: bytes) -> httpx.Response:
    query = {"name": "red-x", "config": json.dumps(config)}
    return await red.post("/v1/adapters", params=query, content=weights)


async def longest_wait_s(blue: httpx.AsyncClient, until: "asyncio.Task[httpx.Response]") -> float:
    """Ask for answers until a task has ended, and return the longest time that one took."""
    longest_s = 0.0
    while not until.done():
        start_s = time.monotonic()
        body = {"model": BASE, "prompt": "x", "max_tokens": 2}
        reply = await blue.post("/v1/completions", json=body)
        assert reply.status_code == 200, reply.text
        longest_s = max(longest_s, time.monotonic() - start_s)
    return longest_s


@pytest.mark.parametrize("changes", PATTERNS, ids=lambda changes: next(iter(changes)))
async def test_slow_patterns_neither_stop_workers_nor_delay_other_tenants(
    red: httpx.AsyncClient, blue: httpx.AsyncClient, good: Path, changes: dict[str, Any]
) -> None:
    config = json.loads((good / "adapter_config.json").read_text()) | changes
    weights = (good / "adapter_model.safetensors").read_bytes()
    sending = asyncio.create_task(send(red, config, weights))
    assert await longest_wait_s(blue, sending) < MAX_WAIT_S
    reply = await sending
    assert reply.status_code in (200, 400), reply.text
    if "?!" in str(changes):
        assert reply.status_code == 400
        assert "a lookaround" in reply.json()["error"]["message"]
    assert (await blue.get("/ready/worker")).json()["num_workers"] == 2


async def test_a_header_with_many_tensors_does_not_delay_other_tenants(
    red: httpx.AsyncClient, blue: httpx.AsyncClient, good: Path
) -> None:
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A"
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({f"{name}{number}": entry for number in range(15_000)}).encode()
    weights = struct.pack("<Q", len(header)) + header
    config = json.loads((good / "adapter_config.json").read_text())
    sending = asyncio.create_task(send(red, config, weights))
    assert await longest_wait_s(blue, sending) < MAX_WAIT_S
    reply = await sending
    assert reply.status_code == 400
    assert len(reply.text) < 2_000
