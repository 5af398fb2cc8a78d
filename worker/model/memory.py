"""Determines a worker's sizes from its device's memory: limits of steps, and memory of parts."""

from dataclasses import dataclass
from typing import Protocol

from shared.errors import SettingsError
from worker.model.memory_policy import (
    MIN_STEP_TOKENS,
    STEP_SHARE,
    Batch,
    DeviceMemory,
    Division,
    Parts,
    budget,
    default_batch,
    divide_cpu,
    divide_gpu,
)


class Device(Protocol):
    """The device that computes a loaded model."""

    @property
    def name(self) -> str:
        """Name of the device, such as `cuda:0`."""

    @property
    def is_cpu(self) -> bool:
        """Whether the device is a CPU, whose memory is the machine's."""

    def memory(self) -> DeviceMemory:
        """Return the device's total, free and used memory. The weights are already loaded."""

    def step_bytes(self, batch: Batch) -> int | None:
        """Return the bytes that the largest step needs in addition to the weights.

        Return None if the device runs out of memory.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Sizes that the settings give. None stands for a size that isn't set."""

    parts: Parts
    max_num_seqs: int | None
    max_num_batched_tokens: int | None
    memory_fraction: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Limits of a worker's steps, and the memory of its parts in bytes."""

    batch: Batch
    parts: Division
    step_bytes: int
    """Memory that the largest step takes besides the weights."""


def size_worker(device: Device, asked: Asked, *, full_context: int) -> Sizes:
    """Return the sizes of a worker. The device determines sizes that aren't in the settings.

    `full_context` is the size, in bytes, of the KV cache of one sequence with the model's maximum
    length.

    Raises:
        SettingsError: the device has too little memory for a step.
    """
    memory = device.memory()
    available = budget(memory, asked.memory_fraction)
    batch, step_bytes = _size_step(device, asked, memory.total, available // STEP_SHARE)
    rest = max(0, available - step_bytes)
    if device.is_cpu:
        parts = divide_cpu(rest, asked.parts, full_context=full_context)
    else:
        parts = divide_gpu(rest, asked.parts)
    return Sizes(batch=batch, parts=parts, step_bytes=step_bytes)


def _size_step(device: Device, asked: Asked, total: int, max_bytes: int) -> tuple[Batch, int]:
    """Return the limits of a step, and the bytes that the largest step takes.

    If --max-num-batched-tokens isn't set, the limit is halved until the step takes at most
    `max_bytes`.
    """
    usual = default_batch(total, is_cpu=device.is_cpu)
    num_seqs = asked.max_num_seqs or usual.max_num_seqs
    num_tokens = asked.max_num_batched_tokens or max(usual.max_num_batched_tokens, num_seqs)
    least = asked.max_num_batched_tokens or max(MIN_STEP_TOKENS, num_seqs)
    while True:
        batch = Batch(max_num_seqs=num_seqs, max_num_batched_tokens=num_tokens)
        step_bytes = device.step_bytes(batch)
        if step_bytes is not None and step_bytes <= max_bytes:
            return batch, step_bytes
        if num_tokens // 2 < least:
            break
        num_tokens //= 2
    if step_bytes is None:
        raise SettingsError(
            f"--max-num-batched-tokens {num_tokens} and --max-num-seqs {num_seqs}: {device.name} "
            "has too little memory for such a step; set them lower, or serve a smaller model"
        )
    return batch, step_bytes
