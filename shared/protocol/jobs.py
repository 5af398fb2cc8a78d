"""Jobs: requests in the form that Redis stores."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from shared.protocol.ids import AdapterVersion, ApiId, JobId
from shared.protocol.tools import ToolUse

Prompt = str | tuple[int, ...]
"""Prompt as text or as token ids."""

MAX_LEFT_MS = 10**12
"""Value of `ClaimedJob.left_ms` for a job without a deadline, in milliseconds (about 30 years)."""


class Endpoint(StrEnum):
    """OpenAI endpoint that received a request."""

    CHAT = "chat"
    """`/v1/chat/completions`. The job has `messages`."""
    COMPLETIONS = "completions"
    """`/v1/completions`. The job has `prompts`."""


class JobState(StrEnum):
    """State of a job. All states after RUNNING are final."""

    QUEUED = "queued"
    """Waiting in the queue of its adapter version."""
    RUNNING = "running"
    """Claimed by exactly one worker."""
    DONE = "done"
    """Answered completely."""
    FAILED = "failed"
    """Ended with an error, which is stored with the job."""
    CANCELLED = "cancelled"
    """Cancelled by its client."""
    EXPIRED = "expired"
    """The job's deadline passed before the answer was complete."""
    DEAD = "dead"
    """Repeatedly killed its worker while running alone. The job is kept as a dead letter."""


UNFINISHED = (JobState.QUEUED, JobState.RUNNING)
"""States of jobs that haven't ended. All other states are final."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """Sampling parameters. Samples depend only on the logits, seed, choice and position."""

    seed: int
    """Seed of the samples. If the client sends no seed, the front end picks one. Another worker
    can therefore continue the job with identical samples."""
    temperature: float = 1.0
    """Temperature of sampling; 0 always selects the likeliest token."""
    top_p: float = 1.0
    top_k: int = 0
    """Number of likeliest tokens to sample from; 0 samples from all tokens."""
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Pairs of a token id and the value that is added to the token's logit."""
    min_tokens: int = 0
    """Minimum number of output tokens of a choice. No end-of-sequence token or stop string ends
    the choice earlier."""
    max_tokens: int | None = None
    """Maximum number of output tokens of each choice; None allows output up to the end of the
    context."""
    stop: tuple[str, ...] = ()
    n: int = 1
    ignore_eos: bool = False
    logprobs: int | None = None
    """Number of likeliest tokens to report with each token; None reports no logprobs."""
    left_out: tuple[str, ...] = ()
    """Names of the parameters that the client didn't send and that an adapter may set. If the
    job's adapter has defaults for these parameters, the defaults apply."""
    json_schema: str | None = None
    """JSON schema, as JSON text, that each answer must match; None allows any text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One request in the form that Redis stores."""

    id: JobId
    endpoint: Endpoint
    model: str
    """Model name that the client sent. The response repeats it."""
    version: AdapterVersion
    """Version that serves the job, as resolved when the front end accepted the request."""
    sampling: SamplingParams
    created_s: int
    """Unix time in seconds at which the front end received the request."""
    deadline_ms: int
    """Milliseconds from enqueueing to the deadline."""
    cost: int
    """Estimated number of tokens in prompts and answers. Fair queueing charges this number
    to the tenant, and a claim reserves this number on the worker."""
    reply_to: ApiId
    tenant: str = "default"
    priority: int = 0
    """Jobs with a higher priority run earlier. Each unit of priority moves a job ahead by 1,000
    tokens in fair queueing."""
    messages: tuple[dict[str, Any], ...] | None = None
    """Chat only: the messages in the form that chat templates expect. Text parts are joined, and
    tool arguments are objects."""
    prompts: tuple[Prompt, ...] = ()
    """Completions only: the prompts of the request."""
    echo: bool = False
    """Completions only: whether each choice's text begins with the prompt."""
    fingerprint: str = ""
    """`system_fingerprint` of the response, which contains digests of the base model's and
    adapter's weights."""
    tools: ToolUse | None = None
    """Chat only: tools that the model may call."""
    include_usage: bool = False
    """Whether a stream of the answer ends with the token counts."""
    service_tier: str | None = None
    """`service_tier` of the request, which sets `priority`. The answer repeats it."""

    @property
    def num_choices(self) -> int:
        """Number of choices over all prompts.

        With n = `sampling.n`, prompt i has the choices `i * n` to `i * n + n - 1`.
        """
        return self.sampling.n * max(1, len(self.prompts))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedJob:
    """A job that a worker owns until it finishes or releases it."""

    job: Job
    try_: int
    """Number of claims of the job so far, including this one. Serves as a fencing token."""
    suspect: bool
    """Whether the job must run alone, because workers died while they ran it."""
    claim_epoch: int = 0
    """Random id of the claim. It is unique even if a failover of Redis loses writes. 0 matches
    any claim."""
    left_ms: int = MAX_LEFT_MS
    """Milliseconds from the claim to the job's deadline."""
