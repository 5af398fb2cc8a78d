"""Results of jobs in the form that Redis stores."""

from dataclasses import dataclass
from enum import StrEnum

from shared.errors import JobError
from shared.protocol.ids import JobId
from shared.protocol.jobs import JobState
from shared.protocol.logprobs import PositionLogprobs


class FinishReason(StrEnum):
    """Reason why a choice ended, as in OpenAI's API."""

    STOP = "stop"
    """The choice reached an end-of-sequence token or a stop string."""
    LENGTH = "length"
    """The choice reached `max_tokens` or the end of the context."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts of a job, over all its choices, or of several jobs."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    """Number of prompt tokens that were found in the prefix cache."""
    reasoning_tokens: int = 0
    """Number of completion tokens between the markers of reasoning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One finished choice."""

    text: str
    finish: FinishReason
    ids: tuple[int, ...]
    stop: str | int | None = None
    """What ended the choice, in the form of `Tokens.stop`."""
    logprobs: tuple[PositionLogprobs, ...] = ()
    """Logprobs of `ids`, in the form of `Tokens.logprobs`."""
    prompt_logprobs: tuple[PositionLogprobs, ...] = ()
    """Logprobs of the prompt's tokens, in the form of `Tokens.prompt_logprobs`."""
    prompt_ids: tuple[int, ...] = ()
    """Tokens of the prompt, if the job's `SamplingParams.reports_ids` is set."""
    prompt_scores: str = ""
    """Scores of the prompt's tokens, in the form of `Tokens.prompt_scores`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Result of a job. Redis stores it under the key `res:<id>`."""

    job: JobId
    state: JobState
    choices: tuple[Choice, ...] = ()
    usage: Usage | None = None
    error: JobError | None = None
