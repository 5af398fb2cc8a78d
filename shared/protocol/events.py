"""What a job's front end hears of it, in order."""

from dataclasses import dataclass

from shared.errors import JobError
from shared.protocol.ids import JobId
from shared.protocol.jobs import JobState
from shared.protocol.logprobs import PositionLogprobs
from shared.protocol.results import FinishReason, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """The job is tokenised and fits: from here on it will stream."""

    job: JobId
    try_: int
    prompt_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """New tokens of one choice, and the text that they made visible."""

    job: JobId
    try_: int
    choice: int
    index: int
    """Position of `ids[0]` among the choice's output tokens."""
    ids: tuple[int, ...]
    text: str
    """May lag behind the ids: UTF-8 and possible stop strings are held back."""
    finish: FinishReason | None = None
    """Set on the choice's last event."""
    logprobs: tuple[PositionLogprobs, ...] = ()
    """Of `ids`, if the job asks for them; an end-of-sequence token that ends a choice has none."""
    prompt_logprobs: tuple[PositionLogprobs, ...] = ()
    """Of the prompt's tokens, on the event of index 0, if the job echoes it with logprobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """The worker died or gave the job back; what was published up to here stays valid."""

    job: JobId
    try_: int
    """The try that ended; the next event carries a higher one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The one final event of a job."""

    job: JobId
    try_: int
    state: JobState
    usage: Usage | None = None
    error: JobError | None = None


Event = Admitted | Tokens | Retry | End
