"""Creates the model that a worker with the simulated engine serves."""

import time

from shared.adapter_sources import SourceTemplate, is_remote
from shared.protocol.adapters import BaseModel
from shared.settings import WorkerSettings
from worker.adapters.memory_budgets import AdapterBudgets
from worker.adapters.remote.allowed_urls import AllowedUrls
from worker.adapters.remote.stager import Stager
from worker.engine_simulated.adapters import (
    SimulatedHostMemory,
    SimulatedSource,
    source_digest,
    version_of,
)
from worker.engine_simulated.engine import SimulatedEngine
from worker.engine_simulated.text import SimulatedGrammars, SimulatedTokenizer
from worker.engine_simulated.tokens import END_ID
from worker.model.memory_policy import ADAPTER_BYTES, CPU_BATCH
from worker.served_model import AdapterSupply, BaseInfo, CpuShares, ServedModel
from worker.startup.adapter_copies import adapter_store, remote_sources

MIB = 1 << 20
MAX_MODEL_LEN = 1 << 16
"""Default context length in tokens."""


def load_simulated(settings: WorkerSettings) -> ServedModel:
    """Return a served model with a simulated engine. It reads no files and returns at once.

    A process may create any number of them, and run one `Worker` for each.
    """
    base = _base(settings)
    adapter_mb = settings.adapter_memory_mb
    budgets = AdapterBudgets(
        device=ADAPTER_BYTES if adapter_mb is None else adapter_mb * MIB,
        host=settings.adapter_host_mb * MIB,
        is_one_memory=False,
    )
    info = _info(settings, base)
    stager = _stager(settings)
    engine = SimulatedEngine(
        base.version,
        max_num_seqs=info.max_num_seqs,
        max_model_len=base.max_model_len,
        adapter_bytes=budgets.pool,
        step_s=settings.simulated_step_ms / 1000,
        answer_tokens=settings.simulated_answer_tokens,
    )
    return ServedModel(
        engine=engine,
        tokenizer=SimulatedTokenizer(),
        grammars=SimulatedGrammars(),
        base=base,
        info=info,
        adapters=AdapterSupply(
            source=SimulatedSource(load_s=settings.simulated_load_ms / 1000, stager=stager),
            roots="",
            store=None,
            stager=stager,
            host=SimulatedHostMemory(budgets.copies),
            budgets=budgets,
        ),
        cpu=CpuShares(),
    )


def _stager(settings: WorkerSettings) -> Stager | None:
    """Return the stager of adapters at URLs, or None if the settings allow no URLs."""
    roots = [root for root in settings.adapter_roots if is_remote(root)]
    template = SourceTemplate.of(settings.adapter_source)
    allowed = AllowedUrls(roots, settings.adapter_sources.values(), template)
    return remote_sources(settings, adapter_store(settings), allowed) if allowed else None


def _base(settings: WorkerSettings) -> BaseModel:
    name = settings.served_name or settings.model
    return BaseModel(
        name=name,
        version=version_of(name, source_digest(settings.model)),
        max_model_len=settings.max_model_len or MAX_MODEL_LEN,
        source=settings.model,
        created_s=int(time.time()),
        tool_form=None,
        max_token_bytes=1,
        takes_images=True,
    )


def _info(settings: WorkerSettings, base: BaseModel) -> BaseInfo:
    max_num_seqs = settings.max_num_seqs or CPU_BATCH.max_num_seqs
    return BaseInfo(
        eos_ids=frozenset({END_ID}),
        device="simulated",
        dtype="none",
        kernels="none",
        num_fused=0,
        kv_tokens=max_num_seqs * base.max_model_len,
        kv_bytes=0,
        weight_bytes=0,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=(
            settings.max_num_batched_tokens or CPU_BATCH.max_num_batched_tokens
        ),
    )
