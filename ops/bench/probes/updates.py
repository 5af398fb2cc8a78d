"""Probe: updates of an adapter by request body while streams of that adapter run."""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import orjson
import psutil
import torch
from safetensors.torch import load_file, save

from ops.bench.load.answers import client
from ops.bench.load.percentiles import Percentiles, percentile, percentiles
from ops.bench.probes.finding import Chart, Finding
from ops.bench.server_processes import Serving
from ops.sse_lines import sse_lines

NAME = "policy"
TOKENS_PER_STREAM = 256
WARM_UP = 10
"""Number of updates after which memory is compared with the memory at the end."""
MIB = 1 << 20
NUM_PROMPTS = 64


class WrongVersion(Exception):
    """An answer named another version than the one that it was accepted for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Updates:
    """Results of the updates probe."""

    adapter_bytes: int
    streams: int
    sent_to_answer_s: Sequence[float]
    """Times from sending a body to the first answer of the new version, in seconds."""
    sent_to_registered_s: Sequence[float]
    """Times from sending a body to the response, in seconds."""
    usual_itl_s: Percentiles
    """Gaps between pieces of streams without updates."""
    itl_s: Percentiles
    """Gaps between pieces of streams during the updates."""
    versions: int
    """Number of versions that the streams' answers named."""
    rss_bytes: Sequence[Mapping[str, int]]
    """Resident set sizes after each update, by process."""


def adapter_bodies(folder: Path, number: int) -> tuple[str, list[bytes]]:
    """Return the configuration of the adapter in `folder`, and `number` variants of its weights."""
    tensors = load_file(folder / "adapter_model.safetensors")
    generator = torch.Generator().manual_seed(0)
    bodies = []
    for _ in range(number):
        noisy = {
            name: tensor + 1e-3 * torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
            for name, tensor in tensors.items()
        }
        bodies.append(save(noisy))
    return (folder / "adapter_config.json").read_text(), bodies


async def measure_updates(
    serving: Serving, config: str, bodies: Sequence[bytes], streams: int, usual_s: float
) -> Updates:
    """Send the bodies one after another while `streams` streams run.

    The first body is sent before the streams start. For `usual_s` seconds they run without updates.

    Raises:
        WrongVersion: an answer names a version that wasn't current when it was requested.
    """
    async with client(serving.url) as http:
        first = await _send(http, serving.url, config, bodies[0])
        load = _Streams(http, serving.url, {first})
        tasks = [asyncio.create_task(load.run(number)) for number in range(streams)]
        try:
            await asyncio.sleep(usual_s)
            usual = load.take_gaps()
            answered, registered, rss = [], [], []
            for body in bodies[1:]:
                sent_s = time.perf_counter()
                version = await _send(http, serving.url, config, body)
                registered.append(time.perf_counter() - sent_s)
                load.current.add(version)
                if await _first_answer(http, serving.url) != version:
                    raise WrongVersion(version)
                answered.append(time.perf_counter() - sent_s)
                rss.append(
                    {n: psutil.Process(p).memory_info().rss for n, p in serving.pids.items()}
                )
            during = load.take_gaps()
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return Updates(
        adapter_bytes=len(bodies[0]),
        streams=streams,
        sent_to_answer_s=answered,
        sent_to_registered_s=registered,
        usual_itl_s=percentiles(usual),
        itl_s=percentiles(during),
        versions=len(load.seen),
        rss_bytes=rss,
    )


def updates_finding(updates: Updates) -> Finding:
    """Return a finding that summarises the updates."""
    answered = percentiles(updates.sent_to_answer_s)
    usual, during = updates.usual_itl_s.p99, updates.itl_s.p99
    warm_up = min(WARM_UP, len(updates.rss_bytes))
    before, after = (sum(updates.rss_bytes[index].values()) for index in (warm_up - 1, -1))
    says = (
        f"{len(updates.sent_to_answer_s)} updates of {updates.adapter_bytes / 1e6:.1f} MB while "
        f"{updates.streams} streams run: body to first answer p50 {1000 * answered.p50:.0f} ms, "
        f"p99 {1000 * answered.p99:.0f} ms; registered after p50 "
        f"{1000 * percentile(updates.sent_to_registered_s, 50):.0f} ms",
        f"ITL p99 of the streams {1000 * during:.0f} ms, {during / usual:.2f} x the "
        f"{1000 * usual:.0f} ms without updates; {updates.versions} versions named by answers",
        f"memory of all processes {before / MIB:.0f} MiB after {warm_up} updates, "
        f"{after / MIB:.0f} MiB at the end",
    )
    series = {
        name: [(n, rss[name] / MIB) for n, rss in enumerate(updates.rss_bytes)]
        for name in updates.rss_bytes[0]
    }
    times = [(n, 1000 * each) for n, each in enumerate(updates.sent_to_answer_s)]
    return Finding(
        name="updates",
        figures=updates,
        says=says,
        chart=Chart(x="update", y="ms to first answer", series={"updates": times}, joined=False),
        further_charts=(Chart(x="update", y="MiB", series=series),),
    )


class _Streams:
    """Streams that follow one another, and the gaps between their pieces."""

    def __init__(self, http: httpx.AsyncClient, url: str, current: set[str]) -> None:
        self._http = http
        self._url = url
        self.current = current
        """Versions that were registered so far."""
        self.seen: set[str] = set()
        self._gaps: list[float] = []

    def take_gaps(self) -> list[float]:
        """Return the gaps since the last call, in seconds."""
        taken, self._gaps = self._gaps, []
        return taken

    async def run(self, number: int) -> None:
        """Read one stream after another until cancelled."""
        prompts = random.Random(number)
        while True:
            await self._read(f"Stream {number}, prompt {prompts.randrange(NUM_PROMPTS)}:")

    async def _read(self, prompt: str) -> None:
        body = {"model": NAME, "prompt": prompt, "max_tokens": TOKENS_PER_STREAM, "stream": True}
        body |= {"ignore_eos": True}
        arrived_s, named = [], set()
        async with self._http.stream("POST", f"{self._url}/completions", json=body) as reply:
            reply.raise_for_status()
            async for line in sse_lines(reply):
                if not line.startswith("data: {"):
                    continue
                chunk = orjson.loads(line.removeprefix("data: "))
                named.add(chunk["weight_version"])
                self.seen |= named
                arrived_s.append(time.perf_counter())
                if len(arrived_s) > 1:
                    self._gaps.append(arrived_s[-1] - arrived_s[-2])
        if len(named) != 1 or not named <= self.current:
            raise WrongVersion(f"one stream named {sorted(named)}")


async def _send(http: httpx.AsyncClient, url: str, config: str, body: bytes) -> str:
    query = {"name": NAME, "config": config}
    reply = await http.post(f"{url}/adapters", params=query, content=body)
    reply.raise_for_status()
    return str(reply.json()["version"])


async def _first_answer(http: httpx.AsyncClient, url: str) -> str:
    """Return the version that answers a new request with one token."""
    body = {"model": NAME, "prompt": "Now", "max_tokens": 1}
    reply = await http.post(f"{url}/completions", json=body)
    reply.raise_for_status()
    return str(reply.json()["weight_version"])
