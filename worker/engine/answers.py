"""Appends a step's sampled tokens, accepted draft tokens and forced tokens to requests."""

from dataclasses import KW_ONLY, dataclass

from shared.errors import ErrorCode, JobError
from shared.protocol.results import FinishReason
from worker.engine.grammar import TOO_COMPLEX
from worker.engine.logits import forbidden_tokens
from worker.engine.model_runner import Computed, Sample
from worker.engine.request import Request, StepOutput
from worker.engine.rules import NO_TOKEN_LEFT, finish_reason, is_restricted
from worker.engine.scheduler import Scheduler

MAX_FORCED = 64
"""Maximum number of forced tokens after a step. They lengthen the next step for all requests."""
_NOT_FINITE = JobError(code=ErrorCode.INTERNAL, message="the model gave no finite logits")


@dataclass(slots=True, eq=False)
class Answers:
    """Appends sampled, accepted and forced tokens to requests, and ends them."""

    scheduler: Scheduler
    _: KW_ONLY
    max_model_len: int
    vocab_size: int
    """Number of logits per sampled token."""
    forces_tokens: bool
    """Whether a token is appended without a step if the grammar allows no other token."""
    num_tokens: int = 0
    """Number of output tokens of all requests so far."""
    num_forced_tokens: int = 0
    """Number of these output tokens that were forced."""
    num_accepted_tokens: int = 0
    """Number of these output tokens that were accepted draft tokens."""

    def extend(self, computed: Computed) -> list[StepOutput]:
        """Append the tokens computed by one chunk to the chunk's request.

        Return the request's outputs in order. Draft tokens are accepted up to the first that
        differs from the sampled token. Later steps overwrite the keys and values of the other draft
        tokens. Completed blocks enter the scheduler's prefix cache, and a request that ends leaves
        the scheduler.
        """
        request, drafted = computed.chunk.request, computed.chunk.draft.token_ids
        outputs = [self._append_sample(request, computed.samples[0])]
        for token, sample in zip(drafted, computed.samples[1:], strict=True):
            if request.is_finished or request.output_ids[-1] != token:
                break
            self.num_accepted_tokens += 1
            request.num_computed_tokens += 1
            self.scheduler.blocks.publish(request, request.num_computed_tokens - 1)
            outputs.append(self._append_sample(request, sample))
        if drafted and request.lookup:
            request.lookup.record(len(drafted), len(outputs) - 1)
        forced = self._force(request) if self.forces_tokens else []
        request.num_new_tokens = 1 + len(forced)
        return outputs + forced

    def fail(self, request: Request, error: JobError) -> StepOutput:
        """End a request with an error."""
        self.scheduler.finish(request)
        return StepOutput(request_id=request.id, error=error)

    def _force(self, request: Request) -> list[StepOutput]:
        """Append the tokens that the grammar forces."""
        outputs: list[StepOutput] = []
        while not request.is_finished and len(outputs) < MAX_FORCED:
            token = forced_token(request, self.vocab_size)
            if token is None:
                break
            self.num_forced_tokens += 1
            outputs.append(self._append(request, Sample(token)))
        return outputs

    def _append_sample(self, request: Request, sample: Sample) -> StepOutput:
        if sample.token < 0:
            return self.fail(request, _no_token_error(request))
        if request.max_tokens == 0:  # the token only shows that the logits are finite
            return self._end_without_token(request)
        return self._append(request, sample)

    def _append(self, request: Request, sample: Sample) -> StepOutput:
        reports_prompt = request.scores_prompt and not request.output_ids
        request.output_ids.append(sample.token)
        if request.grammar:
            request.grammar.advance(sample.token)
        self.num_tokens += 1
        num_cached_tokens = request.num_cached_tokens  # `finish` sets it to 0
        finish = finish_reason(request, sample.token, max_model_len=self.max_model_len)
        if finish is not None:
            self.scheduler.finish(request)
        return StepOutput(
            request_id=request.id,
            token_id=sample.token,
            finish=finish,
            logprobs=sample.logprobs,
            prompt_logprobs=tuple(request.prompt_logprobs) if reports_prompt else None,
            num_cached_tokens=num_cached_tokens,
        )

    def _end_without_token(self, request: Request) -> StepOutput:
        self.scheduler.finish(request)
        return StepOutput(
            request_id=request.id,
            finish=FinishReason.LENGTH,
            prompt_logprobs=tuple(request.prompt_logprobs) if request.scores_prompt else None,
        )


def forced_token(request: Request, vocab_size: int) -> int | None:
    """Return the next token if the grammar allows only one; None if the token must be sampled.

    Log-probabilities need the model's logits, so tokens of requests that report them are sampled.
    If the request forbids the token, the result is also None, and the sampler ends the request.
    """
    sampling = request.sampling
    if request.grammar is None or sampling.logprobs is not None:
        return None
    token = request.grammar.only_token()
    if token is None or token >= vocab_size or token in forbidden_tokens(request):
        return None
    if sampling.allowed_token_ids and token not in sampling.allowed_token_ids:
        return None
    return token


def _no_token_error(request: Request) -> JobError:
    """Return the error of a request for which no token could be sampled."""
    if is_restricted(request):
        return NO_TOKEN_LEFT
    return TOO_COMPLEX if request.grammar else _NOT_FINITE
