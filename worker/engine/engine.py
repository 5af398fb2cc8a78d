"""The synchronous engine: schedule, forward, sample, update; one list of outputs per step."""

import hashlib
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import structlog

from shared.errors import AdapterRejected, ErrorCode, JobError
from shared.protocol.ids import AdapterVersion
from shared.protocol.results import FinishReason
from worker.engine.adapter_lru import Residents, first_to_go
from worker.engine.block_manager import BlockManager
from worker.engine.config import EngineConfig
from worker.engine.grammar import TOO_COMPLEX
from worker.engine.model_runner import Computed, ModelRunner
from worker.engine.request import Request, RequestId, StepOutput, TokenLogprobs
from worker.engine.scheduler import Scheduler, step_size
from worker.lora.checkpoint.adapter import LoRAAdapter
from worker.lora.layers import LoRAContext
from worker.lora.memory.layout import AdapterImage, PoolLayout
from worker.lora.memory.pool import LoRAPool, Reserved
from worker.model.kv_cache import BLOCK_SIZE, KVCache, bytes_per_block
from worker.model.loader import LoadedModel

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """Where the engine stands."""

    num_running: int
    num_waiting: int
    kv_blocks: int
    kv_blocks_free: int
    adapter_bytes: int
    """Of adapters that are resident, or on their way to it."""
    num_steps: int
    num_preemptions: int
    num_cached_tokens: int
    """Tokens that weren't computed, as another request had the same prefix, since the start."""
    num_tokens: int
    """Output tokens since the start."""


@dataclass(frozen=True, slots=True)
class Placing:
    """What came of asking for adapter memory."""

    reserved: Reserved | None
    """None: adapters in use leave no room."""
    evicted: list[AdapterVersion]


class Engine:
    """Computes any number of requests for the base model and its resident adapters together.

    Not thread-safe: one thread owns it.
    """

    def __init__(self, loaded: LoadedModel, config: EngineConfig) -> None:
        num_blocks = config.kv_cache_bytes // bytes_per_block(loaded.kv_shapes, loaded.dtype)
        self.max_model_len = config.longest(loaded.max_model_len, num_blocks)
        self.base = loaded.base
        self._pool = LoRAPool(
            self.base, max_bytes=config.adapter_bytes, dtype=loaded.dtype, device=loaded.device
        )
        context = LoRAContext(loaded.kernels)
        for siblings in loaded.siblings:
            siblings.attach(self._pool, context, is_head=siblings.names == (self.base.head,))
        self._pool.side.attach(loaded.model, context.hook_of)
        cache = KVCache(loaded.kv_shapes, num_blocks, dtype=loaded.dtype, device=loaded.device)
        self._runner = ModelRunner(loaded, cache, self._pool, context)
        self._scheduler = Scheduler(
            BlockManager(num_blocks, BLOCK_SIZE),
            max_num_seqs=config.max_num_seqs,
            max_num_batched_tokens=config.max_num_batched_tokens,
        )
        self._rejected: list[StepOutput] = []
        self._residents = Residents()
        self._caches_prefixes = config.caches_prefixes
        self.num_failures_in_a_row = 0
        """Failed steps since the last good one: many mean that the device is broken."""
        self._num_steps = 0
        self._num_tokens = 0

    @property
    def layout(self) -> PoolLayout:
        """How adapters lie in its memory."""
        return self._pool.layout

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._scheduler.running or self._scheduler.waiting or self._rejected)

    def add(self, request: Request) -> None:
        """Queue a request; one that can't run gets its error in the next step's outputs."""
        error = self._reason_to_reject(request)
        if error is None:
            request.cache_key = self._cache_key(request)
            self._scheduler.add(request)
        else:
            self._rejected.append(StepOutput(request_id=request.id, error=error))

    def abort(self, request_id: RequestId) -> None:
        """End a request without an output; one that is unknown or finished is ignored."""
        request = self._scheduler.find(request_id)
        if request is not None:
            self._scheduler.finish(request)

    def place(
        self,
        image: AdapterImage,
        *,
        may_evict: bool = True,
        surplus: Collection[AdapterVersion] = (),
    ) -> Placing:
        """Reserve memory for an adapter, evicting the least recently used idle ones if need be.

        Those that are `surplus` go before all others. What follows is `write_adapter`, then
        `activate_adapter`; or `remove_adapter`.

        Raises:
            AdapterRejected: it is larger than all of the adapter memory.
        """
        self._check_size(image)
        evicted: list[AdapterVersion] = []
        while (reserved := self._pool.reserve(image)) is None:
            idle = self._idle()
            if not (may_evict and idle and self._would_fit(image.num_bytes, idle)):
                break
            victim = first_to_go(idle, surplus)
            self.remove_adapter(victim)
            evicted.append(victim)
        return Placing(reserved, evicted)

    def write_adapter(self, reserved: Reserved, image: AdapterImage) -> None:
        """Copy an adapter into its memory: the one method for any thread, as steps go on."""
        self._pool.write(reserved, image)

    def activate_adapter(self, reserved: Reserved, image: AdapterImage) -> None:
        """Make an adapter resident that is written."""
        self._pool.activate(reserved)
        self._residents.add(image.version, image.weights_digest)

    def add_adapter(self, adapter: LoRAAdapter) -> list[AdapterVersion]:
        """Make an adapter resident at once; for who has no steps to run meanwhile.

        Returns:
            The versions that were evicted.

        Raises:
            AdapterRejected: it doesn't fit into the adapter memory beside those in use.
        """
        if adapter.version in self._residents:
            return []
        image = self._pool.layout.image(adapter)
        placing = self.place(image)
        if placing.reserved is None:
            raise AdapterRejected(
                f"--adapter-memory-mb has no room for {adapter.version} beside the adapters in use"
            )
        self.write_adapter(placing.reserved, image)
        self.activate_adapter(placing.reserved, image)
        return placing.evicted

    def remove_adapter(self, version: AdapterVersion) -> None:
        """Free an adapter's memory, resident or reserved; its requests end with an error."""
        for request in [r for r in self._scheduler.requests if r.version == version]:
            self._scheduler.finish(request)
            self._rejected.append(StepOutput(request_id=request.id, error=_not_resident(request)))
        self._pool.remove(version)
        self._residents.discard(version)

    def step(self) -> list[StepOutput]:
        """Run one step and say what it brought; an error ends requests, never the engine."""
        outputs, self._rejected = self._rejected, []
        chunks = self._scheduler.schedule()
        if not chunks:
            return outputs
        self._num_steps += 1
        started_s = time.perf_counter()
        try:
            results = self._runner.run(chunks)
        except Exception:  # caught per step: it becomes an event for each request in it
            self.num_failures_in_a_row += 1
            log.exception("step_failed", requests=[chunk.request.id for chunk in chunks])
            return outputs + [self._fail(chunk.request, _STEP_FAILED) for chunk in chunks]
        self.num_failures_in_a_row = 0
        self._scheduler.pace.observe(step_size(chunks), (time.perf_counter() - started_s) * 1000)
        return outputs + self._update(results)

    def stats(self) -> EngineStats:
        """Where the engine stands now."""
        return EngineStats(
            num_running=len(self._scheduler.running),
            num_waiting=len(self._scheduler.waiting),
            kv_blocks=self._scheduler.blocks.num_blocks,
            kv_blocks_free=self._scheduler.blocks.num_free,
            adapter_bytes=self._pool.num_bytes,
            num_steps=self._num_steps,
            num_preemptions=self._scheduler.num_preemptions,
            num_cached_tokens=self._scheduler.num_cached_tokens,
            num_tokens=self._num_tokens,
        )

    def _update(self, results: Sequence[Computed]) -> list[StepOutput]:
        outputs = []
        for computed in results:
            request = computed.chunk.request
            request.num_computed_tokens = computed.chunk.end
            self._scheduler.blocks.remember(request, computed.chunk.start)
            if request.version is not None:
                self._residents.note_use(request.version)
            if computed.token is not None:
                outputs.append(self._append(request, computed.token, computed.logprobs))
        return outputs

    def _append(self, request: Request, token: int, logprobs: TokenLogprobs | None) -> StepOutput:
        if token < 0:
            return self._fail(request, TOO_COMPLEX if request.grammar else _NOT_FINITE)
        tells_prompt = request.scores_prompt and not request.output_ids
        request.output_ids.append(token)
        if request.grammar:
            request.grammar.advance(token)
        self._num_tokens += 1
        finish = self._finish_reason(request, token)
        if finish is not None:
            self._scheduler.finish(request)
        return StepOutput(
            request_id=request.id,
            token_id=token,
            finish=finish,
            logprobs=logprobs,
            prompt_logprobs=tuple(request.prompt_logprobs) if tells_prompt else None,
            num_cached_tokens=request.num_cached_tokens,
        )

    def _finish_reason(self, request: Request, token: int) -> FinishReason | None:
        if token in request.stop_ids:
            return FinishReason.STOP
        if (
            len(request.output_ids) >= request.max_tokens
            or request.num_tokens >= self.max_model_len
        ):
            return FinishReason.LENGTH
        return None

    def _fail(self, request: Request, error: JobError) -> StepOutput:
        self._scheduler.finish(request)
        return StepOutput(request_id=request.id, error=error)

    def _reason_to_reject(self, request: Request) -> JobError | None:
        if request.version is not None and request.version not in self._residents:
            return _not_resident(request)
        if request.num_tokens >= self.max_model_len:
            return JobError(
                code=ErrorCode.CONTEXT_LENGTH_EXCEEDED,
                message=f"{request.num_tokens} tokens don't fit into {self.max_model_len}",
            )
        return None

    def _cache_key(self, request: Request) -> bytes | None:
        """Weights and tenant: what else is in a prefix are its tokens.

        A request that wants its prompt's logprobs must compute all of it, and is left out.
        """
        if not self._caches_prefixes or request.scores_prompt:
            return None
        weights = "" if request.version is None else self._residents.weights_digest(request.version)
        return hashlib.sha256(f"{weights}\0{request.tenant}".encode()).digest()

    def has_room(self, num_bytes: int) -> bool:
        """Whether an adapter of so many bytes would find memory beside those in use, about."""
        return self._would_fit(num_bytes, self._idle())

    def _would_fit(self, num_bytes: int, idle: Sequence[AdapterVersion]) -> bool:
        free = self._pool.max_bytes - self._pool.num_bytes
        return free + sum(map(self._pool.bytes_of, idle)) >= num_bytes

    def _idle(self) -> list[AdapterVersion]:
        """Resident adapters that no request uses, the least recently used first."""
        in_use = {request.version for request in self._scheduler.requests}
        return [version for version in self._residents if version not in in_use]

    def _check_size(self, image: AdapterImage) -> None:
        if image.num_bytes > self._pool.max_bytes:
            raise AdapterRejected(
                f"adapter {image.version} takes {image.num_bytes} bytes, and all of "
                f"--adapter-memory-mb is {self._pool.max_bytes}"
            )


_STEP_FAILED = JobError(code=ErrorCode.INTERNAL, message="the engine step failed; see the log")
_NOT_FINITE = JobError(code=ErrorCode.INTERNAL, message="the model gave no finite logits")


def _not_resident(request: Request) -> JobError:
    return JobError(
        code=ErrorCode.ADAPTER_UNAVAILABLE, message=f"adapter {request.version} isn't resident"
    )
