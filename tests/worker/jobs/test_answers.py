"""Answers and embeddings that clients receive from an undisturbed worker."""

from base64 import b64encode
from typing import Any

from queue_support import Actor
from running_jobs import add_job
from scripted_engine import (
    BASE,
    EOS_ID,
    FAILING_TOKEN,
    HF,
    expected_ids,
    expected_text,
    scripted_embedding,
)
from worker_support import Client, until

from shared.errors import ErrorCode
from shared.protocol.codec import encode_job
from shared.protocol.embeddings import EmbeddingParams
from shared.protocol.events import Admitted, Tokens
from shared.protocol.jobs import MAX_EMBEDDED, Endpoint, Job, JobState, SamplingParams
from shared.protocol.results import FinishReason, Result
from shared.store.jobs.token_streams import merge, read_checkpoints
from worker.jobs.deadlines import Deadlines
from worker.jobs.running import RunningJobs


def ids_per_character(text: str) -> list[int]:
    """Return token ids that each add one character."""
    return [i for c in text for i in HF(c)["input_ids"]]


async def test_a_job_is_admitted_streamed_and_ended_with_the_result_that_was_streamed(
    client: Client,
) -> None:
    async with client.worker():
        job = await client.send("hello", max_tokens=40, n=3)
        result, end = await client.result_of(job), await client.end_of(job)
    prompt_tokens = len(HF("hello")["input_ids"])
    assert client.events[job.id][0] == Admitted(job=job.id, try_=1, prompt_tokens=prompt_tokens)
    ids = [tuple(expected_ids(1, choice, 40, BASE.version)) for choice in range(3)]
    streamed = {choice: (ids[choice], expected_text(ids[choice])) for choice in range(3)}
    assert client.answers_of(job) == streamed
    assert {i: (c.ids, c.text) for i, c in enumerate(result.choices)} == streamed
    assert all(choice.finish is FinishReason.LENGTH for choice in result.choices)
    assert len(client.tokens_of(job)) > 3
    assert (end.state, end.error) == (JobState.DONE, None)
    for usage in (end.usage, result.usage):
        assert (usage.prompt_tokens, usage.completion_tokens) == (prompt_tokens, 120)


async def test_a_chat_is_rendered_by_its_template_and_may_fill_the_context(client: Client) -> None:
    client.engine.step_s = 0
    messages = ({"role": "user", "content": "hi"},)
    async with client.worker():
        job = await client.send(endpoint=Endpoint.CHAT, messages=messages, max_tokens=None)
        end = await client.end_of(job)
    prompt = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert end.usage.prompt_tokens == len(HF(prompt)["input_ids"])
    assert end.usage.prompt_tokens + end.usage.completion_tokens == 1000


async def test_the_end_token_adds_no_text_and_a_stop_string_aborts_the_request_in_the_engine(
    client: Client,
) -> None:
    client.engine.scripted_ids = [*ids_per_character("bye"), EOS_ID]
    async with client.worker():
        result = await client.result_of(await client.send(max_tokens=50))
        (choice,) = result.choices
        assert (choice.text, choice.finish, choice.ids[-1]) == ("bye", FinishReason.STOP, EOS_ID)
        assert result.usage.completion_tokens == 4
        client.engine.scripted_ids = ids_per_character("hello world")
        job = await client.send(max_tokens=900, stop=("lo w",))
        result = await client.result_of(job)
        await until(lambda: not client.engine.requests)
    (choice,) = result.choices
    assert (choice.text, choice.finish) == ("hel", FinishReason.STOP)
    assert len(choice.ids) == len("hello w")
    assert client.answers_of(job)[0][1] == "hel"


async def test_a_bad_prompt_before_its_admission_or_an_error_of_the_engine_fails_only_its_job(
    client: Client,
) -> None:
    async with client.worker():
        prompts = (5, 100_000), (5,) * 1000, (FAILING_TOKEN,), "good"
        jobs = [await client.send(prompt, n=2) for prompt in prompts]
        bad, too_long, failing, good = [await client.end_of(job) for job in jobs]
    assert good.state is JobState.DONE
    assert {end.state for end in (bad, too_long, failing)} == {JobState.FAILED}
    assert bad.error.param == "prompt[1]"
    assert too_long.error.code is ErrorCode.CONTEXT_LENGTH_EXCEEDED
    assert failing.error.message == "scripted to fail"
    assert [len(client.events[job.id]) for job in jobs[:2]] == [1, 1]


async def test_a_failed_step_fails_the_running_jobs_and_later_jobs_run(client: Client) -> None:
    async with client.worker():
        running = [await client.send(max_tokens=900, seed=seed) for seed in (1, 2)]
        for job in running:
            await client.until_published(job, 3)
        client.engine.breaks_next_step = True
        ends = [await client.end_of(job) for job in running]
        later = await client.end_of(await client.send())
    assert [end.error.code for end in ends if end.error] == [ErrorCode.INTERNAL] * 2
    assert later.state is JobState.DONE


async def test_a_cancelled_job_ends_and_frees_the_engine(client: Client) -> None:
    async with client.worker():
        job = await client.send(max_tokens=900, n=2)
        await client.until_published(job, 3)
        assert await client.queue.cancel(job.id) is JobState.RUNNING
        end = await client.end_of(job)
        await until(lambda: not client.engine.requests)
    assert end.state is JobState.CANCELLED
    assert end.error.code is ErrorCode.CANCELLED


async def test_no_more_than_max_num_seqs_choices_run_at_once_unless_a_job_alone_has_more(
    client: Client,
) -> None:
    async with client.worker(max_num_seqs=4):
        jobs = [await client.send(max_tokens=10, n=2, seed=seed) for seed in range(6)]
        for job in jobs:
            await client.end_of(job)
        assert client.engine.max_concurrent == 4
        job = await client.send(n=5)
        assert (await client.end_of(job)).state is JobState.DONE
    assert len(client.answers_of(job)) == 5


async def test_checkpoints_cover_all_published_tokens_even_if_the_engine_stops(
    client: Client,
) -> None:
    async with client.worker():
        job = await client.send(max_tokens=900)
        await client.until_published(job, 5)
        client.engine.may_step.clear()

        async def is_all_saved() -> bool:
            saved = await read_checkpoints(client.redis, client.keys, job.id)
            return bool(saved) and list(saved) == list(merge(client.tokens_of(job)))

        await until(is_all_saved)
        client.engine.may_step.set()


async def test_only_the_job_of_an_unknown_protocol_version_fails(client: Client) -> None:
    unknown, other = await client.send("unknown"), await client.send("other")
    body = encode_job(unknown).replace(b'"v":1,', b'"v":99,')
    await client.redis.hset(client.keys.job(unknown.id), "body", body)
    async with client.worker():
        failed, answered = await client.end_of(unknown), await client.end_of(other)
    assert failed.state == JobState.FAILED
    assert failed.error.code == ErrorCode.INTERNAL
    assert "protocol version 99" in failed.error.message
    assert answered.state == JobState.DONE


async def test_a_job_whose_deadline_passes_is_ended_by_its_worker(client: Client) -> None:
    jobs = RunningJobs()
    add_job(jobs, left_ms=0).conclude(JobState.DONE)
    publisher: Any = None  # it isn't called for a job that has ended
    Deadlines(jobs, publisher).end_overdue()
    async with client.worker():
        late = await client.send(max_tokens=900, deadline_ms=700)
        other = await client.send(max_tokens=300)
        end = await client.end_of(late)
        assert (end.state, end.error.code) == (JobState.EXPIRED, "deadline_exceeded")
        assert end.usage.completion_tokens > 0
        assert (await client.end_of(other)).state is JobState.DONE
        await until(lambda: not client.engine.requests)


NUM_INPUTS = 3 * MAX_EMBEDDED
PROMPTS = tuple((9,) * (1 + i) for i in range(NUM_INPUTS))


async def embed(client: Client, prompts: Any = PROMPTS) -> Job:
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


async def test_a_job_embeds_all_inputs_without_tokens_and_leaves_room_for_a_generation(
    client: Client,
) -> None:
    client.engine.may_step.clear()
    async with client.worker(max_num_seqs=MAX_EMBEDDED + 1) as worker:
        job = await embed(client)
        await until(lambda: client.engine.requests)
        other = await client.send(seed=3)
        await until(lambda: len(worker.parts.jobs) == 2)
        client.engine.may_step.set()
        check(await client.result_of(job))
        assert (await client.end_of(other)).state is JobState.DONE
    assert not [event for event in client.events[job.id] if isinstance(event, Tokens)]


async def test_a_job_that_another_worker_has_returned_is_computed_anew(client: Client) -> None:
    other = Actor(client.queue, client.redis, client.keys, "test:1:other", [BASE.version])
    await other.register()
    job = await embed(client)
    assert await other.claim_ids(sequences=64, tokens=100_000) == [job.id]
    await client.queue.release(other.id, [job.id])
    await client.queue.leave(other.id)
    async with client.worker():
        check(await client.result_of(job))


async def test_an_input_longer_than_the_context_fails_the_job(client: Client) -> None:
    async with client.worker():
        end = await client.end_of(await embed(client, ((9,) * 1000, (9,) * 1001)))
    assert (end.error.code, end.error.param) == (ErrorCode.CONTEXT_LENGTH_EXCEEDED, "input")
