"""The part of a job that is needed to render its answer."""

from dataclasses import dataclass, replace

from shared.protocol.ids import JobId
from shared.protocol.jobs import Endpoint, Job
from shared.protocol.tools import ToolUse


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSpec:
    """Properties of a job that determine the format of its answer.

    Redis keeps the specification as long as the job's record, so that every front end can render
    the answer. The request itself is deleted when the job ends.
    """

    id: JobId
    endpoint: Endpoint
    model: str
    """Model name that the client sent. The answer repeats it."""
    num_choices: int
    created_s: int = 0
    """Unix time in seconds at which the front end received the request."""
    fingerprint: str = ""
    """`system_fingerprint` of the answer."""
    has_logprobs: bool = False
    """Whether the answer reports log-probabilities."""
    tools: ToolUse | None = None
    """Tools that the model may call, with their names only."""
    include_usage: bool = False
    """Whether a stream ends with the token counts."""
    service_tier: str | None = None
    """`service_tier` of the request. The answer repeats it."""

    @classmethod
    def of(cls, job: Job) -> "AnswerSpec":
        """Return the specification of a job's answer."""
        return cls(
            id=job.id,
            endpoint=job.endpoint,
            model=job.model,
            created_s=job.created_s,
            fingerprint=job.fingerprint,
            num_choices=job.num_choices,
            has_logprobs=job.sampling.logprobs is not None,
            tools=_names_only(job.tools) if job.tools else None,
            include_usage=job.include_usage,
            service_tier=job.service_tier,
        )


def _names_only(use: ToolUse) -> ToolUse:
    tools = tuple({"type": "function", "function": {"name": name}} for name in sorted(use.names))
    return replace(use, tools=tools)
