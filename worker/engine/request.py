"""The engine's requests, and the outputs that a step returns for requests."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, NewType, Protocol

from shared.errors import JobError
from shared.protocol.embeddings import EmbeddingParams
from shared.protocol.ids import AdapterVersion
from shared.protocol.results import FinishReason
from shared.protocol.sampling import TokenSampling
from worker.engine.speculation.lookup import PromptLookup

if TYPE_CHECKING:  # simulated workers have neither torch nor llguidance
    from torch import Tensor

    from worker.engine.grammar import GrammarState

RequestId = NewType("RequestId", str)
"""`job:claim epoch:choice`: identifies one choice of one claimed job."""


class RequestStatus(IntEnum):
    """State of a request. The order lets `Request.is_finished` use a single comparison."""

    WAITING = 0
    """The request has not started yet or was preempted. It has no KV blocks."""
    RUNNING = 1
    """The request has KV blocks and takes part in steps."""
    FINISHED = 2
    """The request ended, failed or was aborted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceSampling(TokenSampling):
    """Sampling parameters of one choice."""

    choice: int = 0
    """Index of the choice among the choices of the same prompt."""
    bad_words: tuple[tuple[int, ...], ...] = ()
    """Sequences of tokens that the output never contains."""


class AllowedTokens(Protocol):
    """The part of a grammar's state that the sampler reads."""

    def allowed(self) -> bytes:
        """Return a bitmask of the tokens that may come next; see `GrammarState.allowed`."""


class SampledRow(Protocol):
    """The part of a request that the sampler reads."""

    @property
    def sampling(self) -> ChoiceSampling:
        """Sampling parameters."""

    @property
    def prompt_ids(self) -> Sequence[int]:
        """Tokens of the prompt."""

    @property
    def output_ids(self) -> Sequence[int]:
        """Output tokens so far. Their number is the position of the next one."""

    @property
    def stop_ids(self) -> Collection[int]:
        """Tokens that end the sequence."""

    @property
    def grammar(self) -> AllowedTokens | None:
        """Grammar state of the output so far; None allows any text."""


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Log-probabilities of a token and of the likeliest tokens at its position.

    Grammar, bias, penalties and temperature don't affect them.
    """

    logprob: float
    top: tuple[tuple[int, float], ...]
    """(token id, log-probability) of the likeliest tokens, likeliest first. If the request has
    `logprob_token_ids`, the output token and the tokens of that list take their place."""
    rank: int | None = None
    """Number of tokens that are at least as likely as the token; None if it wasn't asked for."""


@dataclass(slots=True, kw_only=True, eq=False)
class Request:
    """A prompt and its output tokens so far.

    Each step raises `num_computed_tokens` towards `num_tokens`. This covers prefill, chunked
    prefill, decode, recomputation after a preemption, and the resumption of a stream on another
    worker.
    """

    id: RequestId
    prompt_ids: list[int]
    version: AdapterVersion | None
    """Adapter version; None selects the base model."""
    sampling: ChoiceSampling
    max_tokens: int
    """Maximum number of output tokens, including those of earlier workers.

    0 to run only the prompt."""
    stop_ids: frozenset[int] = frozenset()
    """Tokens that end the sequence. They are part of the output."""
    grammar: "GrammarState | None" = None
    """Grammar state of the output so far; None allows any text."""
    images: object | None = None
    """The prompt's images in the engine's form; None if there are none."""
    claim_epoch: int = 0
    """Epoch of the claim under which the request runs. Only simulated tokens depend on it."""
    tenant: str = ""
    """Tenant of the request. Requests of different tenants share no KV blocks."""
    cache_salt: str = ""
    """Text that the client chose. Requests with different texts share no KV blocks."""
    is_preemptible: bool = False
    """Whether requests without this flag start first, and may take this request's KV blocks."""
    output_ids: list[int] = field(default_factory=list)
    """Output tokens. A resumed request starts with the tokens that another worker has published."""
    scores_prompt: bool = False
    """Whether log-probabilities of the prompt's tokens are reported with the first output."""
    is_scoring: bool = False
    """Whether only log-probabilities are needed. The request outputs at most one token."""
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)
    """Log-probabilities of the prompt's tokens computed so far, from the second token on."""
    embedding: EmbeddingParams | None = None
    """How to compute the prompt's embedding. If set, the request outputs it instead of tokens."""
    pooled: "Tensor | None" = None
    """`[H]` float64: sum of the hidden states that the embedding needs, so far."""
    num_pooled_tokens: int = 0
    """Position after the last token whose hidden state was added to `pooled`; 0 at first."""
    num_computed_tokens: int = 0
    """Number of tokens whose keys and values are in the KV cache."""
    num_new_tokens: int = 1
    """Number of tokens that the latest step appended to the output.

    Their keys and values are computed by a later step."""
    num_cached_tokens: int = 0
    """Number of computed tokens whose keys and values were reused from shared blocks."""
    block_table: list[int] = field(default_factory=list)
    """KV blocks, in the order of the tokens."""
    state_slot: int = 0
    """Slot of the request's recurrent states. 0 if the request has no slot."""
    state_source: int = 0
    """Slot with the states after the computed tokens: the request's own one, or a snapshot.

    0 before the first token."""
    snapshot_at: int = 0
    """Number of first tokens after which the states should be kept for other requests."""
    last_snapshot: bytes | None = None
    """Hash of the block after which the states were kept last, if it ends in the output."""
    cache_key: bytes | None = None
    """Hash of weights, tenant and salt; None if the request shares no blocks.

    Requests with equal hashes share blocks."""
    block_hashes: list[bytes] = field(default_factory=list)
    """Hashes of the request's full blocks, in order. Further hashes are appended when needed."""
    lookup: PromptLookup | None = None
    """Proposes tokens of the output; None until the first proposal."""
    status: RequestStatus = RequestStatus.WAITING

    @property
    def num_tokens(self) -> int:
        """Number of prompt and output tokens so far."""
        return len(self.prompt_ids) + len(self.output_ids)

    @property
    def is_prefilling(self) -> bool:
        """Whether any token before the last `num_new_tokens` tokens still has to be computed."""
        return self.num_tokens - self.num_computed_tokens > self.num_new_tokens

    @property
    def is_finished(self) -> bool:
        """Whether the request has ended, failed or been aborted."""
        return self.status >= RequestStatus.FINISHED

    def token_ids(self, start: int, end: int) -> list[int]:
        """Return tokens `start` to `end - 1` of the prompt followed by the output."""
        num_prompt = len(self.prompt_ids)
        if end <= num_prompt:
            return self.prompt_ids[start:end]
        outputs = self.output_ids[max(start - num_prompt, 0) : end - num_prompt]
        return self.prompt_ids[start:] + outputs if start < num_prompt else outputs


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutput:
    """A step's result for one request: a new token, an embedding, or the error that ended it.

    For a request with `max_tokens` 0, the only output has no token, embedding or error, and ends
    the request.
    """

    request_id: RequestId
    token_id: int | None = None
    finish: FinishReason | None = None
    logprobs: TokenLogprobs | None = None
    prompt_logprobs: tuple[TokenLogprobs, ...] | None = None
    """Log-probabilities of a scored prompt's tokens from the second on, in the first output."""
    error: JobError | None = None
    embedding: bytes | None = None
    """The embedding that the request asked for, as little-endian float32. It ends the request."""
    num_cached_tokens: int = 0
    """Number of tokens reused from the prefix cache since the request last started or resumed."""
