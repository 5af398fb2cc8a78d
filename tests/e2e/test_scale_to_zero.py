"""A controller that plays KEDA scales real workers between none and four, by the chart's numbers.

The query, its target and the limits are those of the rendered chart. Only the times are shortened.
"""

import asyncio
import contextlib
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from api_processes import api_process, is_healthy
from child_processes import child_processes
from helm_chart import of_kind, rendered
from keda_player import Player, Rule
from own_reader import OwnReader
from prometheus_client.parser import text_string_to_metric_families
from queue_support import eventually
from simulated_stream import SimulatedStream
from simulated_workers import BASE, worker_command

from ops.lab.chaos.load.sdks.sdk import Api
from ops.local.ports import free_port
from worker.engine_simulated.checker import check
from worker.engine_simulated.tokens import prompt_ids

NUM_BURSTS = 3
SLOTS = 4
STEP_MS = 50
SHORT, LONG = 20, 120
"""Output tokens: a second and six seconds."""
DRAIN_S = 0.5
"""Shorter than a long answer, so that workers which are scaled in hand jobs over."""
COOLDOWN_S = 1.0
STABILIZATION_S = 0.5
POLL_S = 0.2
LIMIT_S = 90.0


def claims_of(stream: SimulatedStream) -> int:
    """Check that the answer is complete; return how many claims have computed it."""
    verdict = check(
        stream.text,
        version=BASE,
        prompt=prompt_ids(stream.question.prompt),
        seed=stream.seed,
        num_tokens=stream.num_tokens,
    )
    assert verdict.violation is None, f"stream {stream.seed}: {verdict.violation}"
    return len(verdict.epochs)


@dataclass(kw_only=True)
class Deployment:
    """Workers as processes. Like Kubernetes, it starts them and stops the newest by SIGTERM."""

    start: "Callable[[], subprocess.Popen[str]]"
    running: "list[subprocess.Popen[str]]" = field(default_factory=list)
    stopped: "list[subprocess.Popen[str]]" = field(default_factory=list)

    def scale(self, replicas: int) -> None:
        """Start or stop workers, without waiting for them."""
        assert not [p.returncode for p in self.running if p.poll() is not None], (
            "a worker has ended"
        )
        while len(self.running) < replicas:
            self.running.append(self.start())
        while len(self.running) > replicas:
            process = self.running.pop()
            process.send_signal(signal.SIGTERM)
            self.stopped.append(process)


@dataclass(kw_only=True)
class Cluster:
    """Front ends, the workers' Deployment, and the controller that scales it."""

    urls: Sequence[str]
    player: Player
    deployment: Deployment
    client: httpx.AsyncClient
    streams: list[SimulatedStream] = field(default_factory=list)
    num_stops_under_load: int = 0
    """How often workers were stopped while streams were unfinished."""

    @property
    def num_unfinished(self) -> int:
        return sum(stream.finish is None for stream in self.streams)

    async def control(self) -> None:
        """Scale the Deployment as KEDA does, until cancelled."""
        while True:
            before = len(self.deployment.running)
            values = [await self.metric(self.player.rule.metric, url) for url in self.urls]
            value = self.player.rule.value(values)
            self.deployment.scale(self.player.replicas(value, before, time.monotonic()))
            is_scaled_in = len(self.deployment.running) < before
            self.num_stops_under_load += is_scaled_in and self.num_unfinished > 0
            await asyncio.sleep(POLL_S)

    async def metric(self, name: str, url: str) -> float:
        """Return the sum of a metric that a front end exports."""
        reply = await self.client.get(f"{url}/metrics")
        families = text_string_to_metric_families(reply.text)
        return sum(s.value for family in families for s in family.samples if s.name == name)

    async def states(self) -> set[str]:
        """Return the states of all jobs, as a front end reports them."""
        jobs = [f"{self.urls[0]}/v1/jobs/{stream.job}" for stream in self.streams]
        replies = [await self.client.get(job) for job in jobs]
        return {reply.json()["state"] for reply in replies}

    async def num_alive(self) -> float:
        return await self.metric("lorikeet_workers_alive", self.urls[0])

    async def accepts_jobs(self) -> bool:
        return (await self.client.get(f"{self.urls[0]}/ready")).status_code == 200

    async def has_no_worker(self) -> bool:
        return not self.deployment.running and await self.num_alive() == 0

    async def burst(self) -> None:
        """Send requests until four workers run, and wait for all answers."""
        async with asyncio.TaskGroup() as group:
            self._send(group)

            async def starts_a_worker() -> bool:
                return len(self.deployment.running) == 1

            await eventually(starts_a_worker, within_s=LIMIT_S)

            async def has_all_workers() -> bool:
                while self.num_unfinished < 6 * SLOTS:
                    self._send(group)
                await asyncio.sleep(POLL_S)
                return await self.num_alive() == self.player.rule.most

            await eventually(has_all_workers, within_s=LIMIT_S)

    def _send(self, group: asyncio.TaskGroup) -> None:
        number = len(self.streams)
        url, length = self.urls[number % len(self.urls)], SHORT if number % 3 else LONG
        stream = SimulatedStream(OwnReader(), Api.COMPLETIONS, url, number, length)
        self.streams.append(stream)
        group.create_task(stream.follow())


@pytest.fixture
def front_ends(redis_url: str, pool: str) -> Iterator[list[str]]:
    """Start two front ends and return their URLs."""
    ports = [free_port(), free_port()]
    with contextlib.ExitStack() as stack:
        for port in ports:
            stack.enter_context(api_process(redis_url, pool, port))
        yield [f"http://127.0.0.1:{port}" for port in ports]


@pytest.fixture
async def cluster(
    redis_url: str, pool: str, front_ends: list[str], tmp_path: Path
) -> AsyncIterator[Cluster]:
    (manifest,) = of_kind(rendered("keda"), "ScaledObject").values()
    rule = Rule.of(manifest)
    settings = {"max_num_seqs": SLOTS, "simulated_step_ms": STEP_MS, "drain_s": DRAIN_S}
    command = worker_command(redis_url, pool, **settings)
    with (tmp_path / "workers.log").open("w+") as log, child_processes() as start:
        async with httpx.AsyncClient(timeout=LIMIT_S) as client:
            yield Cluster(
                urls=front_ends,
                player=Player(rule=rule, cooldown_s=COOLDOWN_S, stabilization_s=STABILIZATION_S),
                deployment=Deployment(start=lambda: start(command, stdout=log, stderr=log)),
                client=client,
            )


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_three_bursts_start_and_stop_four_workers_and_cut_no_stream(
    cluster: Cluster,
) -> None:
    async def are_healthy() -> bool:
        return all(is_healthy(int(url.rpartition(":")[2])) for url in cluster.urls)

    await eventually(are_healthy, within_s=LIMIT_S)
    assert not await cluster.accepts_jobs()  # no worker has registered the base model
    async with asyncio.TaskGroup() as group:
        controller = group.create_task(cluster.control())
        for _ in range(NUM_BURSTS):
            await eventually(cluster.accepts_jobs, within_s=LIMIT_S)
            await eventually(cluster.has_no_worker, within_s=LIMIT_S)
            assert await cluster.accepts_jobs()
            await cluster.burst()
        await eventually(cluster.has_no_worker, within_s=LIMIT_S)
        controller.cancel()
    stopped = cluster.deployment.stopped
    assert {process.wait(LIMIT_S) for process in stopped} == {0}
    num_claims = [claims_of(stream) for stream in cluster.streams]
    assert await cluster.states() == {"done"}
    assert cluster.num_stops_under_load >= NUM_BURSTS
    assert max(num_claims) > 1, "no worker that was scaled in had a job to hand over"
