"""Events of a job, which a worker publishes to the job's front end in order."""

from dataclasses import dataclass

from shared.errors import JobError
from shared.protocol.ids import JobId
from shared.protocol.jobs import JobState
from shared.protocol.logprobs import PositionLogprobs
from shared.protocol.results import FinishReason, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """The prompt is tokenized and fits into the context. Tokens will follow."""

    job: JobId
    try_: int
    prompt_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """New tokens of one choice, and the text that they complete."""

    job: JobId
    try_: int
    choice: int
    index: int
    """Position of `ids[0]` among the choice's output tokens."""
    ids: tuple[int, ...]
    text: str
    """New text. It may lag behind the ids, by incomplete UTF-8 and possible stop strings."""
    finish: FinishReason | None = None
    """Reason why the choice ended; set on its last event only."""
    logprobs: tuple[PositionLogprobs, ...] = ()
    """Logprobs of `ids`, if the job asks for them. An end-of-sequence token that ends a choice has
    none."""
    prompt_logprobs: tuple[PositionLogprobs, ...] = ()
    """Logprobs of the prompt's tokens, on the event with index 0, if the job echoes its prompt with
    logprobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """The worker died or released the job. Events that were published before stay valid."""

    job: JobId
    try_: int
    """Try that ended. Events of the next try have a higher number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The only final event of a job."""

    job: JobId
    try_: int
    state: JobState
    usage: Usage | None = None
    error: JobError | None = None


Event = Admitted | Tokens | Retry | End
