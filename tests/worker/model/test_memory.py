"""Memory of machines and processes, and its division into the parts of a worker."""

import ctypes
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import SettingsError
from worker.model.machine_memory import machine_memory
from worker.model.memory import Asked, Sizes, size_worker
from worker.model.memory_policy import (
    ADAPTER_BYTES,
    CPU_KV_BYTES,
    GIB,
    MAX_GPU_ADAPTER_BYTES,
    MIB,
    Batch,
    DeviceMemory,
    Division,
    Parts,
    budget,
    default_batch,
    divide_cpu,
    divide_gpu,
    estimated_step_bytes,
)
from worker.model.out_of_memory import return_freed_memory

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


def sized(
    device: ScriptedDevice, *, seqs: int | None = None, tokens: int | None = None, **parts: int
) -> Sizes:
    asked = Asked(
        parts=Parts(**parts),
        max_num_seqs=seqs,
        max_num_batched_tokens=tokens,
        memory_fraction=0.9,
    )
    return size_worker(device, asked, full_context=FULL_CONTEXT)


@pytest.mark.parametrize(("gib", "weights", "least"), [(80, 16, 71), (24, 16, 20.4), (8, 2, 6.8)])
def test_gpus_stay_within_their_fraction_and_large_ones_hold_several_full_contexts(
    gib: int, weights: int, least: float
) -> None:
    device = ScriptedDevice(gib * GIB, weights=weights * GIB)
    sizes = sized(device)
    on_device = sizes.parts.kv + sizes.parts.adapters + sizes.step_bytes + device.weights
    assert least * GIB < on_device <= 0.9 * device.total
    assert (sizes.parts.kv > 2 * FULL_CONTEXT) is (gib == 80)
    assert gib == 80 or sizes.parts.kv < FULL_CONTEXT
    if gib == 80:
        assert sizes.batch == Batch(max_num_seqs=256, max_num_batched_tokens=8192)
        assert sizes.step_bytes == GIB
        assert sizes.parts.adapters > 6 * GIB


def test_explicit_settings_win_over_sizes_from_the_device() -> None:
    device = ScriptedDevice(80 * GIB, weights=16 * GIB)
    sizes = sized(device, kv=3 * GIB, adapters=512 * MIB, seqs=7, tokens=64)
    assert sizes.batch == Batch(max_num_seqs=7, max_num_batched_tokens=64)
    assert (sizes.parts.kv, sizes.parts.adapters) == (3 * GIB, 512 * MIB)
    assert device.steps == [64]
    assert sized(device, adapters=GIB).parts.kv > sized(device).parts.kv


def test_a_step_is_halved_until_it_fits_but_has_room_for_one_token_of_each_sequence() -> None:
    device = ScriptedDevice(80 * GIB, weights=16 * GIB, bytes_per_token=4 * MIB)
    sizes = sized(device)
    assert device.steps == [8192, 4096, 2048]
    assert sizes.batch.max_num_batched_tokens == 2048
    assert sizes.step_bytes == 8 * GIB
    device = ScriptedDevice(24 * GIB, weights=23 * GIB, bytes_per_token=8 * MIB)
    with pytest.raises(SettingsError, match=r"--max-num-batched-tokens 512 .* set them lower"):
        sized(device)
    with pytest.raises(SettingsError, match=r"--max-num-batched-tokens 4096 .* set them lower"):
        sized(device, tokens=4096)
    device = ScriptedDevice(80 * GIB, weights=16 * GIB, is_cpu=True)
    assert sized(device, seqs=1000).batch.max_num_batched_tokens == 1000


byte_sizes = st.integers(0, 256 * GIB)
fractions = st.floats(0.01, 1.0)
memories = st.builds(DeviceMemory, total=byte_sizes, free=byte_sizes, used=byte_sizes)
asked_sizes = st.none() | st.integers(0, 8 * GIB)
askeds = st.builds(Parts, kv=asked_sizes, adapters=asked_sizes, copies=asked_sizes)
MORE = st.integers(0, 16 * GIB)


@given(memories, fractions, MORE, st.integers(1, 8))
def test_a_worker_stays_within_its_fraction_of_the_memory_and_gets_more_if_there_is_more(
    memory: DeviceMemory, fraction: float, more: int, number: int
) -> None:
    size = budget(memory, fraction)
    assert 0 <= size <= memory.free
    assert size == 0 or memory.used + size <= fraction * memory.total
    roomier = replace(memory, total=memory.total + more, free=memory.free + more)
    assert budget(roomier, fraction) >= size
    unused = replace(memory, total=memory.free, used=0)
    shared = number * budget(unused, fraction / number)
    assert shared <= budget(unused, fraction) + number, "workers that divide the fraction"


def sizes_of(division: Division) -> list[int]:
    return [division.kv, division.adapters, division.copies]


@given(byte_sizes, askeds, MORE, byte_sizes)
def test_explicit_sizes_win_and_others_take_what_they_leave_and_more_if_there_is_more(
    rest: int, asked: Parts, more: int, full_context: int
) -> None:
    def on_cpu(memory: int) -> Division:
        return divide_cpu(memory, asked, full_context=full_context)

    def on_gpu(memory: int) -> Division:
        return divide_gpu(memory, asked)

    given_sizes = asked.kv, asked.adapters, asked.copies
    for divide in (on_cpu, on_gpu):
        found = sizes_of(divide(rest))
        assert all(g is None or g == size for g, size in zip(given_sizes, found, strict=True))
        larger = sizes_of(divide(rest + more))
        assert all(a >= b for a, b in zip(larger, found, strict=True))
    gpu, explicit = on_gpu(rest), (asked.kv or 0) + (asked.adapters or 0)
    assert gpu.kv + gpu.adapters <= max(rest, explicit)
    assert sum(sizes_of(on_cpu(rest))) <= max(rest, explicit + (asked.copies or 0))
    filled = divide_gpu(rest, Parts())
    assert filled.kv + filled.adapters == rest
    assert filled.adapters <= MAX_GPU_ADAPTER_BYTES


def test_a_cpu_keeps_its_usual_sizes_unless_the_machine_is_small_or_the_context_is_long() -> None:
    usual = Division(kv=CPU_KV_BYTES, adapters=ADAPTER_BYTES, copies=ADAPTER_BYTES)
    assert divide_cpu(4 * GIB, Parts(), full_context=GIB) == usual
    assert divide_cpu(200 * GIB, Parts(), full_context=GIB) == usual
    assert divide_cpu(2 * GIB, Parts(), full_context=GIB) == Division(
        kv=GIB, adapters=GIB // 2, copies=GIB // 2
    )
    assert divide_cpu(200 * GIB, Parts(), full_context=16 * GIB).kv == 16 * GIB
    assert divide_cpu(20 * GIB, Parts(), full_context=16 * GIB).kv == 10 * GIB


def test_steps_are_larger_on_larger_gpus_and_as_before_on_cpus() -> None:
    def on_gpu(gib: float) -> Batch:
        return default_batch(int(gib * GIB), is_cpu=False)

    assert on_gpu(79.1) == Batch(max_num_seqs=256, max_num_batched_tokens=8192)
    assert on_gpu(23.6) == Batch(max_num_seqs=128, max_num_batched_tokens=4096)
    assert on_gpu(7.8) == Batch(max_num_seqs=64, max_num_batched_tokens=2048)
    on_cpu = Batch(max_num_seqs=64, max_num_batched_tokens=512)
    assert default_batch(500 * GIB, is_cpu=True) == on_cpu
    batch = Batch(max_num_seqs=4, max_num_batched_tokens=100)
    estimate = estimated_step_bytes(batch, width=10, vocab_size=1000, itemsize=2)
    assert estimate == 100 * 10 * 2 + 4 * 1000 * 48, "activations and sampled rows"


GROUP = "sys/fs/cgroup"
NESTED = f"{GROUP}/system.slice"
V1 = f"{GROUP}/memory"
MACHINES: dict[str, tuple[dict[str, object], int, float]] = {
    "a machine keeps a GiB of its available memory to itself": ({}, 64, 31),
    "a container's limit counts, and its file cache is free": (
        {
            "proc/self/cgroup": "0::/",
            f"{GROUP}/memory.max": 8 * GIB,
            f"{GROUP}/memory.current": 5 * GIB,
            f"{GROUP}/memory.stat": f"anon 1\ninactive_file {2 * GIB}",
        },
        *(8, 4),
    ),
    "the smallest limit of all parent groups counts": (
        {
            "proc/self/cgroup": "0::/system.slice/lorikeet.service",
            f"{NESTED}/memory.max": 4 * GIB,
            f"{NESTED}/memory.current": GIB,
            f"{NESTED}/memory.stat": "inactive_file 0",
            f"{NESTED}/lorikeet.service/memory.max": "max",
            f"{NESTED}/lorikeet.service/memory.current": GIB,
            f"{NESTED}/lorikeet.service/memory.stat": "inactive_file 0",
        },
        *(4, 2.5),
    ),
    "groups of version 1 count even under a path of the host": (
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc",
            f"{V1}/memory.limit_in_bytes": 2 * GIB,
            f"{V1}/memory.usage_in_bytes": GIB,
            f"{V1}/memory.stat": f"cache 5\ntotal_inactive_file {GIB // 4}",
        },
        *(2, 1),
    ),
}
"""Files of a machine of 64 GiB, of which 32 GiB are available, and its total and free GiB."""


@pytest.mark.parametrize(("files", "total", "free"), MACHINES.values(), ids=MACHINES)
def test_the_memory_of_a_machine_is_that_of_its_tightest_limit(
    tmp_path: Path, files: dict[str, object], total: int, free: float
) -> None:
    unlimited = {
        "proc/meminfo": f"MemTotal: {64 << 20} kB\nMemFree: 1 kB\nMemAvailable: {32 << 20} kB",
        "proc/self/statm": "1000 500 100 1 0 300 0",
    }
    for name, text in (unlimited | files).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    memory = machine_memory(tmp_path)
    assert (memory.total, memory.free, memory.used) == (total * GIB, free * GIB, 500 * 4096)


def test_this_machine_can_be_read_and_without_proc_half_of_its_memory_counts_as_free(
    tmp_path: Path,
) -> None:
    memory = machine_memory()
    assert 0 < memory.used < memory.total
    assert memory.free < memory.total
    memory = machine_memory(tmp_path)
    assert 0 < memory.free < memory.total / 2
    assert memory.used == 0


NUM_BLOCKS = 2000
BLOCK_BYTES = 100_000
"""Size of a block. glibc maps memory for larger blocks, and returns it at once."""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc has malloc_trim")
def test_freed_memory_is_returned() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    blocks = [libc.malloc(BLOCK_BYTES) for _ in range(NUM_BLOCKS)]
    for block in blocks:
        ctypes.memset(block, 1, BLOCK_BYTES)
    last = libc.malloc(BLOCK_BYTES)  # keeps the blocks before it from being returned at once
    for block in blocks:
        libc.free(block)
    process = psutil.Process()
    before = process.memory_info().rss
    return_freed_memory()
    after = process.memory_info().rss
    libc.free(last)
    assert before - after > NUM_BLOCKS * BLOCK_BYTES / 2
