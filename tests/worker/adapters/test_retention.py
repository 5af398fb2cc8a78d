"""Adapters that are loaded, replaced and unloaded while a worker runs their jobs."""

import asyncio
import time
import uuid
from dataclasses import replace

import pytest
from scripted_engine import BASE, ScriptedEngine
from worker_support import Client, check_answers, entry_of, until

from shared.errors import ErrorCode, JobFailed
from shared.protocol.ids import AdapterVersion, InspectionId, WorkerId
from shared.protocol.jobs import JobState
from shared.store.adapters.inspections import Findings, Inspection, Inspections
from shared.store.views.pool_views import PoolViews
from worker.adapters import retention

V1, V2 = AdapterVersion("one@v1"), AdapterVersion("one@v2")


async def load(client: Client, version: AdapterVersion) -> None:
    entry = replace(entry_of(version), created_s=int(time.time()))
    await client.registry.load_adapter(entry, replace=True)


async def is_forgotten(client: Client, version: AdapterVersion) -> bool:
    """By the registry, and by the pool's workers."""
    is_known = await client.registry.adapter_by_version(version) is not None
    return not is_known and version not in await client.residents()


async def test_jobs_run_the_version_that_they_were_admitted_with(client: Client) -> None:
    async with client.worker(max_num_seqs=1):
        await load(client, V1)
        running = await client.send(version=V1, max_tokens=100)
        await client.until_published(running, 2)
        waiting = [await client.send(version=V1, seed=seed) for seed in range(3)]
        await load(client, V2)
        new = await client.send(version=await client.registry.resolve("one"))
        jobs = [running, *waiting, new]
        for job in jobs:
            assert (await client.end_of(job)).state is JobState.DONE
    assert new.version == V2
    check_answers(client, jobs)


async def test_unload_lets_running_and_waiting_jobs_of_any_n_end_and_then_frees_the_memory(
    client: Client,
) -> None:
    """SGLang's #36894: after n over one, the count of users never came back to zero."""
    async with client.worker(max_num_seqs=4):
        await load(client, V1)
        running = await client.send(version=V1, max_tokens=200)
        cancelled = await client.send(version=V1, n=3, max_tokens=500)
        for job in (running, cancelled):
            await client.until_published(job, 3)
        waiting = [await client.send(version=V1, n=n, seed=n) for n in (1, 2, 4)]
        assert await client.registry.unload_adapter("one")
        with pytest.raises(JobFailed, match="was unloaded"):
            await client.send(version=V1)
        await client.queue.cancel(cancelled.id)
        ends = [await client.end_of(job) for job in (running, *waiting, cancelled)]
        assert [end.state for end in ends] == [JobState.DONE] * 4 + [JobState.CANCELLED]
        await until(lambda: is_forgotten(client, V1))
        assert client.engine.adapters == []
        await load(client, V1)
        again = await client.send(version=V1, n=2)
        for job in (again, await client.send()):
            assert (await client.end_of(job)).state is JobState.DONE
    check_answers(client, [running, *waiting, again])


async def test_every_worker_that_holds_an_unloaded_adapter_lets_go_of_it(client: Client) -> None:
    engines = [ScriptedEngine(step_s=0.002) for _ in range(2)]
    async with (
        client.worker(engines[0], adapters=("one=v1",)),
        client.worker(engines[1], adapters=("one=v1",)),
    ):
        assert [engine.adapters for engine in engines] == [[V1], [V1]]
        await client.registry.unload_adapter("one")
        await until(lambda: is_forgotten(client, V1))
        assert [engine.adapters for engine in engines] == [[], []]


async def test_versions_that_nobody_refers_to_go_without_mail_as_well(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "SWEEP_S", 0.05)
    monkeypatch.setattr(retention, "TIDY_S", 0.1)
    async with client.worker(adapters=("one=v1",)):
        await client.redis.delete(client.keys.version(V1))
        await until(lambda: client.engine.adapters == [])
        assert await client.residents() == {BASE.version}


async def test_a_version_that_is_registered_again_before_its_eviction_keeps_its_jobs(
    client: Client,
) -> None:
    before = AdapterVersion("before@v1")  # evicted first, in the order of names
    async with client.worker() as worker:
        loader, residency = worker.parts.adapters.loader, worker.parts.adapters.residency
        for version in (before, V1):
            await load(client, version)
            await client.end_of(await client.send(version=version))
        async with loader._lock(before):
            for name in ("before", "one"):
                await client.registry.unload_adapter(name)
            await until(lambda: is_waited_for(loader._lock(before)))
            await load(client, V1)
            job = await client.send(version=V1, max_tokens=200)
            await client.until_published(job, 2)
        await until(lambda: not residency.is_resident(before))
        assert (await client.end_of(job)).state is JobState.DONE
        check_answers(client, [job])


def is_waited_for(lock: asyncio.Lock) -> bool:
    return bool(lock._waiters)


async def test_a_worker_restarted_with_older_weights_serves_what_clients_loaded_since(
    client: Client,
) -> None:
    async with client.worker(ScriptedEngine(), adapters=("one=v1",)):
        await load(client, V2)
    async with client.worker(ScriptedEngine(), adapters=("one=v1",)):
        assert await client.registry.resolve("one") == V2
        job = await client.send(version=V2)
        assert (await client.end_of(job)).state is JobState.DONE
        assert await client.registry.roll_back_adapter("one") == V1
    async with client.worker(ScriptedEngine(), adapters=("one=v3",)):
        assert await client.registry.resolve("one") == "one@v3"


async def test_an_unloaded_adapter_stays_away_when_workers_register_again(client: Client) -> None:
    async with client.worker(adapters=("one=v1", "two=v1")) as worker:
        await client.registry.unload_adapter("one")
        before = await only_worker(client.views)
        worker.parts.lease.lose(before)
        await until(lambda: is_another(client.views, before))
        assert [a.name for a in await client.registry.adapters()] == ["two"]
    async with client.worker(ScriptedEngine(), adapters=("one=v1",)):
        assert [a.name for a in await client.registry.adapters()] == ["two"]


async def only_worker(views: PoolViews) -> WorkerId:
    (worker,) = await views.workers()
    return worker.id


async def is_another(views: PoolViews, before: WorkerId) -> bool:
    return any(worker.id != before for worker in await views.workers())


async def ask(inspections: Inspections, views: PoolViews, source: str) -> tuple[Findings, WorkerId]:
    """What the pool's worker finds."""
    wid, inspection_id = await only_worker(views), InspectionId(uuid.uuid4().hex)
    assert await inspections.ask(wid, inspection_id, Inspection(name="one", source=source))
    assert await inspections.next_reply(inspection_id, timeout_s=60) is True
    findings = await inspections.next_reply(inspection_id, timeout_s=60)
    assert isinstance(findings, Findings)
    return findings, wid


async def test_a_worker_inspects_adapters_while_it_serves(client: Client) -> None:
    inspections = Inspections(client.redis, client.keys)
    async with client.worker():
        job = await client.send(max_tokens=100)
        good, _ = await ask(inspections, client.views, "v1")
        bad, _ = await ask(inspections, client.views, "broken")
        await client.end_of(job)
    assert (good.adapter.version, good.error) == (V1, None)
    assert bad.adapter is None
    assert bad.error.code is ErrorCode.ADAPTER_REJECTED
    check_answers(client, [job])


async def test_an_inspection_is_taken_once_and_not_after_it_was_withdrawn(client: Client) -> None:
    inspections = Inspections(client.redis, client.keys)
    first, second = InspectionId("1"), InspectionId("2")
    asked = Inspection(name="one", source="v1")
    async with client.worker():
        wid = await only_worker(client.views)
        assert await inspections.ask(wid, first, asked)
        assert await inspections.next_reply(first, timeout_s=60) is True
        assert await inspections.take(first) is None
    assert not await inspections.ask(wid, second, asked)  # it has left
    await client.redis.set(
        client.keys.inspection(second), b'{"v": 1, "name": "one", "source": "v1"}'
    )
    await inspections.withdraw(second)
    assert await inspections.take(second) is None
    await client.redis.set(
        client.keys.inspection(second), b'{"v": 99, "name": "one"}'
    )  # a later protocol's
    assert await inspections.take(second) is None
