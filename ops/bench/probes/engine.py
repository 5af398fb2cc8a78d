"""An engine in this process, without Redis and HTTP: what its steps alone cost."""

import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ops.bench.modules import MeasurementFailed
from shared.ids import AdapterVersion
from worker.engine.engine import Engine, EngineConfig
from worker.engine.request import Request, RequestId, RowSampling
from worker.lora.adapter import LoRAAdapter, read_adapter
from worker.model.kv_cache import BLOCK_SIZE, bytes_per_block
from worker.model.loader import load_model

UNBOUNDED = 1 << 30
WARM_UP_STEPS = 3


class EngineProbe:
    """One engine with all its adapters resident. Every call has the engine for itself."""

    def __init__(self, model: Path, adapters: Mapping[str, Path], *, max_num_seqs: int) -> None:
        loaded = load_model(str(model), dtype="bfloat16", device="cpu")
        self._engine = Engine(loaded, EngineConfig(max_num_seqs=max_num_seqs))
        self._vocab_size: int = loaded.config.vocab_size
        self._num_requests = 0
        self.kv_bytes_per_token = bytes_per_block(loaded.kv_shapes, loaded.dtype) // BLOCK_SIZE
        self.adapters: list[LoRAAdapter] = []
        for name, folder in adapters.items():
            adapter = read_adapter(name, str(folder), self._engine.base, dtype=loaded.dtype)
            self._engine.add_adapter(adapter)
            self.adapters.append(adapter)

    def prefill_s(self, context: int) -> float:
        """Seconds from adding one prompt of `context` tokens to its first token."""
        (request,) = self._add(1, context, [None])
        start = time.perf_counter()
        self._step_until_decoding([request])
        seconds = time.perf_counter() - start
        self._engine.abort(request.id)
        return seconds

    def decode_s(
        self, batch: int, context: int, versions: Sequence[AdapterVersion | None], steps: int
    ) -> list[float]:
        """Seconds of each of `steps` steps that give `batch` sequences a token each.

        Each has about `context` tokens before it; `versions` are taken in turn, None is the base.

        Raises:
            MeasurementFailed: the KV cache is too small for them together.
        """
        requests = self._add(batch, context, versions)
        preempted = self._engine.stats().num_preemptions
        self._step_until_decoding(requests)
        seconds = [self._timed_step(batch) for _ in range(WARM_UP_STEPS + steps)]
        for request in requests:
            self._engine.abort(request.id)
        if self._engine.stats().num_preemptions > preempted:
            raise MeasurementFailed(f"{batch} x {context} tokens don't fit into the KV cache")
        return seconds[WARM_UP_STEPS:]

    def _add(
        self, batch: int, context: int, versions: Sequence[AdapterVersion | None]
    ) -> list[Request]:
        requests = [self._request(context, versions[n % len(versions)]) for n in range(batch)]
        for request in requests:
            self._engine.add(request)
        return requests

    def _request(self, context: int, version: AdapterVersion | None) -> Request:
        self._num_requests += 1
        return endless_request(self._num_requests, context, self._vocab_size, version)

    def _step_until_decoding(self, requests: Sequence[Request]) -> None:
        while not all(request.output_ids for request in requests):
            self._check(self._engine.step())

    def _timed_step(self, batch: int) -> float:
        start = time.perf_counter()
        outputs = self._engine.step()
        seconds = time.perf_counter() - start
        self._check(outputs)
        if len(outputs) != batch:
            raise MeasurementFailed(f"a step gave {len(outputs)} of {batch} tokens")
        return seconds

    def _check(self, outputs: Sequence[object]) -> None:
        for output in outputs:
            if error := getattr(output, "error", None):
                raise MeasurementFailed(f"the engine says: {error.message}")


def endless_request(
    number: int, context: int, vocab_size: int, version: AdapterVersion | None
) -> Request:
    """One that ends by `abort` alone, with a prompt that no other number's begins with."""
    draw = random.Random(number)
    return Request(
        id=RequestId(f"probe-{number}:0"),
        prompt_ids=[draw.randrange(vocab_size) for _ in range(context)],
        version=version,
        sampling=RowSampling(seed=0, temperature=0.0),
        max_tokens=UNBOUNDED,
    )
