"""Costly adapters and schemas of one tenant don't delay the answers of another one."""

import asyncio
import json
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import openai
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
PATTERNS = [SLOW, r"(?!x)" + SLOW]
"""Patterns of modules, of which one is matched in linear time and one is refused.

tests/worker/lora/patterns and checkpoint/test_linear_checks.py have each field with a pattern.
"""
MAX_WAIT_S = 5.0
"""Time within which an answer of two tokens must come, also on a busy machine."""
NUM_COSTLY = 12


@pytest.fixture(scope="module")
def server(models: TinyModels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("hostile")
    with lorikeet_up(folder, *models.flags, api_key=f"blue:{BLUE}") as server:
        yield server
        assert "Traceback" not in server.log_text()


@pytest.fixture
async def reds_key(server: Server) -> str:
    """Key of a tenant that may only manage and use `red-*` and the base."""
    redis = connect(server.redis.url)
    scopes = Scope.ADAPTERS, Scope.INFERENCE
    secret, _ = await new_key(KeyStore(redis, Keys("main")), *scopes, models=("red-*", BASE))
    await redis.aclose()
    return secret


@pytest.fixture
async def red(server: Server, reds_key: str) -> AsyncIterator[httpx.AsyncClient]:
    headers = bearer(reds_key)
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=60) as client:
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


@pytest.mark.parametrize("pattern", PATTERNS)
async def test_slow_patterns_neither_stop_workers_nor_delay_other_tenants(
    red: httpx.AsyncClient, blue: httpx.AsyncClient, server: Server, good: Path, pattern: str
) -> None:
    pids = server.pids()
    config = json.loads((good / "adapter_config.json").read_text()) | {"target_modules": pattern}
    weights = (good / "adapter_model.safetensors").read_bytes()
    sending = asyncio.create_task(send(red, config, weights))
    assert await longest_wait_s(blue, sending) < MAX_WAIT_S
    reply = await sending
    assert reply.status_code == 400, reply.text
    assert ("a lookaround" in reply.text) == pattern.startswith("(?!")
    assert server.pids() == pids


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


def json_schema(schema: dict[str, Any]) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


def costly(number: int) -> Any:
    """Return a schema that takes minutes to compile without a limit."""
    return json_schema({"type": "integer", "multipleOf": 100_000_007 + 2 * number})


async def ask(client: openai.AsyncOpenAI, response_format: Any) -> str:
    answer = await client.chat.completions.create(
        model=BASE,
        messages=[{"role": "user", "content": "a"}],
        max_tokens=8,
        response_format=response_format,
    )
    return answer.choices[0].message.content or ""


async def test_a_schema_is_compiled_beside_costly_ones_of_another_tenant(
    server: Server, reds_key: str
) -> None:
    async with AsyncExitStack() as stack:
        red, blue = [
            await stack.enter_async_context(
                openai.AsyncOpenAI(base_url=server.api_url, api_key=key, max_retries=0)
            )
            for key in (reds_key, BLUE)
        ]
        hostile = [asyncio.create_task(ask(red, costly(i))) for i in range(NUM_COSTLY)]
        await asyncio.wait(hostile, return_when=asyncio.FIRST_COMPLETED)
        assert await ask(blue, json_schema({"const": 1})) == "1"
        assert sum(task.done() for task in hostile) < NUM_COSTLY / 2
        results = await asyncio.gather(*hostile, return_exceptions=True)
    refusals = {openai.BadRequestError, openai.RateLimitError}
    assert {type(result) for result in results} <= refusals
