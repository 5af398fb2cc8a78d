"""The kinds of engines over which the contract tests run.

A further kind needs a class like these, and its name in `KINDS`.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from adapter_folders import read_adapter
from engine_limits import MAX_MODEL_LEN, MAX_NUM_SEQS, NUM_ADAPTERS
from engines import load
from tiny import save_adapter, tiny_model

from shared.protocol.ids import AdapterVersion
from worker.engine.config import EngineConfig
from worker.engine.engine import NativeEngine
from worker.engine.interface import AdapterImage, AnyEngine
from worker.engine_simulated.adapters import NUM_BYTES, SimulatedSource
from worker.engine_simulated.engine import SimulatedEngine
from worker.lora.memory.layout import PoolLayout
from worker.model.kv_cache import bytes_per_block
from worker.model.loader import LoadedModel


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

    def __init__(self, _: Path) -> None:
        loaded = _loaded()
        self.engine: AnyEngine = NativeEngine(
            loaded,
            EngineConfig(
                max_num_seqs=MAX_NUM_SEQS,
                max_model_len=MAX_MODEL_LEN,
                kv_cache_bytes=400 * bytes_per_block(loaded.cache.kv, loaded.dtype),
                adapter_bytes=NUM_ADAPTERS * self.image(0).num_bytes,
            ),
        )

    def image(self, number: int) -> AdapterImage:
        return _native_image(number)

    def large_image(self) -> AdapterImage:
        return _native_image(0, 8 * NUM_ADAPTERS + 8)


@cache
def _loaded() -> LoadedModel:
    """Return a model for one engine at a time."""
    return load(tiny_model())


@cache
def _native_image(number: int, rank: int = 8) -> AdapterImage:
    loaded = _loaded()
    layout = PoolLayout(loaded.base, loaded.dtype)
    with TemporaryDirectory() as folder:
        save_adapter(Path(folder), seed=number, r=rank, target_modules=["q_proj", "down_proj"])
        return layout.image(read_adapter(loaded.base, Path(folder), f"a{number}"))


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
