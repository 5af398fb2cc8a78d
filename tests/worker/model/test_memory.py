"""Memory of machines and processes, and its division into the parts of a worker."""

import ctypes
import sys
from dataclasses import dataclass, field
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


def test_a_gpu_of_80_gib_holds_several_full_contexts_of_an_8b_model() -> None:
    device = ScriptedDevice(80 * GIB, weights=16 * GIB)
    sizes = sized(device)
    assert sizes.batch == Batch(max_num_seqs=256, max_num_batched_tokens=8192)
    assert sizes.step_bytes == GIB
    assert sizes.parts.adapters > 6 * GIB
    assert sizes.parts.kv > 2 * FULL_CONTEXT
    on_device = sizes.parts.kv + sizes.parts.adapters + sizes.step_bytes + device.weights
    assert 71 * GIB < on_device <= 72 * GIB


@pytest.mark.parametrize(("gib", "weights"), [(24, 16), (8, 2)])
def test_smaller_gpus_get_less_and_stay_within_their_fraction(gib: int, weights: int) -> None:
    device = ScriptedDevice(gib * GIB, weights=weights * GIB)
    sizes = sized(device)
    on_device = sizes.parts.kv + sizes.parts.adapters + sizes.step_bytes + device.weights
    assert 0.85 * device.total < on_device <= 0.9 * device.total
    assert sizes.parts.kv < FULL_CONTEXT


def test_explicit_settings_win_over_sizes_from_the_device() -> None:
    device = ScriptedDevice(80 * GIB, weights=16 * GIB)
    sizes = sized(device, kv=3 * GIB, adapters=512 * MIB, seqs=7, tokens=64)
    assert sizes.batch == Batch(max_num_seqs=7, max_num_batched_tokens=64)
    assert (sizes.parts.kv, sizes.parts.adapters) == (3 * GIB, 512 * MIB)
    assert device.steps == [64]
    assert sized(device, adapters=GIB).parts.kv > sized(device).parts.kv


def test_a_step_that_takes_too_much_memory_is_halved() -> None:
    device = ScriptedDevice(80 * GIB, weights=16 * GIB, bytes_per_token=4 * MIB)
    sizes = sized(device)
    assert device.steps == [8192, 4096, 2048]
    assert sizes.batch.max_num_batched_tokens == 2048
    assert sizes.step_bytes == 8 * GIB


def test_a_step_that_does_not_fit_at_all_is_refused() -> None:
    device = ScriptedDevice(24 * GIB, weights=23 * GIB, bytes_per_token=8 * MIB)
    with pytest.raises(SettingsError, match=r"--max-num-batched-tokens 512 .* set them lower"):
        sized(device)
    with pytest.raises(SettingsError, match=r"--max-num-batched-tokens 4096 .* set them lower"):
        sized(device, tokens=4096)


def test_a_step_has_room_for_one_token_of_each_sequence() -> None:
    device = ScriptedDevice(80 * GIB, weights=16 * GIB, is_cpu=True)
    assert sized(device, seqs=1000).batch.max_num_batched_tokens == 1000


byte_sizes = st.integers(0, 256 * GIB)
fractions = st.floats(0.01, 1.0)
memories = st.builds(DeviceMemory, total=byte_sizes, free=byte_sizes, used=byte_sizes)
asked_sizes = st.none() | st.integers(0, 8 * GIB)
askeds = st.builds(Parts, kv=asked_sizes, adapters=asked_sizes, copies=asked_sizes)
MORE = st.integers(0, 16 * GIB)


def total(division: Division) -> int:
    return division.kv + division.adapters + division.copies


def at_least(larger: Division, smaller: Division) -> bool:
    pairs = ((larger.kv, smaller.kv), (larger.adapters, smaller.adapters))
    return all(a >= b for a, b in (*pairs, (larger.copies, smaller.copies)))


@given(memories, fractions)
def test_a_worker_stays_within_its_fraction_and_within_the_free_memory(
    memory: DeviceMemory, fraction: float
) -> None:
    size = budget(memory, fraction)
    assert 0 <= size <= memory.free
    assert size == 0 or memory.used + size <= fraction * memory.total


@given(memories, fractions, MORE)
def test_more_memory_never_gives_a_smaller_budget(
    memory: DeviceMemory, fraction: float, more: int
) -> None:
    roomier = DeviceMemory(total=memory.total + more, free=memory.free + more, used=memory.used)
    assert budget(roomier, fraction) >= budget(memory, fraction)


@given(st.integers(1, 8), byte_sizes)
def test_workers_that_divide_the_fraction_share_the_memory(number: int, free: int) -> None:
    memory = DeviceMemory(total=free, free=free, used=0)
    assert number * budget(memory, 0.9 / number) <= budget(memory, 0.9) + number


@given(byte_sizes)
def test_without_explicit_sizes_the_parts_fill_the_rest_of_a_gpu(rest: int) -> None:
    division = divide_gpu(rest, Parts())
    assert division.kv + division.adapters == rest
    assert division.adapters <= MAX_GPU_ADAPTER_BYTES


@given(byte_sizes, askeds)
def test_explicit_sizes_win_and_others_take_what_they_leave(rest: int, asked: Parts) -> None:
    for division in (divide_gpu(rest, asked), divide_cpu(rest, asked, full_context=16 * GIB)):
        for name in ("kv", "adapters", "copies"):
            given_size = getattr(asked, name)
            assert given_size is None or getattr(division, name) == given_size
    on_gpu = divide_gpu(rest, asked)
    explicit = (asked.kv or 0) + (asked.adapters or 0)
    assert on_gpu.kv + on_gpu.adapters <= max(rest, explicit)
    explicit += asked.copies or 0
    assert total(divide_cpu(rest, asked, full_context=16 * GIB)) <= max(rest, explicit)


@given(byte_sizes, askeds, MORE, byte_sizes)
def test_more_memory_never_makes_a_part_smaller(
    rest: int, asked: Parts, more: int, full_context: int
) -> None:
    assert at_least(divide_gpu(rest + more, asked), divide_gpu(rest, asked))
    assert at_least(
        divide_cpu(rest + more, asked, full_context=full_context),
        divide_cpu(rest, asked, full_context=full_context),
    )


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


def test_a_steps_estimate_counts_activations_and_sampled_rows() -> None:
    batch = Batch(max_num_seqs=4, max_num_batched_tokens=100)
    estimate = estimated_step_bytes(batch, width=10, vocab_size=1000, itemsize=2)
    assert estimate == 100 * 10 * 2 + 4 * 1000 * 48


MEMINFO = "MemTotal: {} kB\nMemFree: 1 kB\nMemAvailable: {} kB\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine of 64 GiB, of which 32 GiB are available."""
    write(tmp_path / "proc/meminfo", MEMINFO.format(64 << 20, 32 << 20))
    write(tmp_path / "proc/self/statm", "1000 500 100 1 0 300 0")
    return tmp_path


def write(path: Path, text: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def test_a_machine_keeps_a_gib_of_its_available_memory_to_itself(root: Path) -> None:
    memory = machine_memory(root)
    assert (memory.total, memory.free) == (64 * GIB, 31 * GIB)
    assert memory.used == 500 * 4096


def test_a_containers_limit_counts_and_its_file_cache_is_free(root: Path) -> None:
    write(root / "proc/self/cgroup", "0::/")
    group = root / "sys/fs/cgroup"
    write(group / "memory.max", 8 * GIB)
    write(group / "memory.current", 5 * GIB)
    write(group / "memory.stat", f"anon 1\ninactive_file {2 * GIB}")
    memory = machine_memory(root)
    assert (memory.total, memory.free) == (8 * GIB, 4 * GIB)


def test_the_smallest_limit_of_all_parent_groups_counts(root: Path) -> None:
    write(root / "proc/self/cgroup", "0::/system.slice/lorikeet.service")
    for folder, limit in (("system.slice", 4 * GIB), ("system.slice/lorikeet.service", "max")):
        write(root / "sys/fs/cgroup" / folder / "memory.max", limit)
        write(root / "sys/fs/cgroup" / folder / "memory.current", GIB)
        write(root / "sys/fs/cgroup" / folder / "memory.stat", "inactive_file 0")
    memory = machine_memory(root)
    assert memory.total == 4 * GIB
    assert memory.free == 4 * GIB - GIB - GIB // 2


def test_control_groups_of_version_1_count_even_under_a_path_of_the_host(root: Path) -> None:
    write(root / "proc/self/cgroup", "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc")
    group = root / "sys/fs/cgroup/memory"
    write(group / "memory.limit_in_bytes", 2 * GIB)
    write(group / "memory.usage_in_bytes", GIB)
    write(group / "memory.stat", f"cache 5\ntotal_inactive_file {GIB // 4}")
    memory = machine_memory(root)
    assert memory.total == 2 * GIB
    assert memory.free == GIB + GIB // 4 - GIB // 4


def test_without_proc_half_of_the_memory_counts_as_free(tmp_path: Path) -> None:
    memory = machine_memory(tmp_path)
    assert 0 < memory.free < memory.total / 2
    assert memory.used == 0


def test_this_machine_can_be_read() -> None:
    memory = machine_memory()
    assert 0 < memory.used < memory.total
    assert memory.free < memory.total


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
    before = resident()
    return_freed_memory()
    after = resident()
    libc.free(last)
    assert before - after > NUM_BLOCKS * BLOCK_BYTES / 2


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    return int(psutil.Process().memory_info().rss)
