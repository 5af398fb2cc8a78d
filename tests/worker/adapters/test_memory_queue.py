import asyncio
from collections.abc import Awaitable, Callable

from worker_support import until

from shared.protocol.ids import AdapterVersion
from worker.adapters.memory_queue import Line
from worker.adapters.yield_policy import Room

A, B, C, D = (AdapterVersion(f"{name}@1") for name in "abcd")
LONG_S, NOT_S = 60.0, 0.0


class Memory:
    """Memory for a few adapters, those in use."""

    def __init__(self, *in_use: AdapterVersion) -> None:
        self.jobs = dict.fromkeys(in_use, 1)
        self.num_free = 0
        self.num_waits = 0
        self.given: list[AdapterVersion] = []
        self.line = Line(Room(), num_jobs=lambda: self.jobs, on_wait=self._count_wait)

    def end(self, version: AdapterVersion) -> None:
        """The last job of one of them ends."""
        del self.jobs[version]
        self.num_free += 1
        self.line.job_gone()

    async def place(self, version: AdapterVersion, patience_s: float = LONG_S) -> bool:
        """Whether `version` got memory."""
        return await self.line.place(version, self._placer(version), patience_s) is not None

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


async def test_who_finds_memory_does_not_wait() -> None:
    memory = Memory(A)
    memory.num_free = 1
    assert await memory.place(B, NOT_S)
    assert not memory.num_waits
    assert not memory.line.versions


async def test_who_asks_just_when_memory_is_freed_comes_behind_who_waits() -> None:
    memory = Memory(A, B)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(memory.place(C))
        await until(lambda: memory.num_waits == 1)
        newcomer = tasks.create_task(memory.place(D))
        await asyncio.sleep(0)  # it would be asking by now
        memory.end(A)
        await until(waiting.done)
        assert not newcomer.done()
        memory.end(B)
    assert memory.given == [C, D]


async def test_what_is_freed_while_it_is_asked_for_is_not_missed() -> None:
    memory = Memory(A)

    async def place() -> bool | None:
        if not memory.jobs:
            return True
        memory.end(A)  # after it was seen in use
        return None

    async with asyncio.timeout(5):
        assert await memory.line.place(C, place, LONG_S)


async def test_without_patience_the_next_one_has_its_turn() -> None:
    memory = Memory(A)
    assert not await memory.place(C, NOT_S)
    assert not memory.line.versions
    waiting = asyncio.create_task(memory.place(D))
    await until(lambda: memory.num_waits == 2)
    memory.num_free = 1
    memory.line.memory_freed()
    assert await waiting


async def test_an_adapter_that_was_on_its_way_makes_room_too() -> None:
    memory = Memory(A)
    waiting = asyncio.create_task(memory.place(C))
    await until(lambda: memory.num_waits == 1)
    memory.jobs[B] = 1  # it had its memory before, and now a job
    memory.line.loaded()
    await until(lambda: memory.num_waits == 2)
    memory.end(B)
    async with asyncio.timeout(5):
        assert await waiting


async def test_an_adapter_whose_job_was_cancelled_meanwhile_makes_room_at_once() -> None:
    memory = Memory(A)
    waiting = asyncio.create_task(memory.place(C))
    await until(lambda: memory.num_waits == 1)
    memory.num_free = 1
    memory.line.loaded()
    async with asyncio.timeout(5):
        assert await waiting
