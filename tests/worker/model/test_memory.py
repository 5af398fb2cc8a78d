"""Sizes of workers on scripted devices of 80, 24 and 8 GiB."""

from dataclasses import dataclass, field

import pytest

from shared.errors import SettingsError
from worker.model.memory import Asked, Sizes, size_worker
from worker.model.memory_policy import GIB, MIB, Batch, DeviceMemory, Parts

FULL_CONTEXT = 16 * GIB
"""KV cache for the 131,072 tokens of Llama-3.1-8B."""


@dataclass
class ScriptedDevice:
    """A device whose steps take memory in proportion to their tokens."""

    total: int
    weights: int
    bytes_per_token: int = 128 << 10
    is_cpu: bool = False
    name: str = "scripted:0"
    steps: list[int] = field(default_factory=list)
    """Numbers of tokens of the steps that were measured."""

    @property
    def free(self) -> int:
        return self.total - self.weights

    def memory(self) -> DeviceMemory:
        return DeviceMemory(total=self.total, free=self.free, used=self.weights)

    def step_bytes(self, batch: Batch) -> int | None:
        self.steps.append(batch.max_num_batched_tokens)
        needed = batch.max_num_batched_tokens * self.bytes_per_token
        return needed if needed <= self.free else None


def asked(
    *,
    kv: int | None = None,
    adapters: int | None = None,
    seqs: int | None = None,
    tokens: int | None = None,
    fraction: float = 0.9,
) -> Asked:
    return Asked(
        parts=Parts(kv=kv, adapters=adapters),
        max_num_seqs=seqs,
        max_num_batched_tokens=tokens,
        memory_fraction=fraction,
    )


def sized(device: ScriptedDevice, asked: Asked) -> Sizes:
    return size_worker(device, asked, full_context=FULL_CONTEXT)


def test_a_gpu_of_80_gib_holds_several_full_contexts_of_an_8b_model() -> None:
    device = ScriptedDevice(80 * GIB, weights=16 * GIB)
    sizes = sized(device, asked())
    assert sizes.batch == Batch(max_num_seqs=256, max_num_batched_tokens=8192)
    assert sizes.step_bytes == GIB
    assert sizes.parts.adapters > 6 * GIB
    assert sizes.parts.kv > 2 * FULL_CONTEXT
    on_device = sizes.parts.kv + sizes.parts.adapters + sizes.step_bytes + device.weights
    assert 71 * GIB < on_device <= 72 * GIB


@pytest.mark.parametrize(("gib", "weights"), [(24, 16), (8, 2)])
def test_smaller_gpus_get_less_and_stay_within_their_fraction(gib: int, weights: int) -> None:
    device = ScriptedDevice(gib * GIB, weights=weights * GIB)
    sizes = sized(device, asked())
    on_device = sizes.parts.kv + sizes.parts.adapters + sizes.step_bytes + device.weights
    assert 0.85 * device.total < on_device <= 0.9 * device.total
    assert sizes.parts.kv < FULL_CONTEXT


def test_explicit_settings_win_over_sizes_from_the_device() -> None:
    device = ScriptedDevice(80 * GIB, weights=16 * GIB)
    sizes = sized(device, asked(kv=3 * GIB, adapters=512 * MIB, seqs=7, tokens=64))
    assert sizes.batch == Batch(max_num_seqs=7, max_num_batched_tokens=64)
    assert (sizes.parts.kv, sizes.parts.adapters) == (3 * GIB, 512 * MIB)
    assert device.steps == [64]
    assert sized(device, asked(adapters=GIB)).parts.kv > sized(device, asked()).parts.kv


def test_a_step_that_takes_too_much_memory_is_halved() -> None:
    device = ScriptedDevice(80 * GIB, weights=16 * GIB, bytes_per_token=4 * MIB)
    sizes = sized(device, asked())
    assert device.steps == [8192, 4096, 2048]
    assert sizes.batch.max_num_batched_tokens == 2048
    assert sizes.step_bytes == 8 * GIB


def test_a_step_that_does_not_fit_at_all_is_refused() -> None:
    device = ScriptedDevice(24 * GIB, weights=23 * GIB, bytes_per_token=8 * MIB)
    with pytest.raises(SettingsError, match=r"--max-num-batched-tokens 512 .* set them lower"):
        sized(device, asked())
    with pytest.raises(SettingsError, match=r"--max-num-batched-tokens 4096 .* set them lower"):
        sized(device, asked(tokens=4096))


def test_a_step_has_room_for_one_token_of_each_sequence() -> None:
    device = ScriptedDevice(80 * GIB, weights=16 * GIB, is_cpu=True)
    assert sized(device, asked(seqs=1000)).batch.max_num_batched_tokens == 1000
