"""Unit tests of the publications that the publisher writes to a fake queue."""

import asyncio
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from running_jobs import EOS_ID, WID, add_job, ascii_ids, output, outputs
from worker_support import until

from shared.cancel_tasks import cancel_tasks
from shared.errors import LeaseLost, RedisUnavailable
from shared.protocol.events import End, Event, Tokens
from shared.protocol.ids import ApiId, JobId, WorkerId
from shared.protocol.jobs import JobState
from shared.protocol.queue_replies import FinishOutcome, Standing
from shared.protocol.results import FinishReason, Result
from shared.store.redis import retry
from worker.engine.request import RequestId, StepOutput
from worker.jobs import publisher as publisher_module
from worker.jobs.durable_ends import DurableEnds
from worker.jobs.publisher import CHECKPOINT_PUBLICATIONS, CHECKPOINT_TOKENS, Publisher
from worker.jobs.running import RunningJob, RunningJobs


class FakeQueue:
    """Records publications and finished jobs. Its replies are scripted; the default is success."""

    is_strict = False

    def __init__(self) -> None:
        self.publications: list[tuple[dict[ApiId, list[Event]], list[Tokens]]] = []
        self.nums_acknowledged: list[int] = []
        """For each publication, the number of earlier ones that were acknowledged."""
        self.used: list[dict[JobId, int]] = []
        """For each publication, the tokens that jobs have used."""
        self.replies: list[Standing | Exception] = []
        self.finished: list[tuple[WorkerId, End, Result, int]] = []
        self.outcome = FinishOutcome.OK

    async def publish(
        self,
        wid: WorkerId,
        events: Mapping[ApiId, Sequence[Event]],
        checkpoints: Sequence[Tokens],
        **fields: Any,
    ) -> Standing:
        assert wid == WID
        self.nums_acknowledged.append(fields["num_acknowledged"])
        self.used.append(dict(fields["used"]))
        self.publications.append(({k: list(v) for k, v in events.items()}, list(checkpoints)))
        reply = self.replies.pop(0) if self.replies else Standing()
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def finish(
        self, wid: WorkerId, end: End, result: Result, *, claim_epoch: int
    ) -> FinishOutcome:
        self.finished.append((wid, end, result, claim_epoch))
        return self.outcome

    @property
    def events(self) -> list[Event]:
        """All published events, in order."""
        return [e for batch, _ in self.publications for events in batch.values() for e in events]

    @property
    def checkpoints(self) -> list[Tokens]:
        """All checkpoints, in order."""
        return [tokens for _, checkpoints in self.publications for tokens in checkpoints]


class Setup:
    """A publisher with fakes of its collaborators; `async with` runs it."""

    def __init__(self) -> None:
        self.queue, self.jobs = FakeQueue(), RunningJobs()
        self.aborted: list[RequestId] = []
        self.lost: list[WorkerId] = []
        queue: Any = self.queue
        lease: Any = SimpleNamespace(wid=WID, lose=self.lost.append)
        self.publisher = Publisher(
            queue, lease, self.jobs, abort=self.aborted.append, ends=DurableEnds(queue)
        )

    async def __aenter__(self) -> "Setup":
        self._task = asyncio.create_task(self.publisher.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await cancel_tasks(self._task)

    @property
    def texts(self) -> list[str]:
        """The texts of the published events with tokens."""
        return [event.text for event in self.queue.events if isinstance(event, Tokens)]

    def admit(self, **fields: Any) -> RunningJob:
        """Add a job whose requests the engine has."""
        job = add_job(self.jobs, **fields)
        self.publisher.report_admitted(job)
        return job

    async def publish(self, *steps: Sequence[StepOutput]) -> None:
        """Apply the outputs of some steps and publish them together."""
        for step in steps:
            self.publisher.accept(step)
        await self.publisher.flush()


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch) -> Setup:
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.001)
    monkeypatch.setattr(publisher_module, "CHECKPOINT_S", 60.0)
    return Setup()


async def test_updates_are_grouped_by_front_end_and_those_of_unknown_requests_ignored(
    setup: Setup,
) -> None:
    job, other = setup.admit(), setup.admit()
    setup.publisher.accept([output(job.choices[0], "a"), output(other.choices[0], "b")])
    await setup.publish()
    ((events, _),) = setup.queue.publications
    assert {api: len(batch) for api, batch in events.items()} == {job.job.reply_to: 4}
    setup.jobs.remove(job)
    await setup.publish([output(job.choices[0], "c")])
    assert len(setup.queue.publications) == 1, "nothing is written without updates"


async def test_a_checkpoint_is_due_after_a_number_of_tokens_or_publications_or_an_end(
    setup: Setup,
) -> None:
    choice, ended, saved = setup.admit(n=3).choices
    await setup.publish(outputs(choice, "x" * (CHECKPOINT_TOKENS - 1)))
    assert setup.queue.checkpoints == []
    await setup.publish(outputs(choice, "x"))
    (checkpoint,) = setup.queue.checkpoints
    assert (checkpoint.index, len(checkpoint.ids)) == (0, CHECKPOINT_TOKENS)
    await setup.publish(outputs(choice, "x"))
    for _ in range(CHECKPOINT_PUBLICATIONS - 2):
        await setup.publish()
    assert len(setup.queue.checkpoints) == 1
    await setup.publish()
    assert len(setup.queue.checkpoints) == 2
    await setup.publish([output(ended, "a", FinishReason.LENGTH)])
    assert setup.queue.checkpoints[-1].finish is FinishReason.LENGTH
    setup.publisher.accept([output(saved, "b")])
    await setup.publisher.flush(save_all=True)
    assert setup.queue.checkpoints[-1].text == "b"


async def test_a_checkpoint_is_due_after_a_while_even_without_new_tokens(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "CHECKPOINT_S", 0.01)
    (choice,) = setup.admit().choices
    async with setup:
        setup.publisher.accept([output(choice, "a")])
        await until(lambda: setup.queue.checkpoints)
    assert setup.queue.checkpoints[0].text == "a"


async def test_first_and_last_tokens_are_published_at_once_and_those_between_after_a_while(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "PUBLISH_S", 60.0)
    (choice,) = setup.admit().choices
    async with setup:
        setup.publisher.accept([output(choice, "a")])
        await until(lambda: setup.texts == ["a"])
        for token in "bc":
            setup.publisher.accept([output(choice, token)])
            await asyncio.sleep(0)  # lets the publisher run
        setup.publisher.accept([output(choice, "d", FinishReason.LENGTH)])
        await until(lambda: setup.queue.finished)
    assert setup.texts == ["a", "bcd"]
    monkeypatch.setattr(publisher_module, "PUBLISH_S", 0.01)
    (choice,) = setup.admit().choices
    async with setup:
        for token in "ef":
            setup.publisher.accept([output(choice, token)])
            await until(lambda token=token: setup.texts[-1] == token)


async def test_full_checkpoints_follow_a_failed_publication(setup: Setup) -> None:
    (choice,) = setup.admit().choices
    await setup.publish(outputs(choice, "x" * CHECKPOINT_TOKENS))
    setup.queue.replies = [RedisUnavailable("scripted")]
    await setup.publish([output(choice, "a")])
    await setup.publish([output(choice, "b")])
    assert setup.queue.checkpoints[-1].index == 0
    assert setup.queue.checkpoints[-1].text == "x" * CHECKPOINT_TOKENS + "ab"


async def test_only_publications_that_were_written_and_acknowledged_are_counted(
    setup: Setup,
) -> None:
    fenced, other = setup.admit(), setup.admit()
    fencing = Standing(fenced=frozenset({fenced.id}))
    setup.queue.replies = [RedisUnavailable("scripted"), fencing, Standing()]
    await setup.publish([output(fenced.choices[0], "a"), output(other.choices[0], "b")])
    await setup.publish([output(other.choices[0], "c")])
    assert setup.queue.nums_acknowledged == [0, 0, 0, 1]


async def test_a_fenced_job_is_dropped_and_the_rest_of_its_batch_is_published(
    setup: Setup,
) -> None:
    fenced, other = setup.admit(claim_epoch=5), setup.admit(claim_epoch=6)
    setup.queue.replies = [Standing(fenced=frozenset({fenced.id}))]
    await setup.publish([output(fenced.choices[0], "a"), output(other.choices[0], "b")])
    _, (events, _) = setup.queue.publications
    assert {event.job for batch in events.values() for event in batch} == {other.id}
    assert setup.aborted == [fenced.choices[0].request_id]
    assert [job.id for job in setup.jobs] == [other.id]


async def test_a_job_that_was_claimed_again_meanwhile_is_not_dropped(setup: Setup) -> None:
    job = setup.admit(claim_epoch=6)
    standing = Standing(fenced=frozenset({job.id}))
    setup.publisher.apply_standing(standing, {job.id: 5})
    assert setup.jobs.get(job.id) is job
    setup.publisher.apply_standing(standing, {job.id: 6})
    assert setup.jobs.get(job.id) is None


async def test_a_job_of_a_lost_lease_is_not_finished_and_one_that_is_fenced_is_removed(
    setup: Setup,
) -> None:
    (choice,) = setup.admit().choices
    setup.queue.replies = [LeaseLost("scripted")]
    await setup.publish([output(choice, "a", FinishReason.LENGTH)])
    assert setup.lost == [WID]
    assert setup.queue.finished == []
    setup.jobs.clear()
    (choice,) = setup.admit().choices
    setup.queue.outcome = FinishOutcome.FENCED
    await setup.publish([output(choice, "a", FinishReason.LENGTH)])
    assert len(setup.jobs) == 0


async def test_a_complete_job_is_finished_after_its_last_tokens_and_removed(setup: Setup) -> None:
    notified: list[int] = []
    setup.jobs.subscribe(lambda: notified.append(len(setup.jobs)))
    job = setup.admit(claim_epoch=9)
    (choice,) = job.choices
    await setup.publish(outputs(choice, "ab"), [output(choice, EOS_ID, FinishReason.STOP)])
    last = setup.queue.events[-1]
    assert isinstance(last, Tokens)
    assert last.finish is FinishReason.STOP
    ((wid, end, result, claim_epoch),) = setup.queue.finished
    assert (wid, end.state, claim_epoch) == (WID, JobState.DONE, 9)
    assert [(c.text, c.ids) for c in result.choices] == [("ab", (*ascii_ids("ab"), EOS_ID))]
    assert notified == [0]
    assert setup.aborted == []


async def test_tokens_of_the_same_step_after_a_stop_string_are_dropped(setup: Setup) -> None:
    job = setup.admit(stop=("lo",), n=2)
    stopped, other = job.choices
    ended = [*outputs(stopped, "hello agai"), output(stopped, "n", FinishReason.LENGTH)]
    await setup.publish([*ended, *outputs(other, "he")])
    await setup.publish([*outputs(stopped, "x"), output(other, "y", FinishReason.LENGTH)])
    assert setup.aborted == [stopped.request_id]
    ((_, end, result, _),) = setup.queue.finished
    assert [choice.text for choice in result.choices] == ["hel", "hey"]
    assert end.usage.completion_tokens == len("hello") + len("hey")


async def test_the_tokens_of_jobs_whose_keys_limit_tokens_are_reported(setup: Setup) -> None:
    limited, free = setup.admit(token_limit=100), setup.admit()
    limited.num_prompt_tokens = 7
    for _ in range(2):
        await setup.publish([output(job.choices[0], "a") for job in (limited, free)])
    assert setup.queue.used == [{limited.id: 8}, {limited.id: 9}]
