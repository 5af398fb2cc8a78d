"""Claimed jobs and choices for unit tests of worker/jobs, without a real tokenizer or engine."""

from collections.abc import Sequence
from typing import Any

from queue_support import make_job

from shared.protocol.ids import WorkerId
from shared.protocol.jobs import ClaimedJob, Job, SamplingParams
from shared.protocol.results import FinishReason
from worker.engine.request import RequestId, StepOutput
from worker.jobs.running import RunningJob, RunningJobs
from worker.jobs.running_choice import Reports, RunningChoice
from worker.text.detokenizer import TextStream, TokenBytes

WID = WorkerId("host:1:a")
EOS_ID = 0


class AsciiTokenizer:
    """Stands in for a Hugging Face tokenizer. Token ids are ASCII codes; 0 is a special token."""

    backend_tokenizer = None
    chat_template = None

    def __len__(self) -> int:
        return 128

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": ascii_ids(text)}

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return "".join(chr(token_id) for token_id in ids if token_id != EOS_ID)

    def convert_ids_to_tokens(self, token_id: int) -> str | None:
        if token_id == EOS_ID:
            return "<eos>"
        return chr(token_id) if token_id < len(self) else None


TOKEN_BYTES = TokenBytes(AsciiTokenizer())


def ascii_ids(text: str) -> list[int]:
    """Return the tokens of an ASCII text, one per character."""
    return list(text.encode("ascii"))


def text_stream(stop: Sequence[str] = (), *, includes_stop: bool = False) -> TextStream:
    """Return an empty stream of ASCII tokens."""
    return TextStream(TOKEN_BYTES, stop, is_text_start=True, includes_stop=includes_stop)


def claim(job: Job | None = None, **fields: Any) -> ClaimedJob:
    """Return a claimed job; `fields` override those of the claim."""
    return ClaimedJob(**{"job": job or make_job(), "try_": 1, "suspect": False, **fields})


def make_choice(
    number: int = 0,
    *,
    job_id: str = "job",
    prompt: str = "hi",
    stop: Sequence[str] = (),
    includes_stop: bool = False,
    max_tokens: int = 100,
    reports: Reports | None = None,
) -> RunningChoice:
    """Return a choice without tokens."""
    return RunningChoice(
        RequestId(f"{job_id}:{number}"),
        number,
        text_stream(stop, includes_stop=includes_stop),
        prompt_ids=ascii_ids(prompt),
        max_tokens=max_tokens,
        reports=reports or Reports(),
    )


def add_job(
    jobs: RunningJobs, *, n: int = 1, stop: Sequence[str] = (), **fields: Any
) -> RunningJob:
    """Add a claimed job with `n` choices to `jobs`, and return it."""
    job = RunningJob(claim(make_job(sampling=SamplingParams(seed=1, n=n)), **fields))
    jobs.add(job)
    job.num_prompt_tokens = 2
    jobs.add_choices(job, [make_choice(i, job_id=job.id, stop=stop) for i in range(n)])
    return job


def output(
    choice: RunningChoice, token: str | int, finish: FinishReason | None = None, **fields: Any
) -> StepOutput:
    """Return the engine's output of one token, given as a character or an id."""
    token_id = ord(token) if isinstance(token, str) else token
    return StepOutput(request_id=choice.request_id, token_id=token_id, finish=finish, **fields)


def outputs(choice: RunningChoice, text: str) -> list[StepOutput]:
    """Return the engine's outputs of a text, one token per character."""
    return [output(choice, character) for character in text]
