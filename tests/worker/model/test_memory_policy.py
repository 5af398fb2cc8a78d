"""Division of a device's memory, in numbers."""

from hypothesis import given
from hypothesis import strategies as st

from worker.model.memory_policy import (
    ADAPTER_BYTES,
    CPU_KV_BYTES,
    GIB,
    MAX_GPU_ADAPTER_BYTES,
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

sizes = st.integers(0, 256 * GIB)
fractions = st.floats(0.01, 1.0)
memories = st.builds(DeviceMemory, total=sizes, free=sizes, used=sizes)
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


@given(st.integers(1, 8), sizes)
def test_workers_that_divide_the_fraction_share_the_memory(number: int, free: int) -> None:
    memory = DeviceMemory(total=free, free=free, used=0)
    assert number * budget(memory, 0.9 / number) <= budget(memory, 0.9) + number


@given(sizes)
def test_without_explicit_sizes_the_parts_fill_the_rest_of_a_gpu(rest: int) -> None:
    division = divide_gpu(rest, Parts())
    assert division.kv + division.adapters == rest
    assert division.adapters <= MAX_GPU_ADAPTER_BYTES


@given(sizes, askeds)
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


@given(sizes, askeds, MORE, sizes)
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
