"""Events that report the progress of a job to its front end."""

from dataclasses import dataclass

from shared.errors import JobError
from shared.protocol.ids import JobId
from shared.protocol.jobs import JobState
from shared.protocol.logprobs import PositionLogprobs
from shared.protocol.results import FinishReason, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """Reports that a worker has tokenized the prompt, and that the prompt fits into the context."""

    job: JobId
    try_: int
    prompt_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """New tokens of one choice and the text that they complete."""

    job: JobId
    try_: int
    choice: int
    index: int
    """Position of `ids[0]` among the choice's output tokens."""
    ids: tuple[int, ...]
    text: str
    """New text. It may lag behind `ids`, because the worker holds back incomplete UTF-8 characters
    and text that may be the beginning of a stop string."""
    finish: FinishReason | None = None
    """Reason why the choice ended. Set only on the last event of the choice."""
    stop: str | int | None = None
    """Stop string, or token of the job's `stop_token_ids`, that ended the choice. None if neither
    did. Set only on the last event of the choice."""
    logprobs: tuple[PositionLogprobs, ...] = ()
    """Logprobs of `ids`, if the job asks for them. A token that ends a choice without being part of
    its text has logprobs only if `Job.reports_end` is set."""
    prompt_logprobs: tuple[PositionLogprobs, ...] = ()
    """Logprobs of the prompt's tokens. Set on the event with index 0 if the job asks for
    logprobs and echoes its prompt."""
    prompt_ids: tuple[int, ...] = ()
    """Tokens of the prompt, on the event with index 0, if `SamplingParams.reports_ids` is set."""
    prompt_scores: str = ""
    """Scores of the prompt's tokens, as JSON in the form of vLLM's `prompt_logprobs`. Set on the
    event with index 0 of the first choice of each prompt, if `SamplingParams.prompt_logprobs` is
    set. Front ends don't decode the scores, since there may be 500,000 of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Reports that the worker died or released the job. Earlier events stay valid."""

    job: JobId
    try_: int
    """Number of the try that ended. Events of the next try have a higher number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Final event of a job. Every job has exactly one."""

    job: JobId
    try_: int
    state: JobState
    usage: Usage | None = None
    error: JobError | None = None


Event = Admitted | Tokens | Retry | End
