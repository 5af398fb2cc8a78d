"""Workers that answer inspections as a test scripts them, and run no jobs."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from api_support import ADAPTER, ScriptedWorker, worker_info

from shared.cancel_tasks import cancel_tasks
from shared.protocol.adapters import Adapter
from shared.protocol.capabilities import EVERYTHING, Capabilities
from shared.protocol.ids import AdapterVersion
from shared.store.adapters.inspections import Findings, Inspection, Inspections
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys


def adapter(name: str, digest: str = "3") -> Adapter:
    """Return a registry entry whose digest repeats one character."""
    version = AdapterVersion(f"{name}@{digest * 12}")
    return replace(ADAPTER, name=name, version=version, digest=digest * 64, source="/adapters/x")


def finds(asked: Inspection) -> Findings:
    """Return findings for an adapter whose digest is the last character of its folder."""
    return Findings(
        adapter=adapter(asked.name, asked.source[-1]),
        source=asked.source,
        num_tensors=3,
        matched=("a", "b", "c"),
        ranks=((8, 3),),
        trained_on="org/base",
    )


@dataclass
class Reader:
    """One worker that answers inspections."""

    worker: ScriptedWorker
    inspections: Inspections
    find: Callable[[Inspection], Findings] = finds
    dies: bool = False
    """Whether the worker dies after it has taken an inspection."""
    ignores_inspections: bool = False
    asked: list[Inspection] = field(default_factory=list)

    async def run(self) -> None:
        while True:
            mail = await self.worker.queue.wait(self.worker.id, timeout_s=0.5)
            if mail and mail.inspection and not self.ignores_inspections:
                await self.answer(mail.inspection)

    async def answer(self, inspection_id: Any) -> None:
        if (asked := await self.inspections.take(inspection_id)) is None:
            return
        self.asked.append(asked)
        if self.dies:
            queue, wid = self.worker.queue, self.worker.id
            await queue.beat(wid, lease_ms=0, info=worker_info())
            await queue.reap()
        else:
            await self.inspections.answer(inspection_id, self.find(asked))


@asynccontextmanager
async def reading(redis: Redis, keys: Keys) -> AsyncIterator[Callable[..., Any]]:
    """Yield a function that starts a worker: `await start(dies=True)`."""
    tasks, queue = [], Queue(redis, keys)

    async def start(serves: Capabilities = EVERYTHING, **fields: Any) -> Reader:
        worker = await ScriptedWorker.start(queue, serves)
        reader = Reader(worker, Inspections(redis, keys), **fields)
        tasks.append(asyncio.create_task(reader.run()))
        return reader

    yield start
    await cancel_tasks(*tasks)
