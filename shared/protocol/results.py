"""How a job ended, as Redis keeps it."""

from dataclasses import dataclass
from enum import StrEnum

from shared.errors import JobError
from shared.protocol.ids import JobId
from shared.protocol.jobs import JobState
from shared.protocol.logprobs import PositionLogprobs


class FinishReason(StrEnum):
    """Why a choice ended, in OpenAI's words."""

    STOP = "stop"
    """End-of-sequence token or stop string."""
    LENGTH = "length"
    """`max_tokens` or the model's context is used up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts of one job, over all its choices."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    """Of the prompts', those that needn't be computed, as an earlier request had them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One finished answer."""

    text: str
    finish: FinishReason
    ids: tuple[int, ...]
    logprobs: tuple[PositionLogprobs, ...] = ()
    prompt_logprobs: tuple[PositionLogprobs, ...] = ()
    """Both as in `Tokens`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What `res:<id>` keeps of a finished job."""

    job: JobId
    state: JobState
    choices: tuple[Choice, ...] = ()
    usage: Usage | None = None
    error: JobError | None = None
