"""Redis fails over through Sentinel, again and again, under load."""

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import httpx
import orjson
import pytest
from queue_support import eventually
from scripted_engine import BASE
from sentinels import Replicated
from servers import start_lorikeet, wait_for
from worker_support import PROGRAM, has_workers

from shared.store.connection import connect
from shared.store.keys import Keys
from shared.store.queue import Queue

FAILOVERS = 10
CLIENTS = 8
TOKENS = 60
STEP_S = "0.01"
SETTLE_S = 2.0
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

Mode = Literal["default", "strict"]


@dataclass
class Load:
    """Clients that stream one answer after another, and what became of them."""

    url: str
    is_over: bool = False
    outcomes: Counter[str] = field(default_factory=Counter)
    shown: dict[str, str] = field(default_factory=dict)
    """Text by job, of the streams that ended well."""

    async def run(self, client_number: int, client: httpx.AsyncClient) -> None:
        """Ask until the load is over."""
        seed = 1000 * client_number
        while not self.is_over:
            seed += 1
            outcome = await self._ask(seed, client)
            self.outcomes[outcome] += 1
            if outcome == "refused":
                await asyncio.sleep(0.2)

    async def _ask(self, seed: int, client: httpx.AsyncClient) -> str:
        """`answered`, `refused` before it was acknowledged, or how it was lost afterwards."""
        body = {"model": BASE.name, "prompt": "hello", "seed": seed, "max_tokens": TOKENS}
        body |= {"stream": True, "ignore_eos": True}
        async with client.stream("POST", "/v1/completions", json=body) as response:
            if response.status_code != 200:
                await response.aread()
                return "refused"
            text, finish = "", None
            async for line in response.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                event = orjson.loads(line.removeprefix("data: "))
                if "error" in event:
                    return str(event["error"]["code"])
                text += event["choices"][0]["text"]
                finish = event["choices"][0]["finish_reason"] or finish
            if finish != "length":
                return "cut off"
            self.shown[response.headers["X-Lorikeet-Job"]] = text
            return "answered"


@contextmanager
def scripted_worker(url: str, salt: int, mode: Mode) -> Iterator[None]:
    settings = {"redis_url": url, "model": "scripted", "durability": mode, "max_num_seqs": 8}
    words = [str(PROGRAM), orjson.dumps(settings).decode(), STEP_S, "/nonexistent", str(salt)]
    process = subprocess.Popen([sys.executable, *words])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def front_end(folder: Path, url: str, port: int, mode: Mode) -> AsyncIterator[str]:
    words = ["api", "--port", str(port), "--redis-url", url, "--durability", mode]
    process = start_lorikeet([*words, "--retain-s", "600"], folder / "api.log")
    api_url = f"http://127.0.0.1:{port}"

    def is_ready() -> bool:
        try:
            return httpx.get(f"{api_url}/ready", timeout=3).status_code == 200
        except httpx.TransportError:
            return False

    try:
        await asyncio.to_thread(wait_for, is_ready, (folder / "api.log").read_text, process)
        yield api_url
    finally:
        process.kill()
        process.wait()


async def fail_over(servers: Replicated, num_clients: int, load: Load) -> None:
    """Kill the master, wait until work goes on elsewhere, and bring it back as a replica."""
    old = await servers.master_port()
    servers.kill(old)
    await servers.promoted(old)
    await servers.restart(old)
    num_answered = load.outcomes["answered"]

    async def goes_on() -> bool:
        return load.outcomes["answered"] >= num_answered + num_clients

    await eventually(goes_on, within_s=60)


async def run_load(folder: Path, port: int, mode: Mode) -> Load:
    servers = await Replicated.start(folder, servers=2, sentinels=3)
    try:
        with scripted_worker(servers.url, 1, mode), scripted_worker(servers.url, 7, mode):
            async with front_end(folder, servers.url, port, mode) as api_url:
                await workers_are_there(servers.url, 2)
                load = Load(api_url)
                async with (
                    httpx.AsyncClient(base_url=api_url, timeout=120) as client,
                    asyncio.TaskGroup() as group,
                ):
                    for number in range(CLIENTS):
                        group.create_task(load.run(number, client))
                    for _ in range(FAILOVERS):
                        await fail_over(servers, CLIENTS, load)
                    load.is_over = True
                await check_nothing_is_spliced(load, servers.url)
                return load
    finally:
        servers.stop()


async def workers_are_there(url: str, count: int) -> None:
    redis = connect(url)
    queue = Queue(redis, Keys("main"))
    await eventually(lambda: has_workers(queue, count), within_s=30)
    await redis.aclose()


async def check_nothing_is_spliced(load: Load, url: str) -> None:
    """What clients saw is what the last owner of the job wrote down, where Redis still has it."""
    redis = connect(url)
    queue = Queue(redis, Keys("main"))
    for name, text in load.shown.items():
        result = await queue.result(name.removeprefix("cmpl-"))
        if result is not None:
            (choice,) = result.choices
            assert len(choice.ids) == TOKENS
            assert choice.text == text, name
    await redis.aclose()


async def test_strict_durability_loses_nothing_over_ten_failovers(
    tmp_path: Path, record_property
) -> None:
    load = await run_load(tmp_path, 23411, "strict")
    record_property("outcomes", dict(load.outcomes))
    assert set(load.outcomes) <= {"answered", "refused"}, load.outcomes
    assert load.outcomes["answered"] > FAILOVERS * CLIENTS


async def test_the_default_may_lose_what_was_not_replicated_yet(
    tmp_path: Path, record_property
) -> None:
    """Losses are told to the client, and never a splice."""
    load = await run_load(tmp_path, 23412, "default")
    record_property("outcomes", dict(load.outcomes))
    told = {"answered", "refused", "service_unavailable", "resume_diverged", "internal_error"}
    assert set(load.outcomes) <= told, load.outcomes
    assert load.outcomes["answered"] > FAILOVERS * CLIENTS
