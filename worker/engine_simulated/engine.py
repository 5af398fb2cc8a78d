"""Simulated engine without a model. A step waits for a fixed time and returns hashes as tokens."""

import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import structlog

from shared.protocol.ids import AdapterVersion
from shared.protocol.results import FinishReason
from worker.engine.adapter_lru import CountedMemory
from worker.engine.interface import LEAST_RECENTLY_USED, EngineStats, EvictionOrder, Placing
from worker.engine.request import Request, RequestId, StepOutput, TokenLogprobs
from worker.engine.rules import STEP_FAILED, finish_reason, not_resident, reason_to_reject
from worker.engine_simulated.adapters import SimulatedAdapter
from worker.engine_simulated.tokens import (
    END_ID,
    State,
    Step,
    first_state,
    next_step,
    resume_state,
)

log = structlog.get_logger()


@dataclass(slots=True)
class _Running:
    """A request that takes part in steps."""

    request: Request
    history: State


class SimulatedEngine:
    """Adds one token to each running request in each step. A step takes a fixed time.

    Sampling parameters other than the seed have no effect on the tokens.
    """

    def __init__(
        self,
        base: AdapterVersion,
        *,
        max_num_seqs: int,
        max_model_len: int,
        adapter_bytes: int,
        step_s: float,
        answer_tokens: int | None = None,
    ) -> None:
        """Create an engine without adapters.

        A step takes `step_s` seconds. Answers that may end do so after `answer_tokens` tokens. If
        this is None, each token is the last one with a small probability.
        """
        self._base = base
        self._max_num_seqs = max_num_seqs
        self._max_model_len = max_model_len
        self._step_s = step_s
        self._answer_tokens = answer_tokens
        self._running: dict[RequestId, _Running] = {}
        self._waiting: deque[Request] = deque()
        self._rejected: list[StepOutput] = []
        self._memory = CountedMemory(adapter_bytes)
        self._hangs = False
        self.num_failures_in_a_row = 0
        self._num_steps = 0
        self._num_tokens = 0

    @property
    def has_work(self) -> bool:
        """Whether a step would compute requests or return outputs."""
        return bool(self._running or self._waiting or self._rejected)

    def add(self, request: Request) -> None:
        """Queue a request. If the request cannot run, the next step returns an error for it."""
        error = reason_to_reject(request, self._memory.residents, max_model_len=self._max_model_len)
        if error:
            self._rejected.append(StepOutput(request_id=request.id, error=error))
        else:
            self._waiting.append(request)

    def abort(self, request_id: RequestId) -> None:
        """End a request. No output is returned for it. Unknown and finished ids are ignored."""
        if self._running.pop(request_id, None) is None:
            self._waiting = deque(r for r in self._waiting if r.id != request_id)

    def hang(self) -> None:
        """Make the next step with work block for ever, as if the engine hung.

        Any thread may call this.
        """
        self._hangs = True

    def step(self) -> list[StepOutput]:
        """See `Engine.step`."""
        outputs, self._rejected = self._rejected, []
        if not self._running and not self._waiting:
            return outputs
        if self._hangs:
            threading.Event().wait()
        self._num_steps += 1
        time.sleep(self._step_s)  # also if 0, so that other threads get the interpreter
        try:
            self._start_waiting()
            outputs += [self._advance(running) for running in list(self._running.values())]
        except Exception:  # per step: it becomes an error of each request in the step
            self.num_failures_in_a_row += 1
            log.exception("step_failed", requests=list(self._running))
            outputs += [StepOutput(request_id=id_, error=STEP_FAILED) for id_ in self._running]
            self._running.clear()
            return outputs
        self.num_failures_in_a_row = 0
        return outputs

    def place(
        self,
        image: SimulatedAdapter,
        *,
        may_evict: bool = True,
        order: EvictionOrder = LEAST_RECENTLY_USED,
    ) -> Placing[SimulatedAdapter]:
        """Reserve memory for an adapter; see `Engine.place`."""
        return self._memory.place(
            image, self._in_use, self.remove_adapter, may_evict=may_evict, order=order
        )

    def write_adapter(self, reserved: SimulatedAdapter, image: SimulatedAdapter) -> None:
        """Do nothing, because adapters have no weights."""

    def activate_adapter(self, reserved: SimulatedAdapter, image: SimulatedAdapter) -> None:
        """Make an adapter resident."""
        self._memory.residents.add(image.version, image.weights_digest)

    def remove_adapter(self, version: AdapterVersion) -> None:
        """Free the memory of a resident or reserved adapter. Requests for it end with an error."""
        for request in [r for r in self._requests if r.version == version]:
            self.abort(request.id)
            self._rejected.append(StepOutput(request_id=request.id, error=not_resident(request)))
        self._memory.discard(version)

    def has_room(self, num_bytes: int) -> bool:
        """Estimate whether `num_bytes` would fit if all idle adapters were evicted."""
        return self._memory.has_room(num_bytes, self._in_use)

    def stats(self) -> EngineStats:
        """See `Engine.stats`. Each sequence has one KV block, whatever its length."""
        return EngineStats(
            num_running=len(self._running),
            num_waiting=len(self._waiting),
            kv_blocks=self._max_num_seqs,
            kv_blocks_free=self._max_num_seqs - len(self._running),
            adapter_bytes=self._memory.num_bytes,
            num_steps=self._num_steps,
            num_preemptions=0,
            num_cached_tokens=0,
            num_tokens=self._num_tokens,
        )

    @property
    def _requests(self) -> Iterator[Request]:
        yield from (running.request for running in self._running.values())
        yield from self._waiting

    @property
    def _in_use(self) -> set[AdapterVersion | None]:
        return {request.version for request in self._requests}

    def _start_waiting(self) -> None:
        while self._waiting and len(self._running) < self._max_num_seqs:
            request = self._waiting.popleft()
            running = self._running[request.id] = _Running(request, State(b""))
            sampling, version = request.sampling, request.version or self._base
            first = first_state(
                version, request.prompt_ids, seed=sampling.seed, choice=sampling.choice
            )
            running.history = resume_state(first, request.output_ids)

    def _ends(self, request: Request, step: Step) -> bool:
        num_tokens = len(request.output_ids)
        if END_ID not in request.stop_ids or num_tokens < request.sampling.min_tokens:
            return False
        return step.is_last if self._answer_tokens is None else num_tokens >= self._answer_tokens

    def _advance(self, running: _Running) -> StepOutput:
        request = running.request
        if request.version is not None:
            self._memory.residents.move_to_end(request.version)
        if request.max_tokens == 0:
            return self._end_without_token(request)
        step = next_step(running.history, request.claim_epoch)
        token_id = END_ID if self._ends(request, step) else step.token_id
        running.history = step.state
        reports_prompt = request.scores_prompt and not request.output_ids
        request.output_ids.append(token_id)
        self._num_tokens += 1
        finish = finish_reason(request, token_id, max_model_len=self._max_model_len)
        if finish is not None:
            del self._running[request.id]
        return StepOutput(
            request_id=request.id,
            token_id=token_id,
            finish=finish,
            logprobs=_logprobs(request, token_id),
            prompt_logprobs=_prompt_logprobs(request) if reports_prompt else None,
        )

    def _end_without_token(self, request: Request) -> StepOutput:
        del self._running[request.id]
        return StepOutput(
            request_id=request.id,
            finish=FinishReason.LENGTH,
            prompt_logprobs=_prompt_logprobs(request) if request.scores_prompt else None,
        )


def _logprobs(request: Request, token_id: int) -> TokenLogprobs | None:
    """Return log-probabilities with 0.0 for the sampled token and `_IMPOSSIBLE` for others.

    Return None if the request asks for none.
    """
    num_top, ids = request.sampling.logprobs, request.sampling.logprob_token_ids
    if num_top is None:
        return None
    others = [(other, _IMPOSSIBLE) for other in dict.fromkeys(ids) if other != token_id]
    return TokenLogprobs(0.0, ((token_id, 0.0),)[: 1 if ids else num_top] + tuple(others))


def _prompt_logprobs(request: Request) -> tuple[TokenLogprobs, ...]:
    return tuple(TokenLogprobs(0.0, (), rank=1) for _ in request.prompt_ids[1:])


_IMPOSSIBLE = -9999.0
"""Log-probability of a token that is never sampled."""
