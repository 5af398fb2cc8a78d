"""An engine on top of vLLM. vLLM computes the model; Lorikeet samples and manages adapters."""

import contextlib
import itertools
from typing import Any

import structlog
from vllm.lora.request import LoRARequest
from vllm.v1.engine import EngineCoreEventType
from vllm.v1.engine import FinishReason as EndReason

from shared.errors import AdapterRejected, ErrorCode, JobError
from shared.protocol.ids import AdapterVersion
from shared.protocol.results import FinishReason
from worker.engine.adapter_lru import CountedMemory
from worker.engine.interface import LEAST_RECENTLY_USED, EngineStats, EvictionOrder, Placing
from worker.engine.request import Request, RequestId, StepOutput
from worker.engine.rules import (
    STEP_FAILED,
    finish_reason,
    not_resident,
    prefix_key,
    reason_to_reject,
)
from worker.engine_vllm.adapters import VllmImage
from worker.engine_vllm.core import EngineCore
from worker.engine_vllm.requests import core_request, prompt_logprobs, token_logprobs
from worker.engine_vllm.scoring import ScoringRequests
from worker.engine_vllm.token_check import reason_not_allowed

log = structlog.get_logger()

OUTSIDE_VOCABULARY = JobError(
    code=ErrorCode.INTERNAL, message="the prompt has tokens outside the model's vocabulary"
)


_LINK = "https://errors.pydantic.dev"


class VllmEngine:
    """Runs requests in vLLM's engine core. vLLM schedules the requests.

    Each resident adapter has one of vLLM's slots, so vLLM never loads or evicts adapters in a step.
    Not thread-safe: all methods but `write_adapter` must be called from one thread.
    """

    def __init__(
        self, core: EngineCore, *, vocab_size: int, adapter_bytes: int, caches_prefixes: bool
    ) -> None:
        """Create an engine without adapters. Its adapter slots together take `adapter_bytes`."""
        self.core = core
        """vLLM's engine core."""
        self._vocab_size = vocab_size
        self._caches_prefixes = caches_prefixes
        self.max_model_len = core.max_model_len
        self._requests: dict[RequestId, Request] = {}
        """Requests that vLLM runs or queues."""
        self._rejected: list[StepOutput] = []
        self._scoring = ScoringRequests()
        self._memory = CountedMemory(adapter_bytes)
        self._loras: dict[AdapterVersion, LoRARequest] = {}
        """Adapters that vLLM has loaded."""
        self._lora_ids = itertools.count(1)
        self.num_failures_in_a_row = 0
        """Always 0, because vLLM's engine core ends if a step fails."""
        self._usage = 0.0
        """Used share of the KV cache, as of the latest step."""
        self._num_steps = self._num_tokens = self._num_cached_tokens = self._num_preemptions = 0

    @property
    def has_work(self) -> bool:
        """Whether a step would compute requests or return outputs."""
        return bool(self._requests or self._rejected or self._scoring.num_waiting)

    def add(self, request: Request) -> None:
        """Queue a request. If the request cannot run, the next step returns an error for it."""
        error = self._reason_to_reject(request)
        if error is not None:
            self._rejected.append(StepOutput(request_id=request.id, error=error))
        elif request.is_scoring:
            self._scoring.add(request)
        else:
            self._send(request)

    def abort(self, request_id: RequestId) -> None:
        """End a request. No output is returned for it. Unknown and finished ids are ignored."""
        for found in (request_id, *self._scoring.abort(request_id)):
            if self._requests.pop(found, None) is not None:
                self.core.abort([found])

    def step(self) -> list[StepOutput]:
        """Wait for vLLM's next step, and return its outputs; see `EngineCore.next_outputs`."""
        outputs, self._rejected = self._rejected, []
        for part in self._scoring.start():
            self._send(part)
        if outputs or not self._requests:
            return list(self._scoring.joined(outputs))
        step = self.core.next_outputs()
        self._num_steps += bool(step.outputs)  # vLLM also sends messages without outputs
        if step.scheduler_stats is not None:
            self._usage = step.scheduler_stats.kv_cache_usage
        for output in step.outputs:
            request = self._requests.get(output.request_id)
            if request is not None:
                outputs += self._update(request, output)
        return list(self._scoring.joined(outputs))

    def place(
        self,
        image: VllmImage,
        *,
        may_evict: bool = True,
        order: EvictionOrder = LEAST_RECENTLY_USED,
    ) -> Placing[VllmImage]:
        """Reserve a slot for an adapter; see `Engine.place`."""
        return self._memory.place(
            image, self._in_use, self.remove_adapter, may_evict=may_evict, order=order
        )

    def write_adapter(self, reserved: VllmImage, image: VllmImage) -> None:
        """Let vLLM load an adapter to its slot. Any thread may call this, even during steps.

        Raises:
            AdapterRejected: vLLM can't load the adapter.
        """
        # vLLM doesn't check that ids are unique. Adapters with equal names are equal to vLLM.
        lora = LoRARequest(
            lora_name=image.version,
            lora_int_id=next(self._lora_ids),
            lora_path=str(image.folder),
        )
        try:
            self.core.add_lora(lora)
        except Exception as error:  # vLLM raises the engine core's errors as plain exceptions
            # Part of it may be loaded, and would take a slot.
            with contextlib.suppress(Exception):
                self.core.remove_lora(lora.lora_int_id)
            raise AdapterRejected(f"vLLM can't load it: {last_line(error)}") from error
        self._loras[image.version] = lora

    def activate_adapter(self, reserved: VllmImage, image: VllmImage) -> None:
        """Make an adapter resident. Call this after `write_adapter` has returned."""
        self._memory.residents.add(image.version, image.weights_digest)

    def remove_adapter(self, version: AdapterVersion) -> None:
        """Free the memory of a resident or reserved adapter. Requests for it end with an error."""
        started = [request for request in self._requests.values() if request.version == version]
        for request in [*started, *self._scoring.remove(version)]:
            self.abort(request.id)
            self._rejected.append(StepOutput(request_id=request.id, error=not_resident(request)))
        self._memory.discard(version)
        lora = self._loras.pop(version, None)
        if lora is not None:
            self.core.remove_lora(lora.lora_int_id)

    def has_room(self, num_bytes: int) -> bool:
        """Estimate whether `num_bytes` would fit if all idle adapters were evicted."""
        return self._memory.has_room(num_bytes, self._in_use)

    def stats(self) -> EngineStats:
        """Return the engine's current counters and gauges."""
        num_running = min(len(self._requests), self.core.max_num_seqs)
        used = round(self._usage * self.core.num_blocks) if self._requests else 0
        return EngineStats(
            num_running=num_running,
            num_waiting=len(self._requests) - num_running + self._scoring.num_waiting,
            kv_blocks=self.core.num_blocks,
            kv_blocks_free=self.core.num_blocks - used,
            adapter_bytes=self._memory.num_bytes,
            num_steps=self._num_steps,
            num_preemptions=self._num_preemptions,
            num_cached_tokens=self._num_cached_tokens,
            num_tokens=self._num_tokens,
        )

    def _reason_to_reject(self, request: Request) -> JobError | None:
        if request.embedding is not None:
            return _not_served("embeddings")
        if request.sampling.logprob_token_ids and not request.is_scoring:
            return _not_served("logprob_token_ids")
        if not all(0 <= token < self._vocab_size for token in request.prompt_ids):
            return OUTSIDE_VOCABULARY
        return reason_to_reject(request, self._memory.residents, max_model_len=self.max_model_len)

    def _send(self, request: Request) -> None:
        version = request.version
        if version is not None:
            self._memory.residents.move_to_end(version)
        self.core.add(
            core_request(
                request,
                lora=None if version is None else self._loras[version],
                cache_salt=self._cache_salt(request),
            )
        )
        self._requests[request.id] = request

    def _cache_salt(self, request: Request) -> str | None:
        """Return a hash of the request's weights and tenant, like the native engine's cache key."""
        if not self._caches_prefixes:
            return None
        version, residents = request.version, self._memory.residents
        weights = "" if version is None else residents[version]
        return prefix_key(weights, request.tenant, request.cache_salt).hex()

    def _update(self, request: Request, output: Any) -> list[StepOutput]:
        """Return Lorikeet's outputs for `output`, which vLLM returned for a request in one step."""
        if output.finish_reason is EndReason.ABORT:  # vLLM got a signal to end
            self.core.lost()
            return []
        if output.prefill_stats is not None:
            request.num_cached_tokens = output.prefill_stats.num_cached_tokens
            self._num_cached_tokens += request.num_cached_tokens
        events = output.events or ()
        self._num_preemptions += sum(e.type is EngineCoreEventType.PREEMPTED for e in events)
        scores = None
        if output.new_prompt_logprobs_tensors is not None:
            scores = prompt_logprobs(output.new_prompt_logprobs_tensors, request)
        if request.max_tokens == 0 and output.new_token_ids:
            return [self._end(request, finish=FinishReason.LENGTH, prompt_logprobs=scores)]
        outputs = [self._append(request, token, output, scores) for token in output.new_token_ids]
        if request.id in self._requests and output.finished:  # for a reason of vLLM's own
            log.error("vllm_ended_a_request", request=request.id, reason=str(output.finish_reason))
            outputs.append(self._end(request, error=STEP_FAILED))
        return outputs

    def _append(self, request: Request, token: int, output: Any, scores: Any) -> StepOutput:
        """Add one token to a request, and return its output."""
        if (error := reason_not_allowed(request, token)) is not None:
            self.core.abort([request.id])
            return self._end(request, error=error)
        request.output_ids.append(token)
        self._num_tokens += 1
        finish = finish_reason(request, token, max_model_len=self.max_model_len)
        logprobs = output.new_logprobs
        fields: dict[str, Any] = {
            "token_id": token,
            "finish": finish,
            "logprobs": None if logprobs is None else token_logprobs(logprobs, request),
            "prompt_logprobs": scores,
            "num_cached_tokens": request.num_cached_tokens,
        }
        if finish is not None:
            return self._end(request, **fields)
        return StepOutput(request_id=request.id, **fields)

    def _end(self, request: Request, **fields: Any) -> StepOutput:
        del self._requests[request.id]
        return StepOutput(request_id=request.id, **fields)

    @property
    def _in_use(self) -> set[AdapterVersion | None]:
        return {request.version for request in self._requests.values()} | self._scoring.versions


def _not_served(what: str) -> JobError:
    """Return the error for a request that the pool's queue shouldn't have given to this worker."""
    return JobError(
        code=ErrorCode.UNSUPPORTED_PARAMETER,
        message=f"the vLLM engine doesn't serve {what}: start a worker with --engine native",
    )


def last_line(error: Exception) -> str:
    """Return the last line of an error's message, where vLLM states the reason.

    Pydantic's validation errors end with a line that has a link. That line is left out.
    """
    lines = [line.strip() for line in str(error).splitlines() if _LINK not in line]
    return next((line for line in reversed(lines) if line), type(error).__name__)
