"""One sequence that the engine computes, and what a step says about it."""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NewType

from shared.errors import JobError
from shared.protocol.ids import AdapterVersion
from shared.protocol.results import FinishReason
from worker.engine.grammar import GrammarState

RequestId = NewType("RequestId", str)
"""`job:choice`: one choice of one job."""


class RequestStatus(IntEnum):
    """Where a request is; ordered so that finished is one comparison."""

    WAITING = 0
    """Not started, or preempted: holds no KV blocks."""
    RUNNING = 1
    """Holds KV blocks and takes part in steps."""
    FINISHED = 2
    """Ended, failed or aborted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSampling:
    """How one sequence draws its tokens; a draw is a function of (seed, choice, position)."""

    seed: int
    choice: int = 0
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
    """Output tokens before one of the request's stop ids may be drawn."""
    logprobs: int | None = None
    """How many of the likeliest tokens are told with each token; None: nothing is told."""


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """How likely the model found a token, before bias, penalties and temperature."""

    logprob: float
    top: tuple[tuple[int, float], ...]
    """(token id, logprob) of the likeliest tokens, best first."""


@dataclass(slots=True, kw_only=True, eq=False)
class Request:
    """A prompt and the tokens drawn so far.

    `num_computed_tokens` catches up with `num_tokens`: that alone describes prefill, chunks,
    decode, recomputation after preemption and the resumption of a moved stream.
    """

    id: RequestId
    prompt_ids: list[int]
    version: AdapterVersion | None
    """None: the base model."""
    sampling: RowSampling
    max_tokens: int
    """Limit of output tokens, those that `output_ids` starts with included."""
    stop_ids: frozenset[int] = frozenset()
    """Tokens that end the sequence; they are still output."""
    grammar: GrammarState | None = None
    """What the output must follow, advanced by `output_ids`; None: any text."""
    tenant: str = ""
    """Requests of different tenants share no KV blocks."""
    output_ids: list[int] = field(default_factory=list)
    """On resumption it starts with what was already shown."""
    scores_prompt: bool = False
    """Whether the logprobs of the prompt's tokens are told with the first output token."""
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)
    """Of the prompt's tokens from the second on, as far as they are computed."""
    num_computed_tokens: int = 0
    """Tokens whose keys and values lie in the KV cache."""
    num_cached_tokens: int = 0
    """Those of them that other requests had computed."""
    block_table: list[int] = field(default_factory=list)
    cache_key: bytes | None = None
    """What its keys and values depend on besides its tokens; None: its blocks aren't shared."""
    block_hashes: list[bytes] = field(default_factory=list)
    """Of its full blocks, as far as they were asked for."""
    status: RequestStatus = RequestStatus.WAITING

    @property
    def num_tokens(self) -> int:
        """Prompt and output tokens so far."""
        return len(self.prompt_ids) + len(self.output_ids)

    @property
    def is_prefilling(self) -> bool:
        """Whether more than the last token is still to be computed."""
        return self.num_tokens - self.num_computed_tokens > 1

    @property
    def is_finished(self) -> bool:
        """Whether it takes part in no further step."""
        return self.status >= RequestStatus.FINISHED

    def token_ids(self, start: int, end: int) -> list[int]:
        """Tokens at positions `start` to `end - 1` of prompt and output."""
        num_prompt = len(self.prompt_ids)
        if end <= num_prompt:
            return self.prompt_ids[start:end]
        outputs = self.output_ids[max(start - num_prompt, 0) : end - num_prompt]
        return self.prompt_ids[start:] + outputs if start < num_prompt else outputs


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutput:
    """One request's part in a step: a new token, or the error that ended it."""

    request_id: RequestId
    token_id: int | None = None
    finish: FinishReason | None = None
    logprobs: TokenLogprobs | None = None
    prompt_logprobs: tuple[TokenLogprobs, ...] | None = None
    """With the first token, if the request asks for them; of all prompt tokens but the first."""
    error: JobError | None = None
    num_cached_tokens: int = 0
    """Of the request's tokens, those that weren't computed since it was last started."""
