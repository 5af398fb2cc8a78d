"""A tenant that uses the pool while another one attacks it, and measures how long it waits.

It is a process of its own, `python -m ops.lab.hostile.neighbour URL`, so that the attacker's work
doesn't delay it. Several times per second it writes a report to stdout, which has its waits since
the previous report.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field

import httpx
import orjson

from ops.lab.hostile.adapter_pool import BASE, AdapterPool
from shared.cancel_tasks import cancel_tasks

KEY_VARIABLE = "NEIGHBOURS_KEY"
"""Environment variable with the API key."""
POLL_S = 0.1
"""Seconds between two requests for /health."""
REPORT_S = 0.25
"""Seconds between two reports."""
NUM_TOKENS = 16
TIMEOUT_S = 60.0
MAX_FAILURES = 5


@dataclass(slots=True)
class Waits:
    """Longest times in seconds that a tenant waited, and its failed requests."""

    health_s: float = 0.0
    stream_s: float = 0.0
    """Longest time in seconds to the first token of a stream, or between two of its tokens."""
    num_health: int = 0
    num_streams: int = 0
    failures: list[str] = field(default_factory=list)
    """Reasons of the first failures."""

    def add(self, later: "Waits") -> None:
        """Add the waits of a later report to this object."""
        self.health_s = max(self.health_s, later.health_s)
        self.stream_s = max(self.stream_s, later.stream_s)
        self.num_health += later.num_health
        self.num_streams += later.num_streams
        self.failures = [*self.failures, *later.failures][:MAX_FAILURES]


class Neighbour:
    """Runs the process, and adds up its reports in `waits`.

    Callers may replace `waits` to begin the measurement of another phase.
    """

    def __init__(self, pool: AdapterPool) -> None:
        self._pool = pool
        self.waits = Waits()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the process during the block."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ops.lab.hostile.neighbour", self._pool.url),
            env={**os.environ, KEY_VARIABLE: self._pool.neighbours_key},
            stdout=asyncio.subprocess.PIPE,
        )
        reading = asyncio.create_task(self._read(process))
        try:
            yield
        finally:
            await cancel_tasks(reading)
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            self.waits.add(Waits(**orjson.loads(line)))
        self.waits.failures.append("the process ended")


class _Requests:
    """Sends requests, and reports how long they took."""

    def __init__(self, url: str, key: str, client: httpx.AsyncClient) -> None:
        self._url = url
        self._client = client
        self._headers = {"Authorization": f"Bearer {key}"}
        self._health_since_s = self._stream_since_s = time.monotonic()
        self._waits = Waits()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for each in (self._ask_health, self._stream, self._report):
                group.create_task(each())

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            self._measure()
            print(orjson.dumps(asdict(self._waits)).decode(), flush=True)
            self._waits = Waits()

    def _measure(self) -> None:
        """Update the longest waits with those that are in progress."""
        waits, now_s = self._waits, time.monotonic()
        waits.health_s = max(waits.health_s, now_s - self._health_since_s)
        waits.stream_s = max(waits.stream_s, now_s - self._stream_since_s)

    async def _ask_health(self) -> None:
        while True:
            self._health_since_s = time.monotonic()
            try:
                reply = await self._client.get(f"{self._url}/health")
                if reply.status_code != 200:
                    self._waits.failures.append(f"/health: {reply.status_code}")
            except httpx.HTTPError as error:
                self._waits.failures.append(f"/health: {error!r}")
            self._measure()
            self._waits.num_health += 1
            await asyncio.sleep(POLL_S)

    async def _stream(self) -> None:
        body = {"model": BASE, "prompt": "Once upon a time", "max_tokens": NUM_TOKENS}
        body |= {"stream": True, "ignore_eos": True, "seed": 1}
        while True:
            try:
                await self._one_stream(body)
            except httpx.HTTPError as error:
                self._waits.failures.append(f"stream: {error!r}")
            self._waits.num_streams += 1

    async def _one_stream(self, body: dict[str, object]) -> None:
        self._stream_since_s, is_whole = time.monotonic(), False
        url = f"{self._url}/v1/completions"
        async with self._client.stream("POST", url, json=body, headers=self._headers) as reply:
            async for line in reply.aiter_lines():
                if line.startswith("data:"):
                    self._measure()
                    self._stream_since_s, is_whole = time.monotonic(), line == "data: [DONE]"
        if not is_whole or reply.status_code != 200:
            self._waits.failures.append(f"stream: {reply.status_code}, whole: {is_whole}")


async def main(url: str) -> None:
    """Send requests to the server at `url` until the process is ended."""
    async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
        await _Requests(url, os.environ[KEY_VARIABLE], client).run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
