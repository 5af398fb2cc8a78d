"""Clients that try to get more tokens than their key allows, in many ways at once."""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import httpx
import orjson

from ops.lab.hostile.limit_pool import CHAT, LimitedClient, LimitPool, chat, connected, unfinished

LIMIT = 20_000
"""Limit of the key in tokens per minute."""
MINUTE_S = 60.0
BURST = 16
"""Number of requests that are sent together just before a minute ends."""
BURST_BEFORE_S = 1.5
BATCH_LINES = 40
CHUNKS_READ = 30
PAUSE_S = 0.5
"""Seconds between two requests of a client."""
END_TIMEOUT_S = 60.0
MARGIN_S = 1.0
"""An aligned run ends this many seconds before the end of a minute of the clock."""

Report = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class OverrunResult:
    """Numbers of generated tokens and of allowed tokens. Can be stored as JSON."""

    limit: int
    windows: int
    """Number of minutes of the clock in which the run took place, partly or wholly."""
    made: int
    answers: dict[str, dict[str, int]]
    """For each kind of client, the number of its answers with each HTTP status."""

    @property
    def ratio(self) -> float:
        """Number of tokens that the key got, divided by the number that its limit allows."""
        return self.made / (self.limit * self.windows)


class Overruns:
    """Runs all kinds of clients for some seconds, and counts the tokens that they have got."""

    def __init__(self, client: LimitedClient, seconds: float, report: Report) -> None:
        self._client = client
        self._seconds = seconds
        self._report = report
        self._answers: dict[str, Counter[str]] = {}
        self._until = 0.0

    async def run(self, *, aligned: bool) -> OverrunResult:
        """Run the clients. With `aligned`, start when a minute of the clock begins."""
        await self._client.begin(tokens_per_minute=LIMIT)
        if aligned:
            await self._wait(MINUTE_S - time.time() % MINUTE_S, "waiting for the next minute")
            self._seconds -= MARGIN_S
        started = time.time()
        self._until = started + self._seconds
        kinds = {
            "no max_tokens": self._plain,
            "huge max_tokens": self._huge,
            "streams": self._stream,
            "disconnects": self._leave,
            "retries": self._retry,
            "background": self._background,
            "end of a minute": self._burst,
            "batch": self._batch,
        }
        async with asyncio.TaskGroup() as group:
            for name, send in kinds.items():
                group.create_task(self._repeat(name, send))
            await self._wait(self._seconds, "overruns")
            windows = int(time.time() // MINUTE_S) - int(started // MINUTE_S) + 1
            await self._stop()
        used = await self._client.ledger()
        return OverrunResult(
            limit=LIMIT,
            windows=windows,
            made=used.prompt_tokens + used.completion_tokens,
            answers={kind: dict(sorted(each.items())) for kind, each in self._answers.items()},
        )

    async def _wait(self, seconds: float, what: str) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._report(what, round(seconds - left), round(seconds))
            await asyncio.sleep(min(1.0, left))

    async def _repeat(self, kind: str, send: Callable[[], Awaitable[int]]) -> None:
        counts = self._answers[kind] = Counter()
        while time.time() < self._until:
            try:
                counts[str(await send())] += 1
            except httpx.HTTPError as error:
                counts[type(error).__name__] += 1
            await asyncio.sleep(PAUSE_S)

    async def _stop(self) -> None:
        """Cancel batches and unfinished jobs, and wait until the jobs have ended."""
        page = (await self._client.http.get("/v1/batches", params={"limit": 100})).json()
        for batch in page["data"]:
            await self._client.http.post(f"/v1/batches/{batch['id']}/cancel")
        end = time.monotonic() + END_TIMEOUT_S
        while left := unfinished(await self._client.jobs()):
            if time.monotonic() > end:
                raise TimeoutError(f"{len(left)} jobs don't end")
            for job in left:
                await self._client.http.post(f"/v1/jobs/{job}/cancel")
            await asyncio.sleep(0.1)

    async def _post(self, **fields: object) -> int:
        return (await self._client.http.post(CHAT, json=chat(**fields))).status_code  # type: ignore[arg-type]

    async def _plain(self) -> int:
        return await self._post()

    async def _huge(self) -> int:
        await self._post(max_tokens=3 * LIMIT)
        return await self._post(max_tokens=LIMIT // 4)

    async def _background(self) -> int:
        return await self._post(background=True)

    async def _stream(self) -> int:
        async with self._client.http.stream("POST", CHAT, json=chat(stream=True)) as reply:
            async for _ in reply.aiter_lines():
                pass
            return reply.status_code

    async def _leave(self) -> int:
        async with self._client.http.stream("POST", CHAT, json=chat(stream=True)) as reply:
            num_lines = 0
            async for _ in reply.aiter_lines():
                num_lines += 1
                if num_lines > CHUNKS_READ:
                    break
            return reply.status_code

    async def _retry(self) -> int:
        """Send one request three times at once, with the same idempotency key."""
        headers, body = {"Idempotency-Key": secrets.token_hex(8)}, chat()
        replies = await asyncio.gather(
            *(self._client.http.post(CHAT, json=body, headers=headers) for _ in range(3))
        )
        return replies[0].status_code

    async def _burst(self) -> int:
        left = MINUTE_S - time.time() % MINUTE_S - BURST_BEFORE_S
        if left > 0:
            await asyncio.sleep(min(left, PAUSE_S))
            return 0
        replies = await asyncio.gather(*(self._post() for _ in range(BURST)))
        return min(replies)

    async def _batch(self) -> int:
        lines = [
            {"custom_id": str(number), "method": "POST", "url": CHAT, "body": chat()}
            for number in range(BATCH_LINES)
        ]
        for line in lines:
            del line["body"]["stream"]  # type: ignore[attr-defined]
        content = b"\n".join(orjson.dumps(line) for line in lines)
        form = {"files": {"file": ("in.jsonl", content)}, "data": {"purpose": "batch"}}
        file = await self._client.http.post("/v1/files", **form)  # type: ignore[arg-type]
        body = {"input_file_id": file.json().get("id", ""), "endpoint": CHAT}
        reply = await self._client.http.post(
            "/v1/batches", json={**body, "completion_window": "1h"}
        )
        await asyncio.sleep(MINUTE_S / 4)
        return reply.status_code


async def overrun(
    pool: LimitPool, seconds: float, report: Report, *, aligned: bool
) -> OverrunResult:
    """Let a tenant try to exceed its limit for some seconds, and return the tokens that it got."""
    redis, client = connected(pool, "greedy")
    try:
        return await Overruns(client, seconds, report).run(aligned=aligned)
    finally:
        await client.http.aclose()
        await redis.aclose()
