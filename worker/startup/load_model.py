"""Loads the base model and everything else that a worker with the native engine serves."""

import time

import torch

from shared.protocol.adapters import BaseModel
from shared.protocol.capabilities import EVERYTHING, WITHOUT_IMAGES
from shared.settings import WorkerSettings
from worker.adapters.memory_budgets import AdapterBudgets
from worker.engine.config import EngineConfig
from worker.engine.engine import NativeEngine
from worker.engine.grammar import GrammarCompiler
from worker.engine.pooling import embedding_size
from worker.lora.checkpoint.adapter import version_of
from worker.lora.memory.host_tier import HostTier
from worker.model.kv_cache import BLOCK_SIZE
from worker.model.loader import LoadedModel, OnStep, load_model
from worker.model.loading.architecture import read_config
from worker.model.loading.folder import find_model
from worker.model.loading.images import takes_images
from worker.model.memory import Sizes
from worker.served_model import BaseInfo, CpuShares, ServedModel
from worker.startup.adapter_supply import adapter_supply
from worker.startup.devices import device_of
from worker.startup.openmp import end_team, set_threads, take_cores
from worker.startup.sizing import sizes_of
from worker.startup.warm_up import warm_up
from worker.text.grammar_cache import GrammarCache
from worker.text.max_token_bytes import max_token_bytes
from worker.text.reasoning_format import base_reasoning_form
from worker.text.tokenizer import Tokenizer
from worker.text.tool_call_format import base_tool_form


def load_served(settings: WorkerSettings, on_step: OnStep) -> ServedModel:
    """Load the base model of `settings`. Blocks for seconds to minutes.

    `on_step` is called with each step of the work.

    Raises:
        ModelRejected: the model can't be served exactly.
        SettingsError: the model doesn't fit the memory budgets, or it can't call tools in the form
            that --tool-call-parser names.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    loaded = load_model(
        settings.model,
        dtype=settings.dtype,
        device=settings.device,
        quantize=settings.quantize,
        on_step=on_step,
    )
    on_step("warming up", 0, 0)
    # Kernels are compiled first: the device's memory is then measured with them loaded, and the
    # engine replaces the adapters that `warm_up` uses.
    warm_up(loaded)
    sizes = sizes_of(settings, loaded, device_of(loaded))
    budgets = AdapterBudgets(
        device=sizes.parts.adapters,
        host=sizes.parts.copies,
        is_one_memory=loaded.device.type == "cpu",
    )
    engine = NativeEngine(loaded, _engine_config(settings, sizes, budgets.pool))
    host = HostTier(engine.layout, budgets.copies, loaded.device)
    # The engine's thread takes as many threads as this one has had. `end_team` then ends this
    # thread's team, because only the engine's thread may have one (see `openmp.py`).
    num_threads, vocab_size = torch.get_num_threads(), loaded.config.vocab_size
    end_team()
    reads_images = takes_images(read_config(settings.model, find_model(settings.model)))
    return ServedModel(
        engine=engine,
        tokenizer=Tokenizer(
            loaded.tokenizer,
            vocab_size=vocab_size,
            reasoning=base_reasoning_form(loaded.tokenizer, settings.reasoning_parser),
        ),
        grammars=GrammarCache(
            GrammarCompiler(loaded.tokenizer, vocab_size=vocab_size, eos_ids=loaded.eos_ids)
        ),
        base=_base(settings, loaded, engine.max_model_len, reads_images=reads_images),
        serves=WITHOUT_IMAGES if reads_images else EVERYTHING,
        info=_info(settings, loaded, engine, sizes),
        adapters=adapter_supply(
            settings,
            engine.base,
            loaded.tokenizer,
            host,
            budgets,
            name=loaded.name,
            vocab_size=vocab_size,
            dtype=loaded.dtype,
        ),
        cpu=CpuShares(
            num_threads=num_threads,
            take_cores=lambda: take_cores(num_threads, loaded.kernels),
            spare_cores=lambda: set_threads(1),
        ),
    )


def _info(
    settings: WorkerSettings, loaded: LoadedModel, engine: NativeEngine, sizes: Sizes
) -> BaseInfo:
    kv_blocks = engine.stats().kv_blocks
    return BaseInfo(
        eos_ids=loaded.eos_ids,
        device=str(loaded.device),
        dtype=settings.dtype_text(str(loaded.dtype).removeprefix("torch.")),
        kernels=loaded.kernels.name,
        num_fused=len(loaded.fused),
        kv_tokens=kv_blocks * BLOCK_SIZE,
        kv_bytes=loaded.cache.total_bytes(engine.cache_size),
        weight_bytes=loaded.weight_bytes,
        max_num_seqs=min(
            sizes.batch.max_num_seqs, engine.cache_size.num_slots or sizes.batch.max_num_seqs
        ),
        max_num_batched_tokens=sizes.batch.max_num_batched_tokens,
        step_bytes=sizes.step_bytes,
    )


def _engine_config(settings: WorkerSettings, sizes: Sizes, adapter_bytes: int) -> EngineConfig:
    return EngineConfig(
        max_num_seqs=sizes.batch.max_num_seqs,
        max_num_batched_tokens=sizes.batch.max_num_batched_tokens,
        max_model_len=settings.max_model_len,
        kv_cache_bytes=sizes.parts.kv,
        caches_prefixes=settings.prefix_cache,
        forces_tokens=settings.forced_tokens,
        looks_up_tokens=settings.prompt_lookup,
        adapter_bytes=adapter_bytes,
    )


def _base(
    settings: WorkerSettings, loaded: LoadedModel, max_model_len: int, *, reads_images: bool
) -> BaseModel:
    name = settings.served_name or loaded.name
    return BaseModel(
        name=name,
        version=version_of(name, loaded.digest),
        max_model_len=max_model_len,
        source=settings.model,
        created_s=int(time.time()),
        tool_form=base_tool_form(loaded.tokenizer, settings.tool_settings),
        max_token_bytes=max_token_bytes(loaded.tokenizer),
        embedding_size=embedding_size(loaded.model),
        reasoning=base_reasoning_form(loaded.tokenizer, settings.reasoning_parser),
        takes_images=reads_images,
    )
