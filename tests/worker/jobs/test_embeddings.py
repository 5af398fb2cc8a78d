"""Workers compute jobs for embeddings beside others."""

from base64 import b64encode
from typing import Any

from api_support import worker_info
from scripted_engine import BASE, ScriptedEngine, scripted_embedding
from worker_support import Client, Start, until

from shared.errors import ErrorCode
from shared.protocol.embeddings import EmbeddingParams
from shared.protocol.events import Tokens
from shared.protocol.ids import WorkerId
from shared.protocol.jobs import MAX_EMBEDDED, Endpoint, Job, JobState, SamplingParams
from shared.protocol.results import Result

NUM_INPUTS = 3 * MAX_EMBEDDED
PROMPTS = tuple((9,) * (1 + i) for i in range(NUM_INPUTS))


async def send(client: Client, prompts: Any = PROMPTS) -> Job:
    return await client.send(
        endpoint=Endpoint.EMBEDDINGS,
        prompts=prompts,
        embedding=EmbeddingParams(),
        sampling=SamplingParams(seed=0),
    )


def check(result: Result) -> None:
    assert result.state is JobState.DONE
    expected = [b64encode(scripted_embedding(prompt)).decode() for prompt in PROMPTS]
    assert [choice.text for choice in result.choices] == expected
    assert result.usage.prompt_tokens == sum(map(len, PROMPTS))
    assert result.usage.completion_tokens == 0


async def test_a_job_embeds_all_inputs_and_publishes_no_tokens(
    client: Client, engine: ScriptedEngine, start: Start
) -> None:
    async with start(engine):
        job = await send(client)
        check(await client.result_of(job))
    assert not [event for event in client.events[job.id] if isinstance(event, Tokens)]


async def test_a_job_with_many_inputs_leaves_room_for_a_generation(
    client: Client, engine: ScriptedEngine, start: Start
) -> None:
    engine.may_step.clear()
    async with start(engine, max_num_seqs=MAX_EMBEDDED + 1) as worker:
        job = await send(client)
        await until(lambda: engine.requests)
        other = await client.send(seed=3)
        await until(lambda: len(worker.parts.jobs) == 2)
        engine.may_step.set()
        check(await client.result_of(job))
        assert (await client.end_of(other)).state is JobState.DONE


async def test_a_job_that_another_worker_has_returned_is_computed_anew(
    client: Client, engine: ScriptedEngine, start: Start
) -> None:
    other, residents = WorkerId("test:1:other"), (BASE.version,)
    await client.queue.register(other, lease_ms=60_000, info=worker_info(), residents=residents)
    job = await send(client)
    claim = await client.queue.claim(
        other, sequences=64, tokens=100_000, steal_ms=250, max_cold=1, residents=residents
    )
    assert [claimed.job for claimed in claim.jobs] == [job]
    await client.queue.release(other, [job.id])
    await client.queue.leave(other)
    async with start(engine):
        check(await client.result_of(job))


async def test_an_input_longer_than_the_context_fails_the_job(
    client: Client, engine: ScriptedEngine, start: Start
) -> None:
    async with start(engine):
        end = await client.end_of(await send(client, ((9,) * 1000, (9,) * 1001)))
    assert (end.error.code, end.error.param) == (ErrorCode.CONTEXT_LENGTH_EXCEEDED, "input")
