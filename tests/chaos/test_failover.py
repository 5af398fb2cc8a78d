"""Redis fails over through Sentinel repeatedly under load."""

import asyncio
import itertools
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from own_reader import OwnReader
from queue_support import eventually
from replicated_pool import front_end, replicated_servers, simulated_workers
from simulated_stream import SimulatedStream

from ops.lab.chaos.cluster.replicated import Replicated
from ops.lab.chaos.load.sdks.available import AvailableSdks
from ops.lab.chaos.load.sdks.sdk import Sdk, SdkError
from shared.store.redis.connection import connect
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

FAILOVERS = 10
CLIENTS = 8
TOKENS = 60
STEP_MS = 10
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

Mode = Literal["default", "strict"]


@dataclass
class Load:
    """Clients that stream answers one after another, and the outcomes."""

    url: str
    is_over: bool = False
    outcomes: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    """Number of streams that each client read to their ends."""
    texts: dict[str, str] = field(default_factory=dict)
    """Text of each stream that was completed, by job."""

    async def run(self, client_number: int, sdk: Sdk) -> None:
        for seed in itertools.count(1000 * client_number):
            if self.is_over:
                break
            outcome = await self._ask(seed, sdk)
            self.outcomes[outcome] += 1
            if outcome == "rejected":
                await asyncio.sleep(0.2)

    async def _ask(self, seed: int, sdk: Sdk) -> str:
        """Stream one answer and return its outcome.

        The outcome is `answered`, `rejected` if the job was never accepted, or `failed` if the
        client raised an error of its own after that.
        """
        api = sorted(sdk.apis)[seed % len(sdk.apis)]
        stream = SimulatedStream(sdk, api, self.url, seed, TOKENS)
        try:
            await stream.follow()
        except SdkError:
            return "failed" if stream.job else "rejected"
        if stream.finish != "length":
            return "cut off"
        assert stream.problem() is None, stream.problem()
        assert stream.job is not None
        self.texts[stream.job] = stream.text
        self.answered[sdk.name] += 1
        return "answered"


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


async def run_load(folder: Path, mode: Mode) -> Load:
    settings = {"durability": mode, "max_num_seqs": 8, "simulated_step_ms": STEP_MS}
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(replicated_servers(folder))
        await stack.enter_async_context(simulated_workers(servers.url, 2, **settings))
        load = Load(await stack.enter_async_context(front_end(folder, servers.url, mode)))
        official = await AvailableSdks.start(folder / "clients.log")
        stack.push_async_callback(official.close)
        sdks = itertools.cycle([OwnReader(), *official.all])
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(load.run(number, next(sdks)))
            for _ in range(FAILOVERS):
                await fail_over(servers, CLIENTS, load)
            load.is_over = True
        assert set(load.answered) == {sdk.name for sdk in (OwnReader(), *official.all)}
        await check_streams_equal_results(load, servers.url)
        return load


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
    load = await run_load(tmp_path, "strict")
    record_property("outcomes", dict(load.outcomes))
    assert set(load.outcomes) <= {"answered", "rejected"}, load.outcomes
    assert load.outcomes["answered"] > FAILOVERS * CLIENTS


async def test_default_durability_reports_jobs_that_were_not_replicated(
    tmp_path: Path, record_property
) -> None:
    """A lost job ends with an error; no stream ever mixes two answers."""
    load = await run_load(tmp_path, "default")
    record_property("outcomes", dict(load.outcomes))
    assert set(load.outcomes) <= {"answered", "rejected", "failed"}, load.outcomes
    assert load.outcomes["answered"] > FAILOVERS * CLIENTS
