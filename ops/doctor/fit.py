"""Works out what fits into the memory of one worker, using the workers' own policy."""

from dataclasses import dataclass

from ops.doctor.facts import Fit, Gpu
from ops.doctor.model_shape import ModelShape
from shared.settings import WorkerSettings
from worker.model.machine_memory import machine_memory
from worker.model.memory_policy import CONTEXT_BYTES, Batch, DeviceMemory, estimated_step_bytes
from worker.startup.sizing import cache_size, sizes_of

TYPICAL_CONTEXT = 2048
"""Typical number of tokens of a chat, including the answer."""
RANK = 16


@dataclass(frozen=True, slots=True)
class PlannedDevice:
    """A device as it will be once the model is loaded."""

    name: str
    shape: ModelShape
    gpu: Gpu | None
    """GPU that the worker uses, or None if it uses the CPUs."""

    @property
    def is_cpu(self) -> bool:
        """Whether the device uses the machine's memory."""
        return self.gpu is None

    def memory(self) -> DeviceMemory:
        """Return the device's memory as it will be with the weights loaded.

        This process has imported the libraries of a worker, so it holds about as much memory as a
        worker without its weights.
        """
        weights = self.shape.weight_bytes
        if self.gpu is None:
            now = machine_memory()
            total, free, used = now.total, now.free - weights, now.used + weights
        else:
            used = weights + CONTEXT_BYTES
            total, free = self.gpu.total, self.gpu.free - used
        return DeviceMemory(total=total, free=max(0, free), used=used)

    def step_bytes(self, batch: Batch) -> int:
        """Estimate, from the model's shape, how much memory the largest step needs."""
        shape = self.shape
        return estimated_step_bytes(
            batch, width=shape.width, vocab_size=shape.vocab_size, itemsize=shape.dtype.itemsize
        )


def fit(worker: WorkerSettings, shape: ModelShape, device: PlannedDevice) -> Fit:
    """Return what fits into a worker with these settings.

    Raises:
        SettingsError: the device has too little memory for a step or for a useful context.
    """
    sizes = sizes_of(worker, shape, device)
    size = cache_size(shape, sizes)
    full_context = min(shape.max_model_len, worker.max_model_len or shape.max_model_len)
    max_model_len = min(full_context, size.num_tokens)
    num_seqs = sizes.batch.max_num_seqs
    return Fit(
        kv_bytes=sizes.parts.kv,
        kv_tokens=size.num_tokens,
        max_model_len=max_model_len,
        full_context=full_context,
        typical_context=min(TYPICAL_CONTEXT, max_model_len),
        max_num_seqs=min(num_seqs, size.num_slots) if shape.cache.states else num_seqs,
        state_bytes=shape.cache.bytes_per_state,
        step_bytes=sizes.step_bytes,
        adapter_bytes=sizes.parts.adapters,
        host_bytes=sizes.parts.copies,
        is_one_memory=device.is_cpu,
        bytes_per_adapter=shape.adapter_bytes(RANK),
        rank=RANK,
    )
