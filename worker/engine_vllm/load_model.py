"""Loads a base model into vLLM, and creates the other parts of a worker that uses vLLM."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog
from transformers import AutoConfig, AutoProcessor, AutoTokenizer, GenerationConfig

from shared.errors import ModelRejected, first_line
from shared.protocol.adapters import BaseModel
from shared.protocol.capabilities import Capabilities, Feature
from shared.protocol.tools import ToolForm
from shared.reasoning_form import ReasoningForm
from shared.settings import WorkerSettings
from worker.adapters.memory_budgets import AdapterBudgets
from worker.engine.grammar import GrammarCompiler
from worker.engine_vllm.adapters import VllmHostMemory, scratch_folder, slot_bytes
from worker.engine_vllm.arguments import engine_args, num_slots, rank_of
from worker.engine_vllm.checkpoint_format import check_format
from worker.engine_vllm.core import EngineCore
from worker.engine_vllm.engine import VllmEngine, last_line
from worker.engine_vllm.image_reader import VllmImageReader
from worker.engine_vllm.served_linears import CALL, without_unreached
from worker.engine_vllm.skeleton import skeleton_modules
from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint.adapter import version_of
from worker.model.loading.end_tokens import end_token_ids
from worker.model.loading.folder import digest_of, find_model, model_name
from worker.model.loading.images import takes_images
from worker.served_model import BaseInfo, CpuShares, ServedModel
from worker.startup.adapter_supply import adapter_supply
from worker.text.grammar_cache import GrammarCache
from worker.text.max_token_bytes import max_token_bytes
from worker.text.reasoning_format import base_reasoning_form
from worker.text.tokenizer import Tokenizer
from worker.text.tool_call_format import base_tool_form

log = structlog.get_logger()

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    """The parts of a base model that this process reads. vLLM's processes read the weights."""

    folder: Path
    name: str
    config: Any
    """Configuration of the model's text part."""
    tokenizer: Any
    eos_ids: frozenset[int]
    tool_form: ToolForm | None
    reasoning: ReasoningForm | None
    modules: BaseModules
    reads_images: bool


def load_vllm(settings: WorkerSettings, *, on_lost: Callable[[], None]) -> ServedModel:
    """Start vLLM with the base model of `settings`. Blocks for half a minute or more.

    `on_lost` is called on any thread when vLLM's processes have ended by themselves.

    Raises:
        ModelRejected: vLLM can't serve the model.
        SettingsError: the settings don't fit vLLM or the machine.
    """
    files = _read(settings)
    slot = slot_bytes(files.modules.linears, max_rank=rank_of(settings))
    slots = num_slots(settings, slot)
    with digest_of(settings.model, files.folder) as digest:
        core = _start(settings, files, slots, on_lost)
        try:
            return _served(settings, files, core, digest.result(), slots * slot, slot)
        except BaseException:  # otherwise the watch on vLLM's processes would end this one
            core.close()
            raise


def _served(
    settings: WorkerSettings,
    files: _Files,
    core: EngineCore,
    digest: str,
    adapter_bytes: int,
    slot: int,
) -> ServedModel:
    _check_context(settings, files, core)
    reached = {
        name
        for of_worker in core.ask_workers(CALL, list(files.modules.linears))
        for name in of_worker
    }
    files = replace(files, modules=without_unreached(files.modules, files.config, reached))
    budgets = AdapterBudgets(
        device=adapter_bytes, host=settings.adapter_host_mb * MIB, is_one_memory=False
    )
    checkpoints = scratch_folder()
    host = VllmHostMemory(checkpoints, max_bytes=budgets.copies, slot_bytes=slot)

    def close() -> None:
        core.close()
        shutil.rmtree(checkpoints, ignore_errors=True)

    vocab_size = files.config.vocab_size
    images = VllmImageReader(core.config) if core.reads_images else None
    features = frozenset({Feature.IMAGES} if images else ())
    serves = Capabilities(kinds=frozenset(), features=features, max_rank=settings.max_lora_rank)
    return ServedModel(
        engine=VllmEngine(
            core,
            vocab_size=vocab_size,
            adapter_bytes=budgets.pool,
            caches_prefixes=settings.prefix_cache,
        ),
        tokenizer=Tokenizer(
            files.tokenizer, vocab_size=vocab_size, reasoning=files.reasoning, images=images
        ),
        grammars=GrammarCache(
            GrammarCompiler(files.tokenizer, vocab_size=vocab_size, eos_ids=files.eos_ids)
        ),
        base=_base(settings, files, digest, core),
        info=_info(core, files),
        adapters=adapter_supply(
            settings,
            files.modules,
            files.tokenizer,
            host,
            budgets,
            name=files.name,
            vocab_size=vocab_size,
            dtype=core.dtype,
            serves=serves,
        ),
        cpu=CpuShares(),  # vLLM's processes have their own threads
        serves=serves,
        close=close,
    )


def _read(settings: WorkerSettings) -> _Files:
    folder = find_model(settings.model)
    check_format(settings.model, folder)
    config = _load(settings, AutoConfig, folder)
    tokenizer = _load(settings, AutoTokenizer, folder)
    if takes_images(config) and not tokenizer.chat_template:  # older models have it elsewhere
        processor = _load(settings, AutoProcessor, folder)
        tokenizer.chat_template = getattr(processor, "chat_template", None)
    text = config.get_text_config()
    return _Files(
        folder=folder,
        name=model_name(settings.model, folder),
        config=text,
        tokenizer=tokenizer,
        eos_ids=end_token_ids(text, _generation(folder), tokenizer),
        tool_form=base_tool_form(tokenizer, settings.tool_settings),
        reasoning=base_reasoning_form(tokenizer, settings.reasoning_parser),
        modules=skeleton_modules(settings.model, config),
        reads_images=takes_images(config),
    )


def _check_context(settings: WorkerSettings, files: _Files, core: EngineCore) -> None:
    """Log a warning if the KV cache is too small for the model's full context length."""
    whole = getattr(files.config, "max_position_embeddings", core.max_model_len)
    if settings.max_model_len is None and core.max_model_len < whole:
        log.warning(
            "context_shortened",
            tokens=core.max_model_len,
            of_model=whole,
            hint="raise --kv-cache-mb or --memory-fraction, or set --max-model-len on all workers",
        )


def _load(settings: WorkerSettings, cls: Any, folder: Path) -> Any:
    try:
        return cls.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises many error types for broken folders
        raise ModelRejected(
            f"--model {settings.model}: {cls.__name__}: {first_line(error)}"
        ) from error


def _generation(folder: Path) -> Any:
    try:
        return GenerationConfig.from_pretrained(folder, local_files_only=True)
    except OSError:  # the model has none
        return None


def _start(
    settings: WorkerSettings, files: _Files, slots: int, on_lost: Callable[[], None]
) -> EngineCore:
    """Start vLLM and return its engine core.

    Raises:
        ModelRejected: vLLM can't serve the model; the message has vLLM's reason.
        SettingsError: the settings don't fit vLLM or the machine.
    """
    args = engine_args(
        settings,
        files.folder,
        vocab_size=files.config.vocab_size,
        eos_ids=sorted(files.eos_ids),
        num_slots=slots,
        linears=files.modules.linears,
        reads_images=files.reads_images,
    )
    started_s = time.monotonic()
    try:
        core = EngineCore(args, on_lost=on_lost)
    except Exception as error:  # vLLM raises many error types
        raise ModelRejected(f"--model {settings.model}: vLLM: {last_line(error)}") from error
    log.info("vllm_started", seconds=round(time.monotonic() - started_s, 1))
    return core


def _base(settings: WorkerSettings, files: _Files, digest: str, core: EngineCore) -> BaseModel:
    name = settings.served_name or files.name
    return BaseModel(
        name=name,
        version=version_of(name, digest),
        max_model_len=core.max_model_len,
        source=settings.model,
        created_s=int(time.time()),
        tool_form=files.tool_form,
        max_token_bytes=max_token_bytes(files.tokenizer),
        # Native workers of the pool compute embeddings, and register the same base model.
        embedding_size=files.config.hidden_size,
        reasoning=files.reasoning,
        takes_images=files.reads_images,
    )


def _info(core: EngineCore, files: _Files) -> BaseInfo:
    return BaseInfo(
        eos_ids=files.eos_ids,
        device=core.device,
        dtype=str(core.dtype).removeprefix("torch."),
        kernels="vllm",
        num_fused=0,
        kv_tokens=core.num_blocks * core.block_size,
        kv_bytes=core.kv_bytes,
        weight_bytes=sum(path.stat().st_size for path in files.folder.glob("*.safetensors")),
        max_num_seqs=core.max_num_seqs,
        max_num_batched_tokens=core.max_num_batched_tokens,
    )
