import asyncio
from collections.abc import Awaitable, Callable

from worker_support import until

from shared.protocol.ids import AdapterVersion
from worker.adapters.memory_queue import MemoryQueue
from worker.adapters.residency import Change, Residency
from worker.text.prompt_style import BASE_STYLE

BASE, A, B, C, D = (AdapterVersion(f"{name}@1") for name in ("base", *"abcd"))
LONG_S, NOT_S = 60.0, 0.0


class Memory:
    """Device memory for a few adapters, all of which are in use."""

    def __init__(self, *in_use: AdapterVersion) -> None:
        self.jobs = dict.fromkeys(in_use, 1)
        self.num_free = 0
        self.num_waits = 0
        self.given: list[AdapterVersion] = []
        self.residency = Residency(BASE, BASE_STYLE)
        self.residency.subscribe(Change.LOADS, self._count_wait)
        self.queue = MemoryQueue(self.residency, num_jobs=lambda: self.jobs)

    def end(self, version: AdapterVersion) -> None:
        """End the last job of a version."""
        del self.jobs[version]
        self.num_free += 1
        self.residency.job_finished(self.jobs)

    async def place(self, version: AdapterVersion, patience_s: float = LONG_S) -> bool:
        """Return whether `version` got memory."""
        return await self.queue.place(version, self._placer(version), patience_s) is not None

    def _placer(self, version: AdapterVersion) -> Callable[[], Awaitable[bool | None]]:
        async def place() -> bool | None:
            await asyncio.sleep(0)
            if not self.num_free:
                return None
            self.num_free -= 1
            self.given.append(version)
            return True

        return place

    def _count_wait(self) -> None:
        self.num_waits += 1


async def test_a_version_that_asks_when_memory_is_freed_comes_after_one_that_waits() -> None:
    memory = Memory(A, B)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(memory.place(C))
        await until(lambda: memory.num_waits == 1)
        newcomer = tasks.create_task(memory.place(D))
        await asyncio.sleep(0)  # the newcomer would be asking by now
        memory.end(A)
        await until(waiting.done)
        assert not newcomer.done()
        memory.end(B)
    assert memory.given == [C, D]


async def test_memory_that_is_freed_while_a_version_asks_is_not_missed() -> None:
    memory = Memory(A)

    async def place() -> bool | None:
        if not memory.jobs:
            return True
        memory.end(A)  # after it was seen in use
        return None

    async with asyncio.timeout(60):
        assert await memory.queue.place(C, place, LONG_S)


async def test_a_version_without_patience_lets_the_next_one_ask() -> None:
    memory = Memory(A)
    assert not await memory.place(C, NOT_S)
    assert not memory.residency.has_memory_queue
    waiting = asyncio.create_task(memory.place(D))
    await until(lambda: memory.num_waits == 2)
    memory.num_free = 1
    memory.residency.memory_freed()
    assert await waiting


async def test_an_adapter_that_became_resident_meanwhile_frees_memory_too() -> None:
    memory = Memory(A)
    waiting = asyncio.create_task(memory.place(C))
    await until(lambda: memory.num_waits == 1)
    memory.jobs[B] = 1  # it had its memory before, and has a job now
    make_resident(memory.residency, B)
    await until(lambda: memory.num_waits == 3)  # the load itself is one change
    memory.end(B)
    async with asyncio.timeout(60):
        assert await waiting


async def test_an_adapter_whose_job_was_cancelled_meanwhile_frees_memory_at_once() -> None:
    memory = Memory(A)
    waiting = asyncio.create_task(memory.place(C))
    await until(lambda: memory.num_waits == 1)
    memory.num_free = 1
    make_resident(memory.residency, B)
    async with asyncio.timeout(60):
        assert await waiting


def make_resident(residency: Residency, version: AdapterVersion) -> None:
    residency.placing(version)
    residency.became_resident(version)
