"""Loads what a worker serves."""

import time

import structlog
import torch

from shared.cache_folder import cache_folder
from shared.errors import AdapterRejected
from shared.protocol.ids import AdapterVersion
from shared.settings import WorkerSettings
from shared.store.registry import BaseModel
from worker.adapters.allowed_sources import AdapterRoots
from worker.adapters.disk_store import AdapterStore
from worker.adapters.flags import parse_adapter_flags
from worker.adapters.memory_budgets import AdapterBudgets
from worker.adapters.reader import AdapterReader
from worker.engine.config import EngineConfig
from worker.engine.engine import Engine
from worker.engine.grammar import GrammarCompiler
from worker.lora.checkpoint.adapter import Digests, LoRAAdapter, read_adapter
from worker.lora.memory.host_tier import HostTier
from worker.model.kv_cache import BLOCK_SIZE, bytes_per_block
from worker.model.loader import LoadedModel, load_model
from worker.served_model import ServedModel
from worker.startup.openmp import end_team, set_threads, take_cores
from worker.text.grammar_cache import Grammars
from worker.text.prompt_style import OF_BASE
from worker.text.read_style import style_of
from worker.text.token_bytes import max_token_bytes
from worker.text.tokenizer import Tokenizer
from worker.text.tool_call_format import tool_form

log = structlog.get_logger()

MIB = 1 << 20


def load_served(settings: WorkerSettings) -> ServedModel:
    """Load the base model that `settings` name. Takes long, and blocks.

    Raises:
        ModelRejected: it can't be served exactly.
        SettingsError: the budgets don't fit it, or it can't call tools as it was told to.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    loaded = load_model(settings.model, dtype=settings.dtype, device=settings.device)
    budgets = AdapterBudgets(
        device=settings.adapter_memory_mb * MIB,
        host=settings.adapter_host_mb * MIB,
        is_one_memory=loaded.device.type == "cpu",
    )
    engine = Engine(loaded, _engine_config(settings, budgets.pool))
    host = HostTier(engine.layout, budgets.copies, loaded.device)
    num_threads = torch.get_num_threads()
    end_team()
    base = _base(settings, loaded, engine.max_model_len)
    store = _adapter_store(settings)
    styled = _StyledReader(settings, loaded, engine, base.version)
    reader = _adapter_reader(settings, loaded, engine, store, styled)
    return ServedModel(
        engine=engine,
        tokenizer=Tokenizer(loaded.tokenizer, vocab_size=loaded.config.vocab_size),
        base=base,
        max_model_len=engine.max_model_len,
        kv_tokens=engine.stats().kv_blocks * BLOCK_SIZE,
        eos_ids=loaded.eos_ids,
        device=str(loaded.device),
        dtype=str(loaded.dtype).removeprefix("torch."),
        grammars=Grammars(_grammar_compiler(loaded)),
        kernels=loaded.kernels.name,
        num_fused=len(loaded.fused),
        num_threads=num_threads,
        take_cores=lambda: take_cores(num_threads, loaded.kernels),
        style_of=styled.styles.get,
        spare_cores=lambda: set_threads(1),
        read_adapter=reader.read,
        named=styled.named,
        read_version=reader.read_version,
        inspect=reader.inspect,
        adapter_roots=str(reader.roots),
        store=store,
        host=host,
        adapter_budgets=budgets,
        weight_bytes=loaded.weight_bytes,
        kv_bytes=engine.stats().kv_blocks * bytes_per_block(loaded.kv_shapes, loaded.dtype),
    )


def _adapter_store(settings: WorkerSettings) -> AdapterStore:
    folder = settings.adapter_store or cache_folder() / "adapters"
    # A folder for each pool: one would throw away what it doesn't know of the others.
    return AdapterStore(folder / settings.pool, max_bytes=settings.adapter_store_mb * MIB)


def _adapter_reader(
    settings: WorkerSettings,
    loaded: LoadedModel,
    engine: Engine,
    store: AdapterStore,
    styled: "_StyledReader",
) -> AdapterReader:
    at_start = parse_adapter_flags(settings.adapters).values()
    roots = AdapterRoots(settings.adapter_roots, at_start)
    return AdapterReader(
        styled.read,
        base=engine.base,
        store=store,
        roots=roots,
        dtype=loaded.dtype,
        max_bytes=settings.adapter_memory_mb * MIB,
    )


def _grammar_compiler(loaded: LoadedModel) -> GrammarCompiler:
    vocab_size = loaded.config.vocab_size
    return GrammarCompiler(loaded.tokenizer, vocab_size=vocab_size, eos_ids=loaded.eos_ids)


class _StyledReader:
    """Reads adapters on any thread, and remembers how their prompts are made."""

    def __init__(
        self, settings: WorkerSettings, loaded: LoadedModel, engine: Engine, base: AdapterVersion
    ) -> None:
        self.styles = {base: OF_BASE}
        """By version. They stay: an adapter's is a template at most, and often the base's."""
        self._settings = settings
        self._loaded = loaded
        self._modules = engine.base

    def read(self, name: str, source: str, *, checked: Digests | None = None) -> LoRAAdapter:
        """The adapter in a folder; `checked` as `read_adapter` says.

        Raises:
            AdapterRejected: it can't be served exactly, or its prompts can't be written.
        """
        adapter = read_adapter(
            name, source, self._modules, dtype=self._loaded.dtype, checked=checked
        )
        try:
            self.styles[adapter.version] = style_of(
                adapter.prompting,
                self._loaded.tokenizer,
                vocab_size=self._loaded.config.vocab_size,
                tool_setting=self._settings.tool_call_parser,
            )
        except AdapterRejected as error:
            raise AdapterRejected(f"adapter {name} from {source}: {error}") from error
        if adapter.prompting.unused:
            files = adapter.prompting.unused
            log.warning("adapter_files_not_used", version=adapter.version, files=files)
        return adapter

    def named(self, adapter: LoRAAdapter, name: str) -> LoRAAdapter:
        """An adapter that was read here, under another name."""
        same = adapter.named(name)
        self.styles[same.version] = self.styles[adapter.version]
        return same


def _engine_config(settings: WorkerSettings, adapter_bytes: int) -> EngineConfig:
    return EngineConfig(
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        max_model_len=settings.max_model_len,
        kv_cache_bytes=settings.kv_cache_mb * MIB,
        caches_prefixes=settings.prefix_cache,
        adapter_bytes=adapter_bytes,
    )


def _base(settings: WorkerSettings, loaded: LoadedModel, max_model_len: int) -> BaseModel:
    name = settings.served_name or loaded.name
    return BaseModel(
        name=name,
        version=AdapterVersion(f"{name}@{loaded.digest[:12]}"),
        max_model_len=max_model_len,
        source=settings.model,
        created_s=int(time.time()),
        tool_form=tool_form(loaded.tokenizer, settings.tool_call_parser),
        max_token_bytes=max_token_bytes(loaded.tokenizer),
    )
