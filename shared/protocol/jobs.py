"""What a client asked for, as it waits in Redis."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from shared.protocol.ids import AdapterVersion, ApiId, JobId
from shared.protocol.tools import ToolUse

Prompt = str | tuple[int, ...]
"""Text or token ids."""

MAX_LEFT_MS = 10**12
"""A deadline that nobody lives to see."""


class Endpoint(StrEnum):
    """Which OpenAI endpoint a job came in through."""

    CHAT = "chat"
    """/v1/chat/completions: `messages` is set."""
    COMPLETIONS = "completions"
    """/v1/completions: `prompts` is set."""


class JobState(StrEnum):
    """Where a job is. All states after RUNNING are final."""

    QUEUED = "queued"
    """Waits in the queue of its adapter version."""
    RUNNING = "running"
    """Claimed by exactly one worker."""
    DONE = "done"
    """Answered in full."""
    FAILED = "failed"
    """Ended with an error, which the job carries."""
    CANCELLED = "cancelled"
    """Ended by its client."""
    EXPIRED = "expired"
    """Its deadline passed before it was answered."""
    DEAD = "dead"
    """Killed its worker repeatedly while running alone; kept as a dead letter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How tokens are drawn. A draw is a function of (seed, choice, position)."""

    seed: int
    """Always set: the API picks one if the client sends none, so that a moved job goes on alike."""
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps all tokens."""
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    """What is added to the logits of token ids."""
    min_tokens: int = 0
    """Output tokens before an end-of-sequence token or a stop string may end the answer."""
    max_tokens: int | None = None
    """None: as many as the context holds."""
    stop: tuple[str, ...] = ()
    n: int = 1
    ignore_eos: bool = False
    logprobs: int | None = None
    """How many of the likeliest tokens are told with each token; None: nothing is told."""
    left_out: tuple[str, ...] = ()
    """Fields that the client didn't send: an adapter may have values of its own for them."""
    json_schema: str | None = None
    """JSON Schema, as JSON text, that each answer must be valid under; None: any text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One request as it is stored in Redis: OpenAI's fields as sent, and what routes it."""

    id: JobId
    endpoint: Endpoint
    model: str
    """The name that the client sent, echoed in the response."""
    version: AdapterVersion
    """What runs it, resolved when the request was accepted."""
    sampling: SamplingParams
    created_s: int
    """Unix time."""
    deadline_ms: int
    """Milliseconds from enqueueing on."""
    cost: int
    """Estimated tokens, prompt and answers: what fairness charges and claims reserve."""
    reply_to: ApiId
    tenant: str = "default"
    priority: int = 0
    """Higher runs earlier; one step is worth 1,000 tokens of the fair tag."""
    messages: tuple[dict[str, Any], ...] | None = None
    """Chat only, as chat templates take them: texts in one piece, arguments of tools as objects."""
    prompts: tuple[Prompt, ...] = ()
    """Completions only."""
    echo: bool = False
    """Completions only: whether each choice's text begins with the prompt."""
    fingerprint: str = ""
    """Names base and adapter weights to clients, by their digests."""
    tools: ToolUse | None = None
    """Chat only: what the model may call."""

    @property
    def num_choices(self) -> int:
        """Choices over all prompts; those of prompt i are `i * n` to `i * n + n - 1`."""
        return self.sampling.n * max(1, len(self.prompts))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedJob:
    """A job that this worker owns until it finishes or releases it."""

    job: Job
    try_: int
    """Fencing token: counts claims of this job, from 1."""
    suspect: bool
    """Its last worker died holding it: it must run alone."""
    epoch: int = 0
    """Random: no other claim of any job has it, whatever Redis forgets. 0 stands for any."""
    left_ms: int = MAX_LEFT_MS
    """From the claim to the job's deadline."""
