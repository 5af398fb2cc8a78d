"""The part of a job that is needed to render its answer."""

from dataclasses import dataclass
from typing import Any

from shared.protocol.ids import AdapterVersion, JobId
from shared.protocol.jobs import Endpoint, Job, View
from shared.protocol.parameter_types import rendered_tools
from shared.protocol.tools import ToolUse
from shared.reasoning_form import ReasoningForm


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
    created_s: int
    """Unix time in seconds at which the front end received the request."""
    version: AdapterVersion
    """`weight_version` of the answer: version of the model that computes it."""
    fingerprint: str = ""
    """`system_fingerprint` of the answer."""
    has_logprobs: bool = False
    """Whether the answer reports log-probabilities."""
    has_prompt_scores: bool = False
    """Whether the answer reports scores of the prompts' tokens."""
    tools: ToolUse | None = None
    """Tools that the model may call, with only what `rendered_tools` keeps of them."""
    is_constrained: bool = False
    """Whether the answer must match a schema, regular expression, choice or grammar, unless it
    calls tools."""
    encodes_base64: bool = False
    """Whether the answer has embeddings as base64 instead of numbers."""
    include_usage: bool = False
    """Whether a stream ends with the token counts."""
    returns_token_ids: bool = False
    """Whether the answer has the token ids of prompts and choices."""
    continuous_usage: bool = False
    """Whether each chunk of a stream has the token counts so far."""
    service_tier: str | None = None
    """`service_tier` of the request. The answer repeats it."""
    view: View = View.OPENAI
    """API of the request, in whose format the answer is rendered."""
    request: dict[str, Any] | None = None
    """`Job.request`. Redis stores it in a field of its own, since it can be as large as a request.
    It is None in lists of jobs."""

    reasoning: ReasoningForm | None = None
    """Form of the reasoning that precedes answers; None if all text is content."""
    hides_reasoning: bool = False
    """Whether the reasoning is left out."""
    echoed: str = ""
    """Text with which the content of each answer begins."""

    @property
    def counts_tokens(self) -> bool:
        """Whether the answer depends on the tokens in addition to their text."""
        return self.returns_token_ids or self.continuous_usage

    @classmethod
    def of(cls, job: Job) -> "AnswerSpec":
        """Return the specification of a job's answer."""
        return cls(
            id=job.id,
            endpoint=job.endpoint,
            model=job.model,
            created_s=job.created_s,
            fingerprint=job.fingerprint,
            version=job.version,
            num_choices=job.num_choices,
            has_logprobs=job.sampling.logprobs is not None,
            has_prompt_scores=job.sampling.prompt_logprobs is not None,
            tools=rendered_tools(job.tools) if job.tools else None,
            is_constrained=job.sampling.is_constrained,
            encodes_base64=job.encodes_base64,
            include_usage=job.include_usage,
            returns_token_ids=job.returns_token_ids,
            continuous_usage=job.continuous_usage,
            service_tier=job.service_tier,
            reasoning=job.reasoning,
            hides_reasoning=job.hides_reasoning,
            echoed=job.echoed,
            view=job.view,
            request=job.request,
        )
