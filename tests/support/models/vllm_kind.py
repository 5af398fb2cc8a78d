"""The vLLM engine, as a kind over which the contract tests run. It needs vLLM."""

import atexit
import logging
import os
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from engine_limits import MAX_MODEL_LEN, MAX_NUM_SEQS, NUM_ADAPTERS
from tiny import save_adapter, save_tiny_model, tiny_model, tiny_tokenizer

from shared.protocol.ids import AdapterVersion
from shared.settings import WorkerSettings
from worker.engine.interface import AdapterImage, AnyEngine
from worker.engine_vllm.environment import set_environment
from worker.served_model import ServedModel

HEAD_DIM = 32
"""vLLM's attention on CPUs has no kernels for smaller heads."""

_placed: set[AdapterVersion] = set()
"""Adapters that the last test may have left in the engine."""


class Vllm:
    """The engine that lets vLLM compute.

    vLLM takes half a minute to start, so that all tests of a run share one engine.
    """

    def __init__(self, _: Path) -> None:
        self._served = _served()
        self.engine: AnyEngine = _engine()
        while _placed:
            self.engine.remove_adapter(_placed.pop())

    def image(self, number: int) -> AdapterImage:
        host = self._served.adapters.host
        image = host.put(_adapter(number))
        _placed.add(image.version)
        return image

    def large_image(self) -> AdapterImage:
        image: Any = self.image(0)
        return replace(image, num_bytes=(NUM_ADAPTERS + 1) * image.num_bytes)


@cache
def _served() -> ServedModel:
    folder = _folder() / "base"
    save_tiny_model(folder, head_dim=HEAD_DIM)
    settings = WorkerSettings(
        engine="vllm",
        model=str(folder),
        device="cpu",
        dtype="float32",
        max_num_seqs=MAX_NUM_SEQS,
        max_model_len=MAX_MODEL_LEN,
        kv_cache_mb=32,
        max_lora_rank=8,
        adapter_store=_folder() / "store",
    )
    set_environment(settings, os.environ)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of vLLM's libraries
        from worker.engine_vllm.load_model import load_vllm

        served = load_vllm(settings, on_lost=_report)
    atexit.register(served.close)
    return served


@cache
def _engine() -> Any:
    """Return an engine with memory for `NUM_ADAPTERS` adapters, which is less than a MiB."""
    from worker.engine_vllm.engine import VllmEngine

    started = _served().engine
    assert isinstance(started, VllmEngine)
    return VllmEngine(
        started.core,
        vocab_size=len(tiny_tokenizer()),
        adapter_bytes=NUM_ADAPTERS * _served().adapters.host.image(_adapter(0)).num_bytes,
        caches_prefixes=True,
    )


@cache
def _folder() -> Path:
    return Path(mkdtemp(prefix="vllm-kind-"))


@cache
def _adapter(number: int) -> Any:
    folder = _folder() / f"a{number}"
    base = tiny_model(head_dim=HEAD_DIM)
    save_adapter(folder, base=base, seed=number, r=8, target_modules=["q_proj", "down_proj"])
    return _served().adapters.source.read(f"a{number}", str(folder)).weights


def _report() -> None:
    """Leave a trace in the log. The running test fails, because the next call raises."""
    logging.getLogger(__name__).error("vLLM's engine core has ended")
