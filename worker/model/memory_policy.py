"""Divides a device's memory among KV cache, adapters and steps. Policy only.

The functions compute with numbers of bytes and tokens. `memory.py` measures them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

MIB = 1 << 20
CONTEXT_BYTES = 512 * MIB
"""Bytes of a CUDA context and its loaded kernels, which torch's allocator doesn't count."""
GIB = 1 << 30

CPU_KV_BYTES = 2 * GIB
"""Bytes of the KV cache on a CPU, unless memory is scarce or the model's context needs more."""
ADAPTER_BYTES = 1 * GIB
"""Bytes of adapter memory on a CPU, and of host memory for copies of adapters on any device.

On a machine with little memory, both are smaller."""
MAX_GPU_ADAPTER_BYTES = 8 * GIB
GPU_ADAPTER_SHARE = 8
"""Divisor of the GPU memory that remains after the weights and the largest step.

Adapters get the quotient."""
STEP_SHARE = 4
"""Divisor of the memory that remains after the weights. The largest step may take the quotient."""
MIN_STEP_TOKENS = 512
MIN_CONTEXT = 256
"""Shortest context, in tokens, with which a worker starts.

It starts with a shorter one only if --max-model-len or the model's maximum is shorter."""
_SAMPLED_BYTES = 48
"""Bytes for each logit of a sampled row: the logit, its float32 copy and the sampler's tables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMemory:
    """Memory of a device in bytes, when the weights of the base model are loaded."""

    total: int
    free: int
    """Memory that this process could still allocate without harm to the machine."""
    used: int
    """Memory that this process holds: weights, libraries and buffers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Limits of one step."""

    max_num_seqs: int
    max_num_batched_tokens: int


CPU_BATCH = Batch(max_num_seqs=64, max_num_batched_tokens=512)
_GPU_BATCHES = (
    (60 * GIB, Batch(max_num_seqs=256, max_num_batched_tokens=8192)),
    (20 * GIB, Batch(max_num_seqs=128, max_num_batched_tokens=4096)),
    (0, Batch(max_num_seqs=64, max_num_batched_tokens=2048)),
)
"""(minimum bytes of a GPU's memory, limits of a step on such a GPU), largest memory first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Memory of a worker's parts, in bytes. None stands for a part that isn't set explicitly."""

    kv: int | None = None
    adapters: int | None = None
    copies: int | None = None
    """Host memory for copies of adapters, in bytes. On a CPU, it is part of the device's memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """Memory of a worker's parts, in bytes."""

    kv: int
    adapters: int
    copies: int


def default_batch(total: int, *, is_cpu: bool) -> Batch:
    """Return the limits of a step on a device with `total` bytes of memory."""
    if is_cpu:
        return CPU_BATCH
    return next(batch for least, batch in _GPU_BATCHES if total >= least)


def budget(memory: DeviceMemory, fraction: float) -> int:
    """Return the bytes that the worker may still allocate on its device.

    The result plus what the worker already holds is at most `fraction` of the device's memory. The
    result is also at most `fraction` of the free memory, so that other processes can allocate some.
    """
    own = int(fraction * memory.total) - memory.used
    return max(0, min(own, int(fraction * memory.free)))


def divide_gpu(rest: int, asked: Parts) -> Division:
    """Divide `rest` bytes of a GPU among KV cache and adapters.

    A part that is set in `asked` keeps its size. If this size exceeds `rest`, the other part gets
    nothing.
    """
    if asked.adapters is not None:
        adapters = asked.adapters
    elif asked.kv is not None:
        adapters = min(MAX_GPU_ADAPTER_BYTES, max(0, rest - asked.kv))
    else:
        adapters = min(MAX_GPU_ADAPTER_BYTES, rest // GPU_ADAPTER_SHARE)
    return Division(
        kv=max(0, rest - adapters) if asked.kv is None else asked.kv,
        adapters=adapters,
        copies=ADAPTER_BYTES if asked.copies is None else asked.copies,
    )


def divide_cpu(rest: int, asked: Parts, *, full_context: int) -> Division:
    """Divide `rest` bytes of a machine among the parts.

    Parts that are set in `asked` keep their size. The other parts get their usual sizes. If `rest`
    is too small, these usual sizes are reduced in proportion.

    `full_context` is the size, in bytes, of the KV cache of one sequence with the model's maximum
    length. If this size is larger than CPU_KV_BYTES, the KV cache gets it, but at most half of
    `rest`, because a full cache stays in memory.
    """
    usual = {
        "kv": max(CPU_KV_BYTES, min(full_context, rest // 2)),
        "adapters": ADAPTER_BYTES,
        "copies": ADAPTER_BYTES,
    }
    fixed = {name: size for name in usual if (size := getattr(asked, name)) is not None}
    left = max(0, rest - sum(fixed.values()))
    needed = sum(size for name, size in usual.items() if name not in fixed)
    if needed > left:
        usual = {name: size * left // needed for name, size in usual.items()}
    return Division(**{**usual, **fixed})


def layer_width(hidden_size: int, intermediate_size: int | Sequence[int] | None) -> int:
    """Estimate the width of the widest layer's intermediate results.

    `intermediate_size` is the width of the MLP, or a list with the width in each layer. None stands
    for the usual width, 4 times `hidden_size`.
    """
    if isinstance(intermediate_size, Sequence):
        intermediate_size = max(intermediate_size)
    return 8 * hidden_size + 3 * (intermediate_size or 4 * hidden_size)


def estimated_step_bytes(batch: Batch, *, width: int, vocab_size: int, itemsize: int) -> int:
    """Estimate the memory of the largest step, in bytes.

    `width` is the result of `layer_width`. A row has `vocab_size` logits, and an element of the
    model's tensors has `itemsize` bytes.
    """
    rows = min(batch.max_num_seqs, batch.max_num_batched_tokens)
    activations = batch.max_num_batched_tokens * width * itemsize
    return activations + rows * vocab_size * _SAMPLED_BYTES
