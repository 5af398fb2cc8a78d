"""The part of a job that front ends need to render its answer."""

from dataclasses import dataclass, fields

from shared.protocol.jobs import AnswerFormat, Job
from shared.protocol.parameter_types import rendered_tools
from shared.protocol.tools import ToolUse


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSpec(AnswerFormat):
    """The specification of an answer: the properties of its job that determine its format.

    Redis keeps the specification as long as the job's record, so that every front end can render
    the answer. The request itself is deleted when the job ends.
    """

    num_choices: int
    has_logprobs: bool = False
    """Whether the answer reports log-probabilities."""
    has_prompt_scores: bool = False
    """Whether the answer reports scores of the prompts' tokens."""
    tools: ToolUse | None = None
    """Tools that the model may call, in the form that `rendered_tools` returns; None without
    tools."""
    is_constrained: bool = False
    """Whether the answer must match a schema, regular expression, choice or grammar, unless it
    calls tools."""

    @property
    def counts_tokens(self) -> bool:
        """Whether the answer contains token ids or token counts, in addition to text."""
        return self.returns_token_ids or self.continuous_usage

    @classmethod
    def of(cls, job: Job) -> "AnswerSpec":
        """Return the specification of a job's answer."""
        return cls(
            **{field.name: getattr(job, field.name) for field in fields(AnswerFormat)},
            num_choices=job.num_choices,
            has_logprobs=job.sampling.logprobs is not None,
            has_prompt_scores=job.sampling.prompt_logprobs is not None,
            tools=rendered_tools(job.tools) if job.tools else None,
            is_constrained=job.sampling.is_constrained,
        )
