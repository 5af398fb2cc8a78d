"""Redis fails over through Sentinel repeatedly under load."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import httpx
import orjson
import pytest
from queue_support import eventually
from servers import start_lorikeet, wait_for
from simulated_workers import BASE, NAME, worker_process
from worker_support import has_workers

from ops.chaos.cluster.replicated import Replicated
from shared.store.connection import connect
from shared.store.keys import Keys
from shared.store.views.pool_views import PoolViews
from worker.engine_simulated.checker import check
from worker.engine_simulated.tokens import prompt_ids

FAILOVERS = 10
CLIENTS = 8
TOKENS = 60
PROMPT = "hello"
STEP_MS = 10
SETTLE_S = 2.0
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

Mode = Literal["default", "strict"]


@dataclass
class Load:
    """Clients that stream answers one after another, and the outcomes."""

    url: str
    is_over: bool = False
    outcomes: Counter[str] = field(default_factory=Counter)
    texts: dict[str, str] = field(default_factory=dict)
    """Text of each stream that was completed, by job."""

    async def run(self, client_number: int, client: httpx.AsyncClient) -> None:
        """Stream answers until `is_over` is set."""
        seed = 1000 * client_number
        while not self.is_over:
            seed += 1
            outcome = await self._ask(seed, client)
            self.outcomes[outcome] += 1
            if outcome == "rejected":
                await asyncio.sleep(0.2)

    async def _ask(self, seed: int, client: httpx.AsyncClient) -> str:
        """Stream one answer and return its outcome.

        The outcome is `answered`, `rejected` if the job was never accepted, or how it was lost.
        """
        body = {"model": NAME, "prompt": PROMPT, "seed": seed, "max_tokens": TOKENS}
        body |= {"stream": True, "ignore_eos": True}
        async with client.stream("POST", "/v1/completions", json=body) as response:
            if response.status_code != 200:
                await response.aread()
                return "rejected"
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
            verdict = check(
                text, version=BASE, prompt=prompt_ids(PROMPT), seed=seed, num_tokens=TOKENS
            )
            assert verdict.violation is None, verdict.violation
            self.texts[response.headers["X-Lorikeet-Job"]] = text
            return "answered"


@asynccontextmanager
async def front_end(folder: Path, url: str, port: int, mode: Mode) -> AsyncIterator[str]:
    words = ["api", "--port", str(port), "--redis-url", url, "--durability", mode]
    process = start_lorikeet([*words, "--retain-s", "600"], folder / "api.log")
    api_url = f"http://127.0.0.1:{port}"

    def is_ready() -> bool:
        try:
            return httpx.get(f"{api_url}/ready/worker", timeout=3).status_code == 200
        except httpx.TransportError:
            return False

    try:
        await asyncio.to_thread(wait_for, is_ready, (folder / "api.log").read_text, process)
        yield api_url
    finally:
        process.kill()
        process.wait()


async def fail_over(servers: Replicated, num_clients: int, load: Load) -> None:
    """Kill the master, restart it as a replica, and wait until answers are completed again."""
    old = await servers.master_port()
    servers.kill(old)
    await servers.promoted(old)
    await servers.restart(old)
    num_answered = load.outcomes["answered"]

    async def has_recovered() -> bool:
        return load.outcomes["answered"] >= num_answered + num_clients

    await eventually(has_recovered, within_s=60)


async def run_load(folder: Path, port: int, mode: Mode) -> Load:
    servers = await Replicated.start(folder, servers=2, sentinels=3)
    try:
        settings = {"durability": mode, "max_num_seqs": 8, "simulated_step_ms": STEP_MS}
        with (
            worker_process(servers.url, "main", **settings),
            worker_process(servers.url, "main", **settings),
        ):
            async with front_end(folder, servers.url, port, mode) as api_url:
                await wait_for_workers(servers.url, 2)
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
                await check_streams_equal_results(load, servers.url)
                return load
    finally:
        servers.stop()


async def wait_for_workers(url: str, count: int) -> None:
    redis = connect(url)
    views = PoolViews(redis, Keys("main"))
    await eventually(lambda: has_workers(views, count), within_s=30)
    await redis.aclose()


async def check_streams_equal_results(load: Load, url: str) -> None:
    """Check that streamed texts equal the stored results, as far as Redis still has these."""
    redis = connect(url)
    views = PoolViews(redis, Keys("main"))
    for name, text in load.texts.items():
        result = (await views.job_and_result(name.removeprefix("cmpl-")))[1]
        if result is not None:
            (choice,) = result.choices
            assert len(choice.ids) == TOKENS
            assert choice.text == text, name
    await redis.aclose()


async def test_strict_durability_loses_no_job_in_ten_failovers(
    tmp_path: Path, record_property
) -> None:
    load = await run_load(tmp_path, 23411, "strict")
    record_property("outcomes", dict(load.outcomes))
    assert set(load.outcomes) <= {"answered", "rejected"}, load.outcomes
    assert load.outcomes["answered"] > FAILOVERS * CLIENTS


async def test_default_durability_reports_jobs_that_were_not_replicated(
    tmp_path: Path, record_property
) -> None:
    """A lost job ends with an error; no stream ever mixes two answers."""
    load = await run_load(tmp_path, 23412, "default")
    record_property("outcomes", dict(load.outcomes))
    reported = {"answered", "rejected", "service_unavailable", "resume_diverged", "internal_error"}
    assert set(load.outcomes) <= reported, load.outcomes
    assert load.outcomes["answered"] > FAILOVERS * CLIENTS
