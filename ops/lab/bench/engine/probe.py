"""Measures engine steps in this process, without Redis and HTTP."""

import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ops.lab.bench.frame.measurement_process import MeasurementFailed
from shared.protocol.ids import AdapterVersion
from worker.engine.config import EngineConfig
from worker.engine.engine import NativeEngine
from worker.engine.request import ChoiceSampling, Request, RequestId
from worker.lora.checkpoint.adapter import LoRAAdapter, read_checkpoint
from worker.lora.checkpoint.adapter_files import AdapterFiles
from worker.model.loader import LoadedModel

UNBOUNDED = 1 << 30
DEFAULTS = EngineConfig()
WARM_UP_STEPS = 3


class EngineProbe:
    """Measures an engine with all adapters resident.

    All methods remove their requests before they return.
    """

    def __init__(
        self, loaded: LoadedModel, adapters: Mapping[str, Path], *, max_num_seqs: int
    ) -> None:
        """Create the engine and load the adapters. `adapters` maps names to folders."""
        self.adapters: list[LoRAAdapter] = [
            read_checkpoint(name, AdapterFiles(folder), loaded.base, dtype=loaded.dtype)
            for name, folder in adapters.items()
        ]
        config = EngineConfig(
            max_num_seqs=max_num_seqs,
            adapter_bytes=max(DEFAULTS.adapter_bytes, 2 * sum(a.num_bytes for a in self.adapters)),
            looks_up_tokens=False,  # each measured step returns one token of each sequence
        )
        self._engine = NativeEngine(loaded, config)
        self._loaded = loaded
        self._num_requests = 0
        for adapter in self.adapters:
            self._engine.add_adapter(adapter)

    def prefill_s(self, context: int) -> float:
        """Compute the prefill of a new prompt of `context` tokens.

        Returns the seconds until the first output token.
        """
        (request,) = self._add(1, context, [None])
        start = time.perf_counter()
        self._step_until_decoding([request])
        seconds = time.perf_counter() - start
        self._engine.abort(request.id)
        return seconds

    def decode_s(
        self, batch: int, context: int, versions: Sequence[AdapterVersion | None], steps: int
    ) -> list[float]:
        """Run `steps` decode steps of `batch` sequences, and return each step's duration in s.

        Args:
            batch: number of sequences.
            context: number of tokens in each sequence's prompt.
            versions: adapter versions, assigned to sequences round-robin. None is the base model.
            steps: number of measured steps.

        Raises:
            MeasurementFailed: the KV cache is too small for all sequences.
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
        return Request(
            id=RequestId(f"probe-{self._num_requests}:0"),
            prompt_ids=random_prompt(self._num_requests, context, self._loaded.config.vocab_size),
            version=version,
            sampling=ChoiceSampling(seed=0, temperature=0.0),
            max_tokens=UNBOUNDED,
        )

    def _step_until_decoding(self, requests: Sequence[Request]) -> None:
        while not all(request.output_ids for request in requests):
            self._check(self._engine.step())

    def _timed_step(self, batch: int) -> float:
        start = time.perf_counter()
        outputs = self._engine.step()
        seconds = time.perf_counter() - start
        self._check(outputs)
        if len(outputs) != batch:
            raise MeasurementFailed(f"a step returned {len(outputs)} of {batch} tokens")
        return seconds

    def _check(self, outputs: Sequence[object]) -> None:
        for output in outputs:
            if error := getattr(output, "error", None):
                raise MeasurementFailed(f"the engine reported an error: {error.message}")


def random_prompt(number: int, context: int, vocab_size: int) -> list[int]:
    """Return `context` random token ids. `number` seeds the random generator."""
    generator = random.Random(number)
    return [generator.randrange(vocab_size) for _ in range(context)]
