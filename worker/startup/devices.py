"""Measures the memory of the device that computes a loaded model."""

from dataclasses import dataclass

import torch

from worker.model.loader import LoadedModel
from worker.model.machine_memory import machine_memory
from worker.model.memory import Device
from worker.model.memory_policy import (
    CONTEXT_BYTES,
    Batch,
    DeviceMemory,
    estimated_step_bytes,
    layer_width,
)
from worker.model.out_of_memory import free_unused, is_out_of_memory
from worker.startup.largest_step import LargestStep


def device_of(loaded: LoadedModel) -> Device:
    """Return the device of a loaded model."""
    return Gpu(loaded) if loaded.device.type == "cuda" else Cpu(loaded)


@dataclass(frozen=True, slots=True)
class Cpu:
    """The machine's CPUs as the device that computes the model."""

    loaded: LoadedModel
    name: str = "this machine"
    is_cpu: bool = True

    def memory(self) -> DeviceMemory:
        """Return the memory of the machine, or of this container."""
        return machine_memory()

    def step_bytes(self, batch: Batch) -> int:
        """Estimate the memory of the largest step. The step isn't run: it could take minutes."""
        config = self.loaded.config
        return estimated_step_bytes(
            batch,
            width=layer_width(config.hidden_size, getattr(config, "intermediate_size", None)),
            vocab_size=int(config.vocab_size),
            itemsize=self.loaded.dtype.itemsize,
        )


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as the device that computes the model."""

    loaded: LoadedModel
    is_cpu: bool = False

    @property
    def name(self) -> str:
        """Name of the device, such as `cuda:0`."""
        return str(self.loaded.device)

    def memory(self) -> DeviceMemory:
        """Return the GPU's memory. Memory that other processes use doesn't count as free."""
        device = self.loaded.device
        free_unused(device)
        free, total = torch.cuda.mem_get_info(device)
        used = torch.cuda.memory_reserved(device) + CONTEXT_BYTES
        return DeviceMemory(total=total, free=free, used=used)

    def step_bytes(self, batch: Batch) -> int | None:
        """Run the largest step. Return its memory in bytes, or None if the GPU has too little."""
        device = self.loaded.device
        free_unused(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_reserved(device)
        try:
            step = LargestStep(self.loaded, batch)
            step.run()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return None
        finally:
            free_unused(device)
        return max(0, torch.cuda.max_memory_reserved(device) - before - step.kv_bytes)
