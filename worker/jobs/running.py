"""The jobs that this worker owns, and how far each of their choices has got."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from shared.errors import ErrorCode, JobError, JobFailed
from shared.protocol.events import End, Tokens
from shared.protocol.ids import AdapterVersion, JobId
from shared.protocol.jobs import ClaimedJob, JobState
from shared.protocol.logprobs import PositionLogprobs
from shared.protocol.results import Choice, FinishReason, Result, Usage
from worker.engine.request import RequestId, StepOutput, TokenLogprobs
from worker.jobs.token_logprobs import described, described_prompt
from worker.text.detokenizer import TextStream


class Delta:
    """What became of a choice since it was last told."""

    __slots__ = ("finish", "ids", "index", "logprobs", "prompt_logprobs", "text")

    def __init__(self, index: int = 0) -> None:
        self.index = index
        self.ids: list[int] = []
        self.text = ""
        self.finish: FinishReason | None = None
        self.logprobs: tuple[PositionLogprobs, ...] = ()
        self.prompt_logprobs: tuple[PositionLogprobs, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.ids) or self.finish is not None

    def add(self, ids: Iterable[int], text: str, finish: FinishReason | None) -> None:
        """Append tokens, the text that they made visible, and the reason if they were the last."""
        self.ids.extend(ids)
        self.text += text
        self.finish = finish

    def take(self, claimed: ClaimedJob, choice: int) -> Tokens:
        """All of it as an event; it is empty then."""
        event = Tokens(
            job=claimed.job.id,
            try_=claimed.try_,
            choice=choice,
            index=self.index,
            ids=tuple(self.ids),
            text=self.text,
            finish=self.finish,
            logprobs=self.logprobs,
            prompt_logprobs=self.prompt_logprobs,
        )
        self.index += len(self.ids)
        self.ids, self.text, self.finish = [], "", None
        self.logprobs = self.prompt_logprobs = ()
        return event


class RunningChoice:
    """One answer in the making."""

    def __init__(
        self,
        request_id: RequestId,
        choice: int,
        stream: TextStream,
        *,
        prompt_ids: list[int],
        max_tokens: int,
    ) -> None:
        self.request_id = request_id
        self.choice = choice
        self.prompt_ids = prompt_ids
        self.max_tokens = max_tokens
        self.num_cached_tokens = 0
        """Of the prompt's, those that were in the KV cache before."""
        self.ids: list[int] = []
        self.finish: FinishReason | None = None
        self.logprobs: list[PositionLogprobs] = []
        self.prompt_logprobs: tuple[PositionLogprobs, ...] = ()
        """Both as in `Tokens`."""
        self.unpublished = Delta()
        self.unsaved = Delta()
        """Not in a checkpoint yet."""
        self.saved_at = 0.0
        """When the last checkpoint was taken, on the event loop's clock."""
        self.saved_in = 0
        """The number of the publication with the last checkpoint."""
        self._stream = stream
        self._text: list[str] = []

    @property
    def text(self) -> str:
        """What is visible of the answer."""
        return "".join(self._text)

    def accept(self, output: StepOutput) -> None:
        """Append a token that the engine drew, and its reason if it ended the answer there.

        A stop string ends the answer as well: then `finish` is set, and the engine doesn't know.
        """
        token_id, finish = output.token_id, output.finish
        assert token_id is not None
        if not self.ids:
            self.num_cached_tokens = min(output.num_cached_tokens, len(self.prompt_ids))
        if output.prompt_logprobs is not None:
            self._tell_prompt(output.prompt_logprobs)
        if finish is FinishReason.STOP:  # the token that ends a sequence isn't text
            self._advance([token_id], self._stream.close(), finish)
            return
        if output.logprobs:
            self._tell(described(token_id, output.logprobs, self._stream))
        text = self._stream.feed(token_id)
        text += self._stream.close() if finish else ""
        self._advance([token_id], text, finish)

    def restore(self, shown: Tokens) -> None:
        """Go on from what earlier tries have shown.

        Raises:
            JobFailed: these tokens give another text here.
        """
        self.ids, self.finish = list(shown.ids), shown.finish
        self.logprobs, self.prompt_logprobs = list(shown.logprobs), shown.prompt_logprobs
        if self.finish is None and self._stream.replay(shown.ids) != shown.text:
            message = "another worker showed a text that this one can't continue"
            raise JobFailed(JobError(code=ErrorCode.RESUME_DIVERGED, message=message))
        self._text = [shown.text]
        self.unpublished, self.unsaved = Delta(len(self.ids)), Delta(len(self.ids))

    def everything(self, claimed: ClaimedJob) -> Tokens:
        """All tokens so far as one event; nothing is left for the next checkpoint."""
        self.unsaved = Delta(len(self.ids))
        return Tokens(
            job=claimed.job.id,
            try_=claimed.try_,
            choice=self.choice,
            index=0,
            ids=tuple(self.ids),
            text=self.text,
            finish=self.finish,
            logprobs=tuple(self.logprobs),
            prompt_logprobs=self.prompt_logprobs,
        )

    def reach_limit(self) -> None:
        """End an answer that was restored with all the tokens that it may have."""
        self._advance([], self._stream.close(), FinishReason.LENGTH)

    def _tell(self, position: PositionLogprobs) -> None:
        self.logprobs.append(position)
        for delta in (self.unpublished, self.unsaved):
            delta.logprobs += (position,)

    def _tell_prompt(self, logprobs: Sequence[TokenLogprobs]) -> None:
        stream = TextStream(self._stream.token_bytes, (), opens=True)
        self.prompt_logprobs = described_prompt(self.prompt_ids, logprobs, stream)
        for delta in (self.unpublished, self.unsaved):
            delta.prompt_logprobs = self.prompt_logprobs

    def _advance(self, ids: list[int], text: str, finish: FinishReason | None) -> None:
        self.finish = FinishReason.STOP if self._stream.is_stopped else finish
        self.ids += ids
        self._text.append(text)
        for delta in (self.unpublished, self.unsaved):
            delta.add(ids, text, self.finish)


class RunningJob:
    """A job between its claim and its end."""

    def __init__(self, claimed: ClaimedJob) -> None:
        self.job = claimed.job
        self.claimed = claimed
        self.num_prompt_tokens = 0
        self.choices: list[RunningChoice] = []
        """Empty until the job is tokenised."""
        self.is_admitted = False
        """The engine has it."""
        self.is_announced = False
        """Its client was told so."""
        self.end: End | None = None
        """How it ended; set before Redis knows."""
        self.deadline = time.monotonic() + claimed.left_ms / 1000
        """On the monotonic clock."""

    @property
    def id(self) -> JobId:
        """The job's id."""
        return self.job.id

    @property
    def num_open(self) -> int:
        """Choices that still take a sequence of the engine."""
        if not self.choices:
            return self.job.num_choices
        return sum(choice.finish is None for choice in self.choices)

    def conclude(self, state: JobState, error: JobError | None = None) -> None:
        """Settle how it ends, unless that is settled already."""
        if self.end is None:
            try_, usage = self.claimed.try_, self._usage()
            self.end = End(job=self.id, try_=try_, state=state, usage=usage, error=error)

    def result(self) -> Result:
        """What is kept of the concluded job: its answers, as far as they are finished."""
        assert self.end is not None
        return Result(
            job=self.id,
            state=self.end.state,
            choices=tuple(
                Choice(
                    text=c.text,
                    finish=c.finish,
                    ids=tuple(c.ids),
                    logprobs=tuple(c.logprobs),
                    prompt_logprobs=c.prompt_logprobs,
                )
                for c in self.choices
                if c.finish is not None
            ),
            usage=self.end.usage,
            error=self.end.error,
        )

    def _usage(self) -> Usage | None:
        if not self.choices:
            return None
        num_tokens = sum(len(choice.ids) for choice in self.choices)
        # The other choices of a prompt find what the first has computed.
        firsts = self.choices[:: self.job.sampling.n]
        return Usage(
            prompt_tokens=self.num_prompt_tokens,
            completion_tokens=num_tokens,
            cached_tokens=sum(choice.num_cached_tokens for choice in firsts),
        )


class RunningJobs:
    """Every job that this worker owns."""

    def __init__(self) -> None:
        self._jobs: dict[JobId, RunningJob] = {}
        self._choices: dict[RequestId, tuple[RunningJob, RunningChoice]] = {}

    def __iter__(self) -> Iterator[RunningJob]:
        return iter(list(self._jobs.values()))

    def __len__(self) -> int:
        return len(self._jobs)

    def get(self, job_id: JobId) -> RunningJob | None:
        """The job of this id, if it is owned."""
        return self._jobs.get(job_id)

    def find(self, request_id: RequestId) -> tuple[RunningJob, RunningChoice] | None:
        """Whose request it is; None once its job or choice has ended."""
        found = self._choices.get(request_id)
        return found if found and not found[0].end and not found[1].finish else None

    def add(self, job: RunningJob) -> None:
        """Take a claimed job in."""
        self._jobs[job.id] = job

    def add_choices(self, job: RunningJob, choices: list[RunningChoice]) -> None:
        """Give a job its choices."""
        job.choices = choices
        self._choices |= {choice.request_id: (job, choice) for choice in choices}

    def remove(self, job: RunningJob) -> None:
        """Let go of a job; nothing happens if it isn't owned any more."""
        if self._jobs.get(job.id) is job:
            del self._jobs[job.id]
        for choice in job.choices:
            self._choices.pop(choice.request_id, None)

    def clear(self) -> None:
        """Let go of everything."""
        self._jobs.clear()
        self._choices.clear()

    @property
    def epochs(self) -> dict[JobId, int]:
        """Those of the claims, by job."""
        return {job.id: job.claimed.epoch for job in self._jobs.values()}

    @property
    def num_by_version(self) -> Mapping[AdapterVersion, int]:
        """How many jobs of each version the engine has."""
        return Counter(job.job.version for job in self._jobs.values() if job.choices)

    @property
    def num_open(self) -> int:
        """Sequences of the engine that are taken."""
        return sum(job.num_open for job in self._jobs.values() if job.end is None)

    @property
    def num_tokens(self) -> int:
        """Tokens of the KV cache that the jobs are estimated to need."""
        return sum(job.job.cost for job in self._jobs.values() if job.end is None)
