"""The synchronous engine. A step schedules requests, runs the model and samples tokens."""

import time
from collections.abc import Sequence

from shared.errors import AdapterRejected, ErrorCode, JobError
from shared.protocol.embeddings import Pooling
from shared.protocol.ids import AdapterVersion
from shared.protocol.results import FinishReason
from worker.engine.adapter_lru import AdapterLRU, version_to_evict
from worker.engine.answers import Answers
from worker.engine.block_manager import BlockManager
from worker.engine.config import EngineConfig
from worker.engine.drafter import Drafter
from worker.engine.interface import LEAST_RECENTLY_USED, EngineStats, EvictionOrder, Placing
from worker.engine.model_runner import ModelRunner, StepResult, StepRunner
from worker.engine.request import Request, RequestId, StepOutput
from worker.engine.rules import check_size, not_resident, prefix_key, reason_to_reject
from worker.engine.scheduler import Scheduler, step_size
from worker.lora.batch import BatchCache
from worker.lora.checkpoint.adapter import LoRAAdapter
from worker.lora.expert_layers import attach_experts
from worker.lora.layers import LoRAContext
from worker.lora.memory.layout import AdapterImage, PoolLayout
from worker.lora.memory.pool import LoRAPool, Reserved
from worker.model.kv_cache import BLOCK_SIZE, KVCache
from worker.model.loader import LoadedModel
from worker.model.recurrent import StatePool


class NativeEngine:
    """Computes requests for the base model and its resident adapters in shared batches.

    Not thread-safe: all methods but `write_adapter` must be called from one thread.
    """

    def __init__(self, loaded: LoadedModel, config: EngineConfig) -> None:
        self.cache_size = size = config.cache_size(loaded.cache, loaded.max_model_len)
        self.max_model_len = config.longest(loaded.max_model_len, size.num_blocks)
        self.base = loaded.base
        self._pool = LoRAPool(
            self.base, max_bytes=config.adapter_bytes, dtype=loaded.dtype, device=loaded.device
        )
        context = LoRAContext(loaded.kernels, BatchCache(self._pool))
        for siblings in loaded.siblings:
            siblings.attach(self._pool, context, is_head=siblings.names == (self.base.head,))
        self._pool.side.attach(loaded.model, context.hook_of)
        attach_experts(loaded.model, self.base.experts.values(), self._pool, context)
        cache = KVCache(loaded.cache.kv, size.num_blocks, dtype=loaded.dtype, device=loaded.device)
        states = None
        if size.num_slots:
            num_states = size.num_slots + size.num_snapshots
            states = StatePool(loaded.cache.states, num_states, loaded.device)
        self._states = states
        self._runner = ModelRunner(loaded, cache, context, states)
        self._steps = StepRunner(
            self._runner, loaded.device, max_tokens=config.max_num_batched_tokens
        )
        self._scheduler = Scheduler(
            BlockManager(size.num_blocks, BLOCK_SIZE, size.num_slots, size.num_snapshots),
            max_num_seqs=config.max_num_seqs,
            max_num_batched_tokens=config.max_num_batched_tokens,
        )
        self._answers = Answers(
            self._scheduler,
            max_model_len=self.max_model_len,
            vocab_size=loaded.config.vocab_size,
            forces_tokens=config.forces_tokens,
        )
        # A rejected draft token would already have changed its request's states.
        looks_up = config.looks_up_tokens and states is None
        self._drafter = Drafter(
            self._scheduler.blocks,
            max_model_len=self.max_model_len,
            max_rows=config.max_num_batched_tokens if looks_up else 0,
        )
        self._rejected: list[StepOutput] = []
        self._residents = AdapterLRU()
        self._caches_prefixes = config.caches_prefixes
        self.num_failures_in_a_row = 0
        """Number of steps that failed since the last successful one."""
        self._num_steps = 0

    @property
    def layout(self) -> PoolLayout:
        """Layout of adapters in the engine's adapter memory."""
        return self._pool.layout

    @property
    def has_work(self) -> bool:
        """Whether a step would compute requests or return outputs."""
        scheduler = self._scheduler
        return bool(scheduler.running or scheduler.num_waiting or self._rejected)

    def add(self, request: Request) -> None:
        """Queue a request. If the request cannot run, the next step returns an error for it."""
        error = reason_to_reject(request, self._residents, max_model_len=self.max_model_len)
        if error is None:
            request.cache_key = self._cache_key(request)
            self._scheduler.add(request)
        else:
            self._rejected.append(StepOutput(request_id=request.id, error=error))

    def abort(self, request_id: RequestId) -> None:
        """End a request. No output is returned for it. Unknown and finished ids are ignored."""
        request = self._scheduler.find(request_id)
        if request is not None:
            self._scheduler.finish(request)

    def place(
        self,
        image: AdapterImage,
        *,
        may_evict: bool = True,
        order: EvictionOrder = LEAST_RECENTLY_USED,
    ) -> Placing[Reserved]:
        """See `Engine.place`."""
        check_size(image, max_bytes=self._pool.max_bytes)
        evicted: list[AdapterVersion] = []
        while (reserved := self._pool.reserve(image)) is None:
            idle = self._idle()
            if not (may_evict and idle and self._would_fit(image.num_bytes, idle)):
                break
            victim = version_to_evict(idle, order)
            self.remove_adapter(victim)
            evicted.append(victim)
        return Placing(reserved, evicted)

    def write_adapter(self, reserved: Reserved, image: AdapterImage) -> None:
        """Copy an adapter to its reserved memory. Any thread may call this, even during steps."""
        self._pool.write(reserved, image)

    def activate_adapter(self, reserved: Reserved, image: AdapterImage) -> None:
        """Make an adapter resident. Call this after `write_adapter` has returned."""
        self._pool.activate(reserved)
        self._residents.add(image.version, image.weights_digest)

    def add_adapter(self, adapter: LoRAAdapter) -> list[AdapterVersion]:
        """Place, write and activate an adapter between steps. Return the evicted versions.

        Raises:
            AdapterRejected: the adapters in use leave too little memory for the adapter.
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
        """Free the memory of a resident or reserved adapter. Requests for it end with an error."""
        for request in [r for r in self._scheduler.requests if r.version == version]:
            self._scheduler.finish(request)
            self._rejected.append(StepOutput(request_id=request.id, error=not_resident(request)))
        self._pool.remove(version)
        self._residents.discard(version)

    def step(self) -> list[StepOutput]:
        """Run one step; see `Engine.step`. A step that runs out of memory is computed in parts."""
        outputs, self._rejected = self._rejected, []
        chunks = self._drafter.extend(self._scheduler.schedule())
        if not chunks:
            return outputs
        self._num_steps += 1
        num_out_of_memory = self._steps.num_out_of_memory
        size = step_size(chunks)
        started_s = time.perf_counter()
        result = self._steps.run(chunks)
        ms = (time.perf_counter() - started_s) * 1000
        # Lost requests are computed again in smaller passes, until a pass of one token fails.
        has_failed = not (result.computed or result.lost)
        self.num_failures_in_a_row = self.num_failures_in_a_row + 1 if has_failed else 0
        outputs += self._update(result)
        for request in reversed(result.lost):
            self._scheduler.restart(request)
        if not result.failed and self._steps.num_out_of_memory == num_out_of_memory:
            self._scheduler.pace.observe(size, ms)
            self._drafter.observe(size, ms)
        return outputs + [self._answers.fail(request, error) for request, error in result.failed]

    def stats(self) -> EngineStats:
        """Return the engine's current counters and gauges."""
        return EngineStats(
            num_running=len(self._scheduler.running),
            num_waiting=self._scheduler.num_waiting,
            kv_blocks=self._scheduler.blocks.num_blocks,
            kv_blocks_free=self._scheduler.blocks.num_free,
            adapter_bytes=self._pool.num_bytes,
            num_steps=self._num_steps,
            num_preemptions=self._scheduler.num_preemptions,
            num_cached_tokens=self._scheduler.num_cached_tokens,
            num_tokens=self._answers.num_tokens,
            num_forced_tokens=self._answers.num_forced_tokens,
            num_drafted_tokens=self._drafter.num_drafted_tokens,
            num_accepted_tokens=self._answers.num_accepted_tokens,
            num_out_of_memory=self._steps.num_out_of_memory,
        )

    def _update(self, result: StepResult) -> list[StepOutput]:
        outputs: list[StepOutput] = []
        # A slot has the states after the last of a request's chunks, or after a part of a lost one.
        last = {computed.chunk.request.id: computed for computed in result.computed}
        for request in (*result.lost, *(request for request, _ in result.failed)):
            last.pop(request.id, None)
        for computed in result.computed:
            request = computed.chunk.request
            request.num_computed_tokens = computed.chunk.start + computed.chunk.num_certain_tokens
            self._scheduler.blocks.publish(request, computed.chunk.start)
            if last.get(request.id) is computed:
                self._keep_states(request)
            if request.version is not None:
                self._residents.move_to_end(request.version)
            if computed.embedding is not None:
                outputs.append(self._embed(request, computed.embedding))
            elif computed.samples:
                outputs += self._answers.extend(computed)
        return outputs

    def _keep_states(self, request: Request) -> None:
        """Note where the request's recurrent states are. Copy them if other requests may need them.

        The request lost its slot if it was preempted meanwhile.
        """
        if self._states is None or not request.state_slot:
            return
        request.state_source = request.state_slot
        slot = self._scheduler.blocks.snapshot(request)
        if slot is not None:
            self._states.copy(request.state_slot, slot)

    def _embed(self, request: Request, embedding: bytes) -> StepOutput:
        if not embedding:
            return self._answers.fail(request, _NO_EMBEDDING)
        num_cached_tokens = request.num_cached_tokens
        self._scheduler.finish(request)
        return StepOutput(
            request_id=request.id,
            finish=FinishReason.STOP,
            embedding=embedding,
            num_cached_tokens=num_cached_tokens,
        )

    def _cache_key(self, request: Request) -> bytes | None:
        """Hash weights, tenant and salt. Return None if the full prompt must be computed."""
        pools_all = request.embedding is not None and request.embedding.pooling is not Pooling.LAST
        if not self._caches_prefixes or request.scores_prompt or pools_all:
            return None
        weights = "" if request.version is None else self._residents[request.version]
        return prefix_key(weights, request.tenant, request.cache_salt)

    def has_room(self, num_bytes: int) -> bool:
        """Estimate whether `num_bytes` would fit if all idle adapters were evicted."""
        return self._would_fit(num_bytes, self._idle())

    def _would_fit(self, num_bytes: int, idle: Sequence[AdapterVersion]) -> bool:
        free = self._pool.max_bytes - self._pool.num_bytes
        return free + sum(map(self._pool.bytes_of, idle)) >= num_bytes

    def _idle(self) -> list[AdapterVersion]:
        """Return the resident adapters that no request uses, least recently used first."""
        in_use = {request.version for request in self._scheduler.requests}
        return [version for version in self._residents if version not in in_use]


_NO_EMBEDDING = JobError(code=ErrorCode.INTERNAL, message="the model gave no finite hidden states")
