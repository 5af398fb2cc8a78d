"""The kinds of engines over which the contract tests run.

A further kind needs a class like these, and its name in `KINDS`.
"""

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from engine_limits import MAX_MODEL_LEN, MAX_NUM_SEQS, NUM_ADAPTERS
from engines import load
from tiny import save_adapter, tiny_model

from shared.protocol.ids import AdapterVersion
from worker.engine.config import EngineConfig
from worker.engine.engine import NativeEngine
from worker.engine.interface import AdapterImage, AnyEngine
from worker.engine_simulated.adapters import NUM_BYTES, SimulatedSource
from worker.engine_simulated.engine import SimulatedEngine
from worker.lora.checkpoint.adapter import read_checkpoint
from worker.lora.checkpoint.adapter_files import AdapterFiles
from worker.model.kv_cache import bytes_per_block


class EngineKind(Protocol):
    """One kind of engine, with adapters of equal size."""

    engine: AnyEngine
    """A fresh engine with the limits above."""

    def image(self, number: int) -> AdapterImage:
        """Return the image of an adapter. Each number gives another version with other weights."""
        ...

    def large_image(self) -> AdapterImage:
        """Return an image that is larger than all of the adapter memory."""
        ...


class Native:
    """The engine that computes models."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        loaded = load(tiny_model())
        probe = NativeEngine(loaded, EngineConfig(kv_cache_bytes=1 << 20))
        self._base, self._layout = probe.base, probe.layout
        loaded = load(tiny_model())
        self.engine: AnyEngine = NativeEngine(
            loaded,
            EngineConfig(
                max_num_seqs=MAX_NUM_SEQS,
                max_model_len=MAX_MODEL_LEN,
                kv_cache_bytes=400 * bytes_per_block(loaded.kv_shapes, loaded.dtype),
                adapter_bytes=NUM_ADAPTERS * self.image(0).num_bytes,
            ),
        )

    def image(self, number: int, rank: int = 8) -> AdapterImage:
        folder = self._folder / f"{number}-{rank}"
        if not folder.exists():
            save_adapter(folder, seed=number, r=rank, target_modules=["q_proj", "down_proj"])
        files = AdapterFiles(folder)
        weights = read_checkpoint(f"a{number}", files, self._base, dtype=self._layout.dtype)
        return self._layout.image(weights)

    def large_image(self) -> AdapterImage:
        return self.image(0, rank=8 * NUM_ADAPTERS + 8)


class Simulated:
    """The engine that computes hashes."""

    def __init__(self, _: Path) -> None:
        self.engine: AnyEngine = SimulatedEngine(
            AdapterVersion("base@000000000000"),
            max_num_seqs=MAX_NUM_SEQS,
            max_model_len=MAX_MODEL_LEN,
            adapter_bytes=NUM_ADAPTERS * NUM_BYTES,
            step_s=0,
        )

    def image(self, number: int) -> AdapterImage:
        return SimulatedSource(load_s=0).read(f"a{number}", f"source {number}").weights

    def large_image(self) -> AdapterImage:
        weights = SimulatedSource(load_s=0).read("large", "large").weights
        return replace(weights, num_bytes=(NUM_ADAPTERS + 1) * NUM_BYTES)


KINDS: dict[str, Callable[[Path], EngineKind]] = {"native": Native, "simulated": Simulated}
if find_spec("vllm") is not None:  # in the environment that `make vllm` creates
    from vllm_kind import Vllm

    KINDS["vllm"] = Vllm
