"""Jobs: requests as they are stored in Redis."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from shared.protocol.ids import AdapterVersion, ApiId, JobId
from shared.protocol.tools import ToolUse

Prompt = str | tuple[int, ...]
"""Text or token ids."""

MAX_LEFT_MS = 10**12
"""Milliseconds until the deadline of a job without one, about 30 years."""


class Endpoint(StrEnum):
    """OpenAI endpoint that received a request."""

    CHAT = "chat"
    """/v1/chat/completions; the job has `messages`."""
    COMPLETIONS = "completions"
    """/v1/completions; the job has `prompts`."""


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
    """Its deadline passed before it was answered."""
    DEAD = "dead"
    """Killed its worker repeatedly while it ran alone. It is kept as a dead letter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """Sampling parameters. Each sampled token is a function of (seed, choice, position)."""

    seed: int
    """Always set, so that another worker continues a job identically. The front end picks a seed if
    the client sends none."""
    temperature: float = 1.0
    """0 selects the likeliest token."""
    top_p: float = 1.0
    top_k: int = 0
    """Number of tokens to sample from; 0 keeps all."""
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    """(token id, value added to its logit)."""
    min_tokens: int = 0
    """Number of output tokens before an end-of-sequence token or a stop string may end a choice."""
    max_tokens: int | None = None
    """None: up to the end of the context."""
    stop: tuple[str, ...] = ()
    n: int = 1
    ignore_eos: bool = False
    logprobs: int | None = None
    """Number of likeliest tokens to report with each token; None reports no logprobs."""
    left_out: tuple[str, ...] = ()
    """Names of fields that the client didn't send, for which an adapter may have defaults."""
    json_schema: str | None = None
    """JSON Schema, as JSON text, that each answer must match; None allows any text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One request as it is stored in Redis."""

    id: JobId
    endpoint: Endpoint
    model: str
    """Model name that the client sent, repeated in the response."""
    version: AdapterVersion
    """Version that answers it, resolved when the request was accepted."""
    sampling: SamplingParams
    created_s: int
    """Unix time in seconds."""
    deadline_ms: int
    """Milliseconds from the time of enqueueing."""
    cost: int
    """Estimated tokens of prompts and answers, which fair queueing charges and claims reserve."""
    reply_to: ApiId
    tenant: str = "default"
    priority: int = 0
    """A higher priority runs earlier. One step is worth 1,000 tokens of the fair tag."""
    messages: tuple[dict[str, Any], ...] | None = None
    """Chat only: the messages in the form of chat templates, with joined text parts and with tool
    arguments as objects."""
    prompts: tuple[Prompt, ...] = ()
    """Completions only."""
    echo: bool = False
    """Completions only: whether each choice's text begins with the prompt."""
    fingerprint: str = ""
    """`system_fingerprint` of the response: digests of the base and adapter weights."""
    tools: ToolUse | None = None
    """Chat only: tools that the model may call."""

    @property
    def num_choices(self) -> int:
        """Number of choices over all prompts. Prompt i has choices `i * n` to `i * n + n - 1`."""
        return self.sampling.n * max(1, len(self.prompts))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedJob:
    """A job that a worker owns until it finishes or releases it."""

    job: Job
    try_: int
    """Number of the job's claim, from 1; a fencing token."""
    suspect: bool
    """Whether the job must run alone, because a worker died while it ran the job."""
    claim_epoch: int = 0
    """Random id of the claim, unique even if a failover of Redis loses writes. 0 matches any."""
    left_ms: int = MAX_LEFT_MS
    """Milliseconds from the claim to the job's deadline."""
