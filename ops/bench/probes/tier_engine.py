"""An engine in its own thread, with adapters in device memory and in host memory."""

import asyncio
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from ops.bench.measurement_process import MeasurementFailed
from ops.bench.probes.engine import endless_request, random_prompt
from shared.protocol.ids import AdapterVersion
from worker.adapters.loader_threads import LoaderThreads
from worker.adapters.memory_budgets import AdapterBudgets
from worker.engine.config import EngineConfig
from worker.engine.engine import NativeEngine
from worker.engine.interface import AnyEngine
from worker.engine.request import StepOutput
from worker.engine.thread import EngineThread
from worker.lora.checkpoint.adapter import read_checkpoint
from worker.lora.checkpoint.adapter_files import AdapterFiles
from worker.lora.memory.host_tier import HostTier
from worker.lora.memory.layout import AdapterImage
from worker.model.loader import load_model
from worker.startup.openmp import end_team, set_threads, take_cores

T = TypeVar("T")

CONTEXT = 128
POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class Loaded:
    """A completed load of an adapter to the device. Times are in seconds of `time.perf_counter`."""

    version: AdapterVersion
    start_s: float
    end_s: float
    evicted: tuple[AdapterVersion, ...]
    """Versions that were evicted to make room for the adapter."""


class TierEngine:
    """An engine whose steps and adapter loads run on separate threads, as in a worker."""

    def __init__(self, model: Path, *, device_bytes: int, host_bytes: int, num_seqs: int) -> None:
        loaded = load_model(str(model), dtype="bfloat16", device="cpu")
        self._budgets = AdapterBudgets(
            device=device_bytes, host=host_bytes, is_one_memory=loaded.device.type == "cpu"
        )
        config = EngineConfig(max_num_seqs=num_seqs, adapter_bytes=self._budgets.pool)
        self._engine = NativeEngine(loaded, config)
        self._dtype = loaded.dtype
        self._vocab_size: int = loaded.config.vocab_size
        self._host = HostTier(self._engine.layout, self._budgets.copies, loaded.device)
        self._errors: list[str] = []
        self.step_ends_s: list[float] = []
        """End times of the steps that produced output tokens."""
        num_threads = torch.get_num_threads()
        end_team()
        self._thread = EngineThread(
            self._engine,
            take_cores=lambda: take_cores(num_threads, loaded.kernels),
        )
        self._thread.start(on_outputs=self._on_outputs, on_broken=lambda: None)
        self._threads = LoaderThreads(
            1, spare_cores=lambda: set_threads(1), is_engine_busy=lambda: self._thread.is_busy
        )
        gc.collect()
        gc.freeze()

    async def used_bytes(self) -> tuple[int, int]:
        """Return two values: used bytes of the device budget, and used bytes of the host budget."""
        stats = await self._call(lambda engine: engine.stats())
        return self._budgets.used(stats.adapter_bytes, self._host.num_bytes)

    async def load(self, name: str, folder: Path) -> Loaded:
        """Load an adapter from its files into device memory.

        Raises:
            MeasurementFailed: the adapter does not fit into device memory.
        """
        start_s = time.perf_counter()
        image = await self._threads.run(lambda: self._read(name, folder))
        placing = await self._call(lambda engine: engine.place(image))
        if placing.reserved is None:
            raise MeasurementFailed(f"no room for {name} of {image.num_bytes} bytes")
        reserved = placing.reserved
        await self._threads.run(lambda: self._thread.write_adapter(reserved, image))
        await self._call(lambda engine: engine.activate_adapter(reserved, image))
        self._host.release(image)
        return Loaded(image.version, start_s, time.perf_counter(), tuple(placing.evicted))

    async def unload(self, version: AdapterVersion) -> None:
        """Remove an adapter from the device and from the host."""
        await self._call(lambda engine: engine.remove_adapter(version))
        self._host.drop(version)

    async def decode(self, number: int, versions: Sequence[AdapterVersion | None]) -> None:
        """Start `number` sequences, and wait for `number` steps.

        The engine computes the prompts during these steps. The sequences run until `stop` is
        called. `versions` are assigned to sequences round-robin. The version None means the base
        model.
        """
        for n in range(number):
            version = versions[n % len(versions)]
            prompt_ids = random_prompt(n, CONTEXT, self._vocab_size)
            self._thread.add(endless_request(n, prompt_ids, version))
        await self.steps(number)

    async def steps(self, number: int) -> None:
        """Wait until the engine has completed `number` more steps.

        Raises:
            MeasurementFailed: a sequence ended with an error.
        """
        end = len(self.step_ends_s) + number
        while len(self.step_ends_s) < end:
            if self._errors:
                raise MeasurementFailed(f"the engine reported an error: {self._errors[0]}")
            await asyncio.sleep(POLL_S)

    def stop(self) -> None:
        """Stop the engine thread and the loader thread."""
        self._threads.close()
        self._thread.stop()

    def _read(self, name: str, folder: Path) -> AdapterImage:
        base = self._engine.base
        files = AdapterFiles(folder)
        return self._host.put(read_checkpoint(name, files, base, dtype=self._dtype))

    def _on_outputs(self, outputs: list[StepOutput]) -> None:
        self.step_ends_s.append(time.perf_counter())
        self._errors += [output.error.message for output in outputs if output.error]

    async def _call(self, function: Callable[[AnyEngine], T]) -> T:
        return await asyncio.wrap_future(self._thread.call(function))
