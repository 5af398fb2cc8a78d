"""Loading what isn't resident, and doing without what can't be loaded."""

import pytest
from scripted_engine import BASE, ScriptedEngine, expected_ids
from worker_support import Client, Start, register, residents, until

from shared.errors import ErrorCode
from shared.protocol.ids import AdapterVersion
from shared.protocol.jobs import JobState
from shared.store.adapters.registry import Registry

ONE, TWO = AdapterVersion("one@v1"), AdapterVersion("two@v1")


async def test_adapters_given_at_start_are_registered_and_resident(
    client: Client, engine: ScriptedEngine, start: Start, registry: Registry
) -> None:
    async with start(engine, adapters=("one=v1", "two=v1")):
        assert await residents(client.views) == {ONE, TWO, BASE.version}
        assert [a.name for a in await registry.adapters()] == ["one", "two"]
        result = await client.result_of(await client.send(version=TWO))
    assert result.choices[0].ids == tuple(expected_ids(1, 0, 5, TWO))


async def test_an_idle_adapter_makes_room_and_the_pool_is_told(
    client: Client, engine: ScriptedEngine, start: Start, registry: Registry
) -> None:
    engine.max_adapters = 1
    async with start(engine, adapters=("one=v1",)):
        await register(registry, TWO)
        assert (await client.end_of(await client.send(version=TWO))).state is JobState.DONE

        async def is_told() -> bool:
            return await residents(client.views) == {TWO, BASE.version}

        await until(is_told)


@pytest.mark.parametrize("source", ["broken", "v2"])
async def test_a_job_fails_if_nobody_can_load_its_adapter(
    client: Client, engine: ScriptedEngine, start: Start, registry: Registry, source: str
) -> None:
    async with start(engine):
        await register(registry, ONE, source)
        end = await client.end_of(await client.send(version=ONE))
        assert (await client.end_of(await client.send())).state is JobState.DONE
    assert end.state is JobState.FAILED
    assert end.error.code is ErrorCode.ADAPTER_UNAVAILABLE
    assert source in end.error.message


async def test_a_job_is_left_to_the_worker_that_holds_its_adapter(
    client: Client, engine: ScriptedEngine, start: Start, registry: Registry
) -> None:
    other = ScriptedEngine(step_s=0.002)
    async with start(engine, adapters=("one=v1",), max_num_seqs=1), start(other):
        await register(registry, ONE, "broken")
        jobs = [await client.send(version=ONE, max_tokens=200, seed=s) for s in range(3)]
        ends = [await client.end_of(job) for job in jobs]
    assert [end.state for end in ends] == [JobState.DONE] * 3
    assert other.added_ids == []
    assert any(end.try_ > 1 for end in ends), "the other worker should have tried"
