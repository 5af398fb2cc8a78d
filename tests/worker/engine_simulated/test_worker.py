"""Whole workers with the simulated engine."""

import asyncio
from pathlib import Path

from simulated_workers import BASE, NAME, check_texts, send, worker_process
from worker_support import Client, has_workers, running_with, until

from shared.protocol.events import End, Tokens
from shared.protocol.ids import AdapterVersion, WorkerId
from shared.protocol.jobs import Job, JobState, SamplingParams
from shared.protocol.logprobs import PositionLogprobs, TokenLogprob
from shared.protocol.results import FinishReason
from shared.protocol.workers import WorkerInfo
from shared.settings import WorkerSettings, load_settings
from shared.store.connection import Redis
from worker.engine_simulated.adapters import source_digest, version_of
from worker.engine_simulated.load_model import load_simulated
from worker.service import Worker

UNNEEDED = (
    *("torch", "transformers", "peft", "safetensors", "tokenizers", "numpy"),
    *("llguidance", "jinja2", "huggingface_hub"),
)
START_DEADLINE_S = 60.0
NUM_WORKERS = 20


def version(name: str, source: str) -> AdapterVersion:
    return version_of(name, source_digest(source))


def settings_of(redis_url: str, pool: str, **settings: object) -> WorkerSettings:
    given = {"engine": "simulated", "model": "simulated", "redis_url": redis_url, "pool": pool}
    return load_settings(WorkerSettings, **given, **settings)


async def test_a_worker_needs_no_package_of_the_extra_worker(
    client: Client, redis_url: str, pool: str, tmp_path: Path
) -> None:
    for name in UNNEEDED:
        (tmp_path / f"{name}.py").write_text("raise ImportError('not installed')")
    env = {"PYTHONPATH": str(tmp_path)}
    with worker_process(redis_url, pool, env=env, adapters=["a", "b=x"], simulated_step_ms=1):
        await until(lambda: has_workers(client.views, 1), START_DEADLINE_S)
        jobs = [await send(client, max_tokens=30)]
        for adapter in (version("a", "a"), version("b", "x")):
            jobs.append(await client.send(version=adapter, max_tokens=30, ignore_eos=True))
        ends = [await client.end_of(job) for job in jobs]
        assert [end.state for end in ends] == [JobState.DONE] * 3
    check_texts(client, jobs)


async def test_many_workers_run_in_one_event_loop(
    client: Client, redis: Redis, redis_url: str, pool: str
) -> None:
    settings = settings_of(redis_url, pool, simulated_step_ms=5, max_num_seqs=2)
    workers = [Worker(settings, redis, load_simulated(settings)) for _ in range(NUM_WORKERS)]
    async with asyncio.TaskGroup() as group:
        for worker in workers:
            group.create_task(worker.run())
        await until(lambda: has_workers(client.views, NUM_WORKERS))
        jobs = [await send(client, max_tokens=100, seed=seed) for seed in range(2 * NUM_WORKERS)]
        for job in jobs:
            await client.end_of(job)
        for worker in workers:
            worker.stop()
    assert sum(worker.parts.engine.stats.num_tokens > 0 for worker in workers) > NUM_WORKERS / 2
    check_texts(client, jobs)


async def test_a_scored_prompt_is_kept_when_its_job_moves_to_another_worker(
    client: Client, redis: Redis, redis_url: str, pool: str
) -> None:
    settings = settings_of(redis_url, pool, simulated_step_ms=0)
    sampling = SamplingParams(seed=1, n=2, max_tokens=0, logprobs=0)
    async with running_with(redis, settings, load_simulated(settings)):
        await client.end_of(await send(client, max_tokens=1))  # the pool knows the model
    job = await client.send("hi", version=BASE, sampling=sampling, echo=True)
    await publish_as_earlier_worker(client, job, scored_choice(job))
    async with running_with(redis, settings, load_simulated(settings)):
        result = await client.result_of(job)
    assert [(each.text, each.ids, each.finish) for each in result.choices] == [
        ("hi", (), FinishReason.LENGTH)
    ] * 2
    logprobs = [[p.chosen.logprob for p in each.prompt_logprobs] for each in result.choices]
    assert logprobs == [[None, -7.0], [None, 0.0]]
    assert result.usage.completion_tokens == 0
    ends = [event for event in client.events[job.id] if isinstance(event, End)]
    assert [end.state for end in ends] == [JobState.DONE]


def scored_choice(job: Job) -> Tokens:
    """Return the event of the first choice of a job whose prompt is `hi`, with a logprob of -7."""
    h, i = (
        PositionLogprobs(
            chosen=TokenLogprob(token=text, logprob=logprob, bytes=()), top=(), offset=0
        )
        for text, logprob in (("h", None), ("i", -7.0))
    )
    return Tokens(
        job=job.id,
        try_=1,
        choice=0,
        index=0,
        ids=(),
        text="hi",
        finish=FinishReason.LENGTH,
        prompt_logprobs=(h, i),
    )


async def publish_as_earlier_worker(client: Client, job: Job, event: Tokens) -> None:
    """Claim the job as another worker, publish `event` and leave the pool."""
    wid, queue = WorkerId("earlier"), client.queue
    info = WorkerInfo(model=NAME, device="cpu", dtype="float32", version="0", max_num_seqs=8)
    await queue.register(wid, lease_ms=60_000, info=info, residents=[BASE])
    claim = await queue.claim(
        wid, sequences=8, tokens=1000, steal_ms=1000, max_cold=0, residents=[BASE]
    )
    assert [claimed.job.id for claimed in claim.jobs] == [job.id]
    await queue.publish(wid, {client.api: [event]}, [])
    await queue.leave(wid)
