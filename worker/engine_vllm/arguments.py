"""Arguments of vLLM for a worker's settings."""

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from vllm.engine.arg_utils import EngineArgs
from vllm.platforms import current_platform
from vllm.utils.argparse_utils import FlexibleArgumentParser

from shared.errors import SettingsError
from shared.settings import WorkerSettings
from worker.engine_vllm.sampler import CONFIG
from worker.engine_vllm.sampler import PATH as SAMPLER

MIB = 1 << 20
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks for which vLLM has kernels."""
DEFAULT_SLOTS = 16
"""Number of adapters that are resident unless --adapter-memory-mb is given."""
CPU_KV_MB = 2048
"""Size of the KV cache on CPUs unless --kv-cache-mb is given, in MiB."""
_FITTING_LEN = -1
"""Context length that lets vLLM take the model's, or what fits into the KV cache."""
_OWN = {
    "--model": "--model",
    "--tokenizer": "--model",
    "--dtype": "--dtype",
    "--enable-lora": "--adapters",
    "--max-loras": "--adapter-memory-mb",
    "--max-cpu-loras": "--adapter-memory-mb",
    "--max-lora-rank": "--max-lora-rank",
    "--lora-modules": "--adapters",
    "--max-model-len": "--max-model-len",
    "--max-num-seqs": "--max-num-seqs",
    "--max-num-batched-tokens": "--max-num-batched-tokens",
    "--gpu-memory-utilization": "--memory-fraction",
    "--kv-cache-memory-bytes": "--kv-cache-mb",
    "--tensor-parallel-size": "--tensor-parallel",
    "--pipeline-parallel-size": "--pipeline-parallel",
    "--quantization": "--quantization",
    "--enable-prefix-caching": "--prefix-cache",
    "--no-enable-prefix-caching": "--no-prefix-cache",
    "--served-model-name": "--served-name",
}
"""Arguments of vLLM that Lorikeet sets, and the flags that set them."""


class _Parser(FlexibleArgumentParser):  # type: ignore[misc]  # vLLM isn't installed where mypy runs
    """A parser whose errors are exceptions."""

    def error(self, message: str) -> Any:
        raise SettingsError(f"--vllm-args: {message}")


def engine_args(
    settings: WorkerSettings,
    folder: Path,
    *,
    vocab_size: int,
    eos_ids: Sequence[int],
    num_slots: int,
    linears: Iterable[str],
) -> EngineArgs:
    """Return vLLM's arguments.

    Args:
        settings: the worker's settings.
        folder: folder of the base model.
        vocab_size: number of token ids.
        eos_ids: tokens that end an answer.
        num_slots: number of adapters that are resident at the same time.
        linears: names of the linears that adapters may target.

    Raises:
        SettingsError: a setting isn't one that vLLM has.
    """
    args = EngineArgs.from_cli_args(_parsed(settings.vllm_args))
    args.model = str(folder)
    args.skip_tokenizer_init = True
    args.generation_config = "vllm"  # sampling defaults come with the job
    args.dtype = "bfloat16" if settings.dtype == "auto" else settings.dtype
    args.max_model_len = settings.max_model_len or _FITTING_LEN
    args.max_num_seqs = settings.max_num_seqs
    args.max_num_batched_tokens = settings.max_num_batched_tokens
    args.max_logprobs = -1
    args.tensor_parallel_size = settings.tensor_parallel
    args.pipeline_parallel_size = settings.pipeline_parallel
    args.quantization = settings.quantization
    args.enable_prefix_caching = settings.prefix_cache
    args.enable_lora = True
    args.max_loras = args.max_cpu_loras = num_slots
    args.max_lora_rank = rank_of(settings)
    # Without a list, vLLM also prepares the output head for adapters. Log-probabilities of a
    # prompt then end its engine core.
    args.lora_target_modules = sorted({name.rpartition(".")[2] for name in linears})
    args.logits_processors = [SAMPLER]
    args.additional_config = {
        **args.additional_config,
        CONFIG: {
            "tokenizer": str(folder),
            "vocab_size": vocab_size,
            "eos_ids": sorted(eos_ids),
        },
    }
    _set_memory(args, settings)
    return args


def rank_of(settings: WorkerSettings) -> int:
    """Return the rank of all slots: the smallest that vLLM has and --max-lora-rank fits into.

    Raises:
        SettingsError: there is no such rank.
    """
    for rank in RANKS:
        if settings.max_lora_rank <= rank:
            return rank
    raise SettingsError(f"--max-lora-rank: vLLM has no kernels for ranks above {RANKS[-1]}")


def num_slots(settings: WorkerSettings, slot_bytes: int) -> int:
    """Return the number of slots for adapters that the settings allow.

    Raises:
        SettingsError: there is no room for one slot.
    """
    if settings.adapter_memory_mb is None:
        return DEFAULT_SLOTS
    num = settings.adapter_memory_mb * MIB // slot_bytes
    if num < 1:
        raise SettingsError(
            f"--adapter-memory-mb {settings.adapter_memory_mb} has no room for one adapter of "
            f"rank {rank_of(settings)}, which takes {-(-slot_bytes // MIB)} MiB: raise it, or "
            "lower --max-lora-rank"
        )
    return num


def _parsed(text: str) -> Any:
    words = shlex.split(text)
    for word in words:
        name = word.partition("=")[0].replace("_", "-")
        if name in _OWN:
            raise SettingsError(f"--vllm-args: set {name} by Lorikeet's flag {_OWN[name]}")
    return EngineArgs.add_cli_args(_Parser()).parse_args(words)


def _set_memory(args: EngineArgs, settings: WorkerSettings) -> None:
    args.gpu_memory_utilization = settings.memory_fraction
    if settings.kv_cache_mb is not None:
        args.kv_cache_memory_bytes = settings.kv_cache_mb * MIB
    elif current_platform.is_cpu():
        # By default vLLM takes most of the machine's memory for the KV cache.
        args.kv_cache_memory_bytes = CPU_KV_MB * MIB
