"""Arguments of vLLM for a worker's settings."""

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from vllm.engine.arg_utils import EngineArgs
from vllm.platforms import current_platform
from vllm.utils.argparse_utils import FlexibleArgumentParser

from shared.errors import SettingsError
from shared.protocol.images import MAX_IMAGES
from shared.settings import WorkerSettings
from worker.engine_vllm.sampler import CONFIG
from worker.engine_vllm.sampler import PATH as SAMPLER
from worker.engine_vllm.served_linears import EXTENSION

MIB = 1 << 20
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks for which vLLM has kernels."""
DEFAULT_SLOTS = 16
"""Number of adapters that are resident unless --adapter-memory-mb is given."""
CPU_KV_MB = 2048
"""Size of the KV cache on CPUs unless --kv-cache-mb is given, in MiB."""
GPU_NUM_SEQS = 256
"""Maximum number of sequences on GPUs unless --max-num-seqs is given."""
GPU_BATCHED_TOKENS = 2048
"""Maximum number of tokens of a step on GPUs unless --max-num-batched-tokens is given."""
_FITTING_LEN = -1
"""Value of `max_model_len` that lets vLLM choose the length.

vLLM chooses the model's context length or, if that doesn't fit in memory, the longest that does."""
_OWN = {
    "model": "--model",
    "tokenizer": "--model",
    "dtype": "--dtype",
    "enable_lora": "--adapters",
    "max_loras": "--adapter-memory-mb",
    "max_cpu_loras": "--adapter-memory-mb",
    "max_lora_rank": "--max-lora-rank",
    "lora_target_modules": "--adapters",
    "max_model_len": "--max-model-len",
    "max_num_seqs": "--max-num-seqs",
    "max_num_batched_tokens": "--max-num-batched-tokens",
    "gpu_memory_utilization": "--memory-fraction",
    "kv_cache_memory_bytes": "--kv-cache-mb",
    "tensor_parallel_size": "--tensor-parallel",
    "pipeline_parallel_size": "--pipeline-parallel",
    "quantization": "--quantization",
    "enable_prefix_caching": "--prefix-cache",
    "served_model_name": "--served-name",
}
"""Arguments of vLLM that Lorikeet sets, and the flags that set them."""
_IMPOSSIBLE = {
    "data_parallel_size": "start several workers instead",
    "logits_processors": "Lorikeet samples by one of its own",
    "logprobs_mode": "log-probabilities are always the model's own",
    "generation_config": "each adapter brings its own defaults",
    "additional_config": "it holds Lorikeet's settings",
    "worker_extension_cls": "Lorikeet extends vLLM's workers itself",
    "speculative_config": "it has no place for Lorikeet's sampler",
    "max_logprobs": "Lorikeet has limits of its own",
    "mm_processor_cache_gb": "Lorikeet prepares the images of each request",
}
"""Arguments of vLLM that would break what Lorikeet promises, and why."""


class _Parser(FlexibleArgumentParser):  # type: ignore[misc]  # vLLM isn't installed where mypy runs
    """A parser that raises exceptions for errors."""

    def __init__(self) -> None:
        super().__init__(add_help=False)

    def error(self, message: str) -> Any:
        """Raise `SettingsError` instead of ending the process."""
        raise SettingsError(f"--vllm-args: {message}")


def engine_args(
    settings: WorkerSettings,
    folder: Path,
    *,
    vocab_size: int,
    eos_ids: Sequence[int],
    num_slots: int,
    linears: Iterable[str],
    reads_images: bool,
) -> EngineArgs:
    """Return vLLM's arguments.

    `vocab_size` is the number of token ids, and `eos_ids` end an answer. `num_slots` adapters are
    resident at the same time. They may target `linears`. With `reads_images`, the model's parts for
    images are served, too.

    Raises:
        SettingsError: a setting has a value that vLLM doesn't support.
    """
    args = EngineArgs.from_cli_args(_parsed(settings.vllm_args))
    args.model = str(folder)
    args.skip_tokenizer_init = not reads_images  # vLLM tries images at the start
    if reads_images:
        limits = {"image": MAX_IMAGES, "video": 0, "audio": 0}
        args.limit_mm_per_prompt = limits | args.limit_mm_per_prompt
        args.mm_processor_cache_gb = 0  # requests come with their images
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
    args.worker_extension_cls = EXTENSION
    args.logits_processors = [SAMPLER]
    args.additional_config = {
        **args.additional_config,
        CONFIG: {
            "tokenizer": str(folder),
            "vocab_size": vocab_size,
            "eos_ids": sorted(eos_ids),
        },
    }
    _set_memory(args, settings, vocab_size)
    return args


def rank_of(settings: WorkerSettings) -> int:
    """Return the smallest rank in `RANKS` that is at least --max-lora-rank.

    Raises:
        SettingsError: --max-lora-rank is larger than all of `RANKS`.
    """
    for rank in RANKS:
        if settings.max_lora_rank <= rank:
            return rank
    raise SettingsError(f"--max-lora-rank: vLLM has no kernels for ranks above {RANKS[-1]}")


def num_slots(settings: WorkerSettings, slot_bytes: int) -> int:
    """Return the number of slots for adapters. Raises SettingsError if there is room for none."""
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
    """Parse `text`, the value of --vllm-args, with vLLM's own parser, and return the result.

    Raises:
        SettingsError: the text is malformed, or sets an argument of `_OWN` or `_IMPOSSIBLE`.
    """
    parser = EngineArgs.add_cli_args(_Parser())
    try:
        parsed = parser.parse_args(shlex.split(text))
    except ValueError as error:  # of the quoting, or of JSON in a value
        raise SettingsError(f"--vllm-args: {error}") from None
    given = {name for name, value in vars(parsed).items() if value != parser.get_default(name)}
    for name, flag in _OWN.items():
        if name in given:
            raise SettingsError(f"--vllm-args: set {name} by Lorikeet's flag {flag}")
    for name, reason in _IMPOSSIBLE.items():
        if name in given:
            raise SettingsError(f"--vllm-args: {name} can't be set, because {reason}")
    return parsed


def _set_memory(args: EngineArgs, settings: WorkerSettings, vocab_size: int) -> None:
    args.gpu_memory_utilization = settings.memory_fraction
    if not current_platform.is_cpu():
        args.max_num_seqs = args.max_num_seqs or GPU_NUM_SEQS
        args.max_num_batched_tokens = args.max_num_batched_tokens or GPU_BATCHED_TOKENS
        # vLLM doesn't count what scores of a prompt and Lorikeet's sampler take.
        uncounted = vocab_size * (8 * args.max_num_batched_tokens + 24 * args.max_num_seqs)
        args.gpu_memory_utilization -= uncounted / current_platform.get_device_total_memory()
    if settings.kv_cache_mb is not None:
        args.kv_cache_memory_bytes = settings.kv_cache_mb * MIB
    elif current_platform.is_cpu():
        # By default vLLM takes most of the machine's memory for the KV cache.
        args.kv_cache_memory_bytes = CPU_KV_MB * MIB
